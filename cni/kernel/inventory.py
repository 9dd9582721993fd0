"""What nf_tables holds under some names, told apart from what it held: nothing here is understood, so it costs little.

A rule never changes, and its handle is given once in a table, as a table's is in a namespace. So handles tell rules apart,
whatever they have counted since.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from hashlib import blake2b
from typing import TypeVar

from cni.errors import TryAgainLater
from cni.kernel import nfnetlink
from cni.kernel.netlink.channel import Channel, DumpInterrupted
from cni.kernel.netlink.wire import DUMP, attribute, listed, nested, string, text_of, understood
from cni.kernel.nfnetlink import (
    CHAIN,
    CHAIN_NAME,
    ELEMENT_LIST,
    ELEMENTS,
    LIST_ITEM,
    RULE,
    RULE_CHAIN,
    RULE_EXPRESSIONS,
    SET,
    SET_NAME,
    TABLE,
    TABLE_NAME,
    asked,
    attributes_of,
)

T = TypeVar("T")

_TRIES = 100
#: Attributes that say what a thing is: not how many refer to it, and what it has counted (nf_tables.h).
_TABLE_SAYS, _CHAIN_SAYS, _SET_SAYS = (2, 4), (2, 4, 5, 7, 10), (3, 4, 5, 6, 7, 9, 16)
_ATTRIBUTE = struct.Struct("=HH")
#: A rule's message: struct nlmsghdr and struct nfgenmsg, its table's name, its chain's, and its handle, perhaps behind a filling.
_PLACE_AT, _HANDLE = 20, 16
_ELEMENT_KEY, _VALUE = 1, 1


def generation() -> str:
    """What changes with every change of rules in the namespace this thread is in."""
    return nfnetlink.generation(nfnetlink.opened()).hex()


def digest(names: Iterable[str]) -> str:
    """What things of the namespace this thread is in are, told apart from what they were: ``table inet t``, ``chain inet t c`` with its
    rules, ``set inet t s`` with its elements, ``element inet t s KEY`` with the key as the kernel keeps it, in hex.

    What is not there is something, too. Raises KernelRefused, and TryAgainLater where rules change faster than they can be read.
    """
    found = blake2b(digest_size=16)
    for name in names:
        kind, family, *path = name.split(" ")
        said = b"".join(_steady(partial(_READ[kind], nfnetlink.opened(), family, *path)))
        found.update(b"%d:%b" % (len(said), said))
    return found.hexdigest()


def sets(table: str) -> set[str]:
    """What the sets and maps of a table, ``inet name``, are called; none where there is no such table. Raises as `digest` does."""
    family, name = table.split(" ")
    return set(_steady(partial(_sets, nfnetlink.opened(), family, name)))


def rules(table: str, chains: Iterable[str]) -> dict[str, bytes | None]:
    """What each base chain of a table, ``inet name``, of the namespace this thread is in is: where it hangs, and its rules, as the kernel has
    them; None where it is not there. Raises as `digest`.
    """
    family, name = table.split(" ")
    return {
        chain: b"".join(_steady(partial(_rules, nfnetlink.opened(), family, name, chain))) or None for chain in chains
    }


@understood
def _steady(read: Callable[[], Iterator[T]]) -> list[T]:
    for _ in range(_TRIES):
        try:
            return list(read())
        except DumpInterrupted:
            continue
    raise TryAgainLater("rules change faster than they can be read")


def _sets(channel: Channel, family: str, table: str) -> Iterator[str]:
    for answer in asked(channel, SET, DUMP, family, attribute(TABLE_NAME, string(table))):
        found = attributes_of(answer)
        if text_of(found[TABLE_NAME]) == table:
            yield text_of(found[SET_NAME])


def _table(channel: Channel, family: str, table: str) -> Iterator[bytes]:
    return _said(asked(channel, TABLE, 0, family, attribute(TABLE_NAME, string(table))), _TABLE_SAYS)


def _chain(channel: Channel, family: str, table: str, chain: str) -> Iterator[bytes]:
    of = attribute(TABLE_NAME, string(table))
    yield from _said(asked(channel, CHAIN, 0, family, of + attribute(CHAIN_NAME, string(chain))), _CHAIN_SAYS)
    for message in asked(channel, RULE, DUMP, family, of + attribute(RULE_CHAIN, string(chain))):
        at = _PLACE_AT
        for _ in (TABLE_NAME, RULE_CHAIN):
            at += (_ATTRIBUTE.unpack_from(message, at)[0] + 3) & ~3
        yield message[at : at + _HANDLE]


def _rules(channel: Channel, family: str, table: str, chain: str) -> Iterator[bytes]:
    of = attribute(TABLE_NAME, string(table))
    yield from _said(asked(channel, CHAIN, 0, family, of + attribute(CHAIN_NAME, string(chain))), _CHAIN_SAYS)
    for message in asked(channel, RULE, DUMP, family, of + attribute(RULE_CHAIN, string(chain))):
        yield attributes_of(message).get(RULE_EXPRESSIONS, b"")


def _set(channel: Channel, family: str, table: str, name: str) -> Iterator[bytes]:
    place = attribute(TABLE_NAME, string(table)) + attribute(SET_NAME, string(name))
    yield from _said(asked(channel, SET, 0, family, place), _SET_SAYS)
    yield from sorted(item for found in asked(channel, ELEMENTS, DUMP, family, place) for item in _items(found))


def _element(channel: Channel, family: str, table: str, name: str, key: str) -> Iterator[bytes]:
    place = attribute(TABLE_NAME, string(table)) + attribute(SET_NAME, string(name))
    one = nested(ELEMENT_LIST, nested(LIST_ITEM, nested(_ELEMENT_KEY, attribute(_VALUE, bytes.fromhex(key)))))
    yield from (item for found in asked(channel, ELEMENTS, 0, family, place + one) for item in _items(found))


_READ: Mapping[str, Callable[..., Iterator[bytes]]] = {
    "table": _table,
    "chain": _chain,
    "set": _set,
    "element": _element,
}


def _items(message: bytes) -> Iterator[bytes]:
    return listed(attributes_of(message).get(ELEMENT_LIST, b""))


def _said(messages: Iterable[bytes], what: tuple[int, ...]) -> Iterator[bytes]:
    for message in messages:
        said = attributes_of(message)
        yield from (attribute(number, said[number]) for number in what if number in said)
