"""nf_tables as the kernel keeps it: read in one namespace, made again or taken away in another, all or nothing.

So what iptables-nft made is copied without iptables, and a table that several attachments share is deleted by the
kernel's own word that nothing of anybody is left in it. Numbers and shapes: linux/netfilter/nfnetlink.h and nf_tables.h.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence

from cni.errors import KernelRefused, TryAgainLater
from cni.kernel.channel import ACK, APPEND, CREATE, DUMP, EXCLUSIVE, NETFILTER, REQUEST, Channel, DumpInterrupted

#: A rule's table and chain.
Place = tuple[str, str]
#: Requests that make the rules of one family.
Copy = Sequence[bytes]

_HEADER = struct.Struct("=IHHIIBB2s")  # nlmsghdr, nfgenmsg
_NF_TABLES = 10
_BEGIN, _END = 16, 17
_FAMILY: dict[int | str, int] = {4: 2, 6: 10, "ip": 2, "ip6": 10, "inet": 1, "netdev": 5}
_ELEMENTS = 12
_ELEMENT_LIST = 3
_TRIES = 100

_FLAGS = 6
_TABLE, _DELETE_TABLE, _CHAIN, _RULE, _GENERATION = 0, 2, 3, 6, 15
#: Sets, objects and flowtables: iptables makes none.
_NEVER_OURS = (9, 18, 22)
_GET = 1  # added to what is made
_MADE = {_TABLE: CREATE | EXCLUSIVE, _CHAIN: CREATE | EXCLUSIVE, _RULE: CREATE | APPEND}
#: Attributes that say what a thing is; the others are handles, counters, and places among others.
_NAMING = {
    _TABLE: {1, 2, 6},  # name, flags, userdata
    _CHAIN: {1, 3, 4, 5, 7, 12},  # table, name, hook, policy, type, userdata
    _RULE: {1, 2, 4, 7},  # table, chain, expressions, userdata
}
_TABLE_FLAGS, _DORMANT = 2, b"\0\0\0\1"
_TABLE_NAME = _BATCH_GENERATION = _GENERATION_ID = _EXPRESSION_NAME = 1
_RULE_TABLE, _RULE_CHAIN, _RULE_EXPRESSIONS, _RULE_COMPAT = 1, 2, 4, 5
_NESTED = 0x8000

#: Whoever closes a socket waits until what was deleted is out of everybody's sight.
_used: list[Channel] = []


def copied(family: int, protocols: Iterable[tuple[Place, int]]) -> Copy:
    """What one family (4 or 6) has in the namespace this thread is in.

    `protocols` are the IP protocols the rules are for, 0 for all, in the order of the rules of each chain: iptables tells
    them to the kernel, which does not tell them again. Raises ValueError where they are not of these rules.
    """
    left: dict[Place, list[int]] = {}
    for place, protocol in protocols:
        left.setdefault(place, []).append(protocol)
    copy = [_again(family, message, left) for message in _there(_opened(), family)]
    if any(left.values()):
        raise ValueError(f"there are fewer rules than thought: {left}")
    return copy


def make(copies: Mapping[int, Copy]) -> bool:
    """Make what was copied, by family, in the namespace this thread is in; not where a family has any table already.

    Raises KernelRefused or DumpInterrupted, and then nothing was made.
    """
    channel = _opened()
    generation = _generation(channel)
    if any(channel.ask(_request(_TABLE + _GET, DUMP, family)) for family in copies):
        return False
    _change(channel, generation, [request for copy in copies.values() for request in copy])
    return True


def unmake(family: int, copy: Copy) -> bool:
    """Take away what was copied, where a family has that and nothing else; whether that was so.

    Raises KernelRefused or DumpInterrupted where somebody changes rules at the same moment; then nothing was taken away.
    """
    channel = _opened()
    generation = _generation(channel)
    if any(channel.ask(_request(kind + _GET, DUMP, family)) for kind in _NEVER_OURS):
        return False
    if [_content(message) for message in _there(channel, family)] != [_content(request) for request in copy]:
        return False
    names = [dict(_attributes(request))[_TABLE_NAME] for request in copy if _kind(request) == _TABLE]
    _change(channel, generation, [_request(_DELETE_TABLE, 0, family, attribute(_TABLE_NAME, name)) for name in names])
    return True


def has_element(family: str, table: str, name: str, key: bytes) -> bool:
    """Whether a set or map has a key, in the bytes the kernel keeps; not where there is none of that name."""
    element = attribute(1 | _NESTED, attribute(1 | _NESTED, attribute(1, key)))
    where = attribute(1, _spelled(table)) + attribute(2, _spelled(name))
    return bool(_asked(_opened(), _ELEMENTS, 0, family, where + attribute(_ELEMENT_LIST | _NESTED, element)))


def delete_idle(family: str, table: str, chains: Iterable[str] = (), sets: Iterable[str] = ()) -> bool:
    """Delete a table that has no chain but these and no element in these sets; whether it is gone.

    Looking and deleting are one: the transaction is refused where anybody changed rules meanwhile, and begins again.
    Raises TryAgainLater where they change faster than one can look.
    """
    channel, own, counted = _opened(), set(chains), tuple(sets)
    for _ in range(_TRIES):
        try:
            generation = _generation(channel)
            if not _asked(channel, _TABLE, 0, family, attribute(_TABLE_NAME, _spelled(table))):
                return True
            if _chains(channel, family, table) - own or any(
                _elements(channel, family, table, name) for name in counted
            ):
                return False
            _change(channel, generation, [_request(_DELETE_TABLE, 0, family, attribute(_TABLE_NAME, _spelled(table)))])
        except DumpInterrupted:
            continue
        except KernelRefused as error:
            if error.errno not in (errno.ERESTART, errno.EBUSY, errno.ENOENT):
                raise
        else:
            return True
    raise TryAgainLater(f"rules change faster than it can be seen whether table {family} {table} is in use")


def is_dormant(family: str, table: str) -> bool:
    """Whether somebody put a table to sleep: all of it is there, and nothing of it is asked (NFT_TABLE_F_DORMANT)."""
    found = _asked(_opened(), _TABLE, 0, family, attribute(_TABLE_NAME, _spelled(table)))
    return any(dict(_attributes(answer)).get(_TABLE_FLAGS) == _DORMANT for answer in found)


def _chains(channel: Channel, family: str, table: str) -> set[str]:
    found = (dict(_attributes(answer)) for answer in _asked(channel, _CHAIN, DUMP, family, b""))
    return {_text(item[3]) for item in found if _text(item[1]) == table}


def _elements(channel: Channel, family: str, table: str, name: str) -> list[bytes]:
    body = attribute(1, _spelled(table)) + attribute(2, _spelled(name))
    messages = _asked(channel, _ELEMENTS, DUMP, family, body)
    return [item for message in messages for item in [dict(_attributes(message)).get(_ELEMENT_LIST)] if item]


def _asked(channel: Channel, kind: int, how: int, family: str, body: bytes) -> list[bytes]:
    """What there is; nothing where the table or set is not."""
    try:
        return list(channel.ask(_request(kind + _GET, how, family, body)))
    except KernelRefused as error:
        if error.errno != errno.ENOENT:
            raise
        return []


def let_go() -> None:
    """Close the sockets, each of which holds its namespace."""
    while _used:
        _used.pop().close()


def _opened() -> Channel:
    _used.append(Channel(NETFILTER))
    return _used[-1]


def _generation(channel: Channel) -> bytes:
    """What changes with every change of rules in a namespace."""
    return dict(_attributes(channel.ask(_request(_GENERATION + _GET, 0, 4))[0]))[_GENERATION_ID]


def _change(channel: Channel, generation: bytes, requests: list[bytes]) -> None:
    """One transaction, refused where the rules are of another generation by now.

    Only its last request asks to be acknowledged: the kernel tells of errors in any case, and some 250 acknowledgements
    would not fit the socket. Raises KernelRefused.
    """
    if requests:
        silent = [_unacknowledged(request) for request in requests[:-1]]
        begin = _bracket(_BEGIN, attribute(_BATCH_GENERATION, generation))
        channel.ask(begin, *silent, requests[-1], _bracket(_END))


def _unacknowledged(request: bytes) -> bytes:
    return request[:_FLAGS] + bytes([request[_FLAGS] & ~ACK]) + request[_FLAGS + 1 :]


def _there(channel: Channel, family: int) -> Iterator[bytes]:
    """Tables, chains and rules, each in the order in which they were made."""
    for kind in _MADE:
        yield from channel.ask(_request(kind + _GET, DUMP, family))


def _again(family: int, message: bytes, left: dict[Place, list[int]]) -> bytes:
    kind, attributes = _kind(message), dict(_attributes(message))
    body = b"".join(attribute(name, value) for name, value in attributes.items() if name in _NAMING[kind])
    if kind == _RULE:
        place = _text(attributes[_RULE_TABLE]), _text(attributes[_RULE_CHAIN])
        if not left.get(place):
            raise ValueError(f"there are more rules than thought: {place}")
        body += _compatibility(left[place].pop(0))
    return _request(kind, _MADE[kind], family, body)


def _compatibility(protocol: int) -> bytes:
    """What a rule for one protocol tells the kernel's xtables extensions, which refuse to serve others."""
    numbers = (attribute(name, struct.pack(">I", value)) for name, value in ((1, protocol), (2, 0)))
    return attribute(_RULE_COMPAT | _NESTED, b"".join(numbers)) if protocol else b""


