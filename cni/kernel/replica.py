"""What iptables-nft made: read in one namespace, made again or taken away in another, all or nothing, without iptables."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence

from cni.kernel.netlink.channel import Channel
from cni.kernel.netlink.wire import APPEND, CREATE, DUMP, EXCLUSIVE, attribute, attributes, listed, nested, text_of
from cni.kernel.nfnetlink import (
    CHAIN,
    DELETE_TABLE,
    EXPRESSION_NAME,
    GET,
    RULE,
    RULE_CHAIN,
    RULE_EXPRESSIONS,
    SET,
    TABLE,
    TABLE_NAME,
    attributes_of,
    change,
    generation,
    kind_of,
    opened,
    request,
)

#: A rule's table and chain.
Place = tuple[str, str]
#: Requests that make the rules of one family.
Template = Sequence[bytes]

#: Objects and flowtables, and sets: iptables makes none.
_NEVER_OURS = (SET, 18, 22)
_MADE = {TABLE: CREATE | EXCLUSIVE, CHAIN: CREATE | EXCLUSIVE, RULE: CREATE | APPEND}
#: Attributes that say what a thing is; the others are handles, counters, and places among others.
_NAMING = {
    TABLE: {1, 2, 6},  # name, flags, userdata
    CHAIN: {1, 3, 4, 5, 7, 12},  # table, name, hook, policy, type, userdata
    RULE: {1, 2, 4, 7},  # table, chain, expressions, userdata
}
_RULE_COMPAT = 5


def template_of(family: int, protocols: Iterable[tuple[Place, int]]) -> Template:
    """What one family (4 or 6) has in the namespace this thread is in.

    `protocols` are the IP protocols the rules are for, 0 for all, in the order of the rules of each chain: iptables tells
    them to the kernel, which does not tell them again. Raises ValueError where they are not of these rules.
    """
    left: dict[Place, list[int]] = {}
    for place, protocol in protocols:
        left.setdefault(place, []).append(protocol)
    template = [_again(family, message, left) for message in _there(opened(), family)]
    if any(left.values()):
        raise ValueError(f"there are fewer rules than thought: {left}")
    return template


def instantiate(templates: Mapping[int, Template]) -> bool:
    """Make what was copied, by family, in the namespace this thread is in; not where a family has any table already.

    Raises KernelRefused or DumpInterrupted, and then nothing was made.
    """
    channel = opened()
    seen = generation(channel)
    if any(channel.ask(request(TABLE + GET, DUMP, family)) for family in templates):
        return False
    change(channel, [request for template in templates.values() for request in template], seen)
    return True


def remove(family: int, template: Template) -> bool:
    """Take away what was copied, where a family has that and nothing else; whether that was so.

    Raises KernelRefused or DumpInterrupted where somebody changes rules at the same moment; then nothing was taken away.
    """
    channel = opened()
    seen = generation(channel)
    if any(channel.ask(request(kind + GET, DUMP, family)) for kind in _NEVER_OURS):
        return False
    if [_content(message) for message in _there(channel, family)] != [_content(request) for request in template]:
        return False
    names = [attributes_of(request)[TABLE_NAME] for request in template if kind_of(request) == TABLE]
    change(channel, [request(DELETE_TABLE, 0, family, attribute(TABLE_NAME, name)) for name in names], seen)
    return True


def _there(channel: Channel, family: int) -> Iterator[bytes]:
    """Tables, chains and rules, each in the order in which they were made."""
    for kind in _MADE:
        yield from channel.ask(request(kind + GET, DUMP, family))


def _again(family: int, message: bytes, left: dict[Place, list[int]]) -> bytes:
    kind, said = kind_of(message), attributes_of(message)
    body = b"".join(attribute(name, value) for name, value in said.items() if name in _NAMING[kind])
    if kind == RULE:
        place = text_of(said[TABLE_NAME]), text_of(said[RULE_CHAIN])
        if not left.get(place):
            raise ValueError(f"there are more rules than thought: {place}")
        body += _compatibility(left[place].pop(0))
    return request(kind, _MADE[kind], family, body)


def _compatibility(protocol: int) -> bytes:
    """What a rule for one protocol tells the kernel's xtables extensions, which refuse to serve others."""
    numbers = (attribute(name, struct.pack(">I", value)) for name, value in ((1, protocol), (2, 0)))
    return nested(_RULE_COMPAT, *numbers) if protocol else b""


def _content(message: bytes) -> tuple[int, list[tuple[int, object]]]:
    """What a message says of a thing, without what changes by itself: a rule's packet counter."""
    kind = kind_of(message)
    said = [item for item in attributes_of(message).items() if item[0] in _NAMING[kind]]
    if kind != RULE:
        return kind, [*said]
    return kind, [(name, _uncounted(value) if name == RULE_EXPRESSIONS else value) for name, value in said]


def _uncounted(expressions: bytes) -> list[bytes]:
    return [item for item in listed(expressions) if text_of(attributes(item)[EXPRESSION_NAME]) != "counter"]