def _content(message: bytes) -> tuple[int, list[tuple[int, object]]]:
    """What a message says of a thing, without what changes by itself: a rule's packet counter."""
    kind = _kind(message)
    said = [item for item in _attributes(message) if item[0] in _NAMING[kind]]
    if kind != _RULE:
        return kind, [*said]
    return kind, [(name, _uncounted(value) if name == _RULE_EXPRESSIONS else value) for name, value in said]


def _uncounted(expressions: bytes) -> list[bytes]:
    return [item for _, item in _attributes(expressions, 0) if not _is_counter(item)]


def _is_counter(expression: bytes) -> bool:
    return _text(dict(_attributes(expression, 0))[_EXPRESSION_NAME]) == "counter"


def _request(kind: int, how: int, family: int | str, body: bytes = b"") -> bytes:
    return message(_NF_TABLES << 8 | kind, ACK | how, _FAMILY[family], 0, body)


def _bracket(kind: int, body: bytes = b"") -> bytes:
    """What begins or ends a transaction; the kernel does not acknowledge it."""
    return message(kind, 0, 0, _NF_TABLES, body)


def message(kind: int, how: int, family: int, resource: int, body: bytes) -> bytes:
    """A request to a subsystem (the upper byte of `kind`), without a number; `family` is the kernel's."""
    length = _HEADER.size + len(body)
    return _HEADER.pack(length, kind, REQUEST | how, 0, 0, family, 0, struct.pack(">H", resource)) + body


def _kind(message: bytes) -> int:
    return message[4]


def _attributes(message: bytes, at: int = _HEADER.size) -> Iterator[tuple[int, bytes]]:
    while at + 4 <= len(message):
        length, name = struct.unpack_from("=HH", message, at)
        yield name & ~_NESTED, bytes(message[at + 4 : at + length])
        at += (length + 3) & ~3


def attribute(name: int, value: bytes) -> bytes:
    """An attribute, padded (linux/netlink.h)."""
    return struct.pack("=HH", 4 + len(value), name) + value + bytes(-len(value) % 4)


def _spelled(text: str) -> bytes:
    return text.encode() + b"\0"


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode()
