"""What nf_tables holds, asked for by name and key and taken away by them: what it costs does not grow with what else is there.

libnftables reads every chain and set of a namespace before it answers or deletes. So a table that several attachments
share is deleted by the kernel's own word that nothing of anybody is left in it.
"""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from cni.errors import KernelRefused, TryAgainLater
from cni.kernel import nfnetlink
from cni.kernel.netlink.channel import Channel, DumpInterrupted
from cni.kernel.netlink.wire import CREATE, DUMP, attribute, attributes, listed, nested, string, text_of, understood
from cni.kernel.nfnetlink import (
    CHAIN,
    CHAIN_NAME,
    DELETE_CHAIN,
    DELETE_ELEMENTS,
    DELETE_SET,
    DELETE_TABLE,
    ELEMENT_LIST,
    ELEMENTS,
    GET,
    LIST_ITEM,
    SET,
    SET_NAME,
    TABLE,
    TABLE_NAME,
    asked,
    attributes_of,
    request,
)

_TRIES = 100
#: Elements in one message: a list of them, as any attribute, has 64 KiB.
_AT_ONCE = 500
_IFNAMSIZ, _ADDRESS = 16, (4, 16)
_PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp"}
_ELEMENT_KEY, _ELEMENT_DATA, _KEY_END, _VALUE, _VERDICT, _VERDICT_CHAIN = 1, 2, 10, 1, 2, 2
_TABLE_FLAGS, _DORMANT = 2, b"\0\0\0\1"


class Element(NamedTuple):
    """An entry of a set or map, ``inet table name``, by its key as the kernel keeps it; `end` where it is an interval.

    With a `chain` it is that entry only where it leads there.
    """

    container: str
    key: bytes
    end: bytes = b""
    chain: str = ""

    def body(self) -> bytes:
        """The attributes that name it."""
        key = nested(_ELEMENT_KEY, attribute(_VALUE, self.key))
        end = nested(_KEY_END, attribute(_VALUE, self.end)) if self.end else b""
        return _named(self.container) + nested(ELEMENT_LIST, nested(LIST_ITEM, key, end))


class Change(NamedTuple):
    """Elements that a set, ``inet table name``, is to have and is to have no more, by their keys as the kernel keeps them:
    addresses, or each with a protocol and a port.
    """

    container: str
    added: frozenset[bytes]
    gone: frozenset[bytes]

    def requests(self) -> Iterator[bytes]:
        """What makes it so; deleting what is not there fails."""
        family, where = _family(self.container), _named(self.container)
        for kind, how, keys in ((ELEMENTS, CREATE, self.added), (DELETE_ELEMENTS, 0, self.gone)):
            ordered = sorted(keys)
            for at in range(0, len(ordered), _AT_ONCE):
                some = ordered[at : at + _AT_ONCE]
                items = (nested(LIST_ITEM, nested(_ELEMENT_KEY, attribute(_VALUE, key))) for key in some)
                yield request(kind, how, family, where + nested(ELEMENT_LIST, *items))

    def script(self) -> str:
        """The same in nft's language, each line ended."""
        return "".join(
            f"{verb} element {self.container} {{ {', '.join(map(spelled, sorted(keys)))} }}\n"
            for verb, keys in (("add", self.added), ("delete", self.gone))
            if keys
        )


class Chain(NamedTuple):
    """A chain by its table, ``inet name``, and its own name."""

    table: str
    name: str

    def body(self) -> bytes:
        """The attributes that name it."""
        _, table = self.table.split(" ")
        return attribute(TABLE_NAME, string(table)) + attribute(CHAIN_NAME, string(self.name))


def link_key(name: str) -> bytes:
    """A link's name as the key it is in a set of ``ifname``."""
    return name.encode().ljust(_IFNAMSIZ, b"\0")


def spelled(key: bytes) -> str:
    """An element as nft spells it: an address, or one with a protocol and a port, each filled up to four bytes."""
    if len(key) in _ADDRESS:
        return str(ipaddress.ip_address(key))
    address, protocol, port = key[:-8], key[-8], key[-4:-2]
    return f"{ipaddress.ip_address(address)} . {_PROTOCOLS[protocol]} . {int.from_bytes(port, 'big')}"


def has_element(element: Element) -> bool:
    """Whether a set or map has an entry; not where there is none of that name. An interval is there within a wider one."""
    return _is_there(nfnetlink.opened(), element)


def which_there(elements: Sequence[Element]) -> list[bool]:
    """The same of several, in one question; wherever they lead. Raises KernelRefused."""
    asked_for = [request(ELEMENTS + GET, 0, _family(item.container), item.body()) for item in elements]
    refusals = nfnetlink.opened().refusals(asked_for)
    for error in refusals:
        if error and error.errno != errno.ENOENT:
            raise error
    return [error is None for error in refusals]


def keys(container: str) -> set[bytes]:
    """Every key of a set or map, ``inet table name``; none where there is none of that name.

    Raises TryAgainLater where rules change faster than one can read.
    """
    family, table, name = container.split(" ")
    for _ in range(_TRIES):
        try:
            found = _elements(nfnetlink.opened(), family, table, name)
        except DumpInterrupted:
            continue
        return {_key(item) for elements in found for item in listed(elements)}
    raise TryAgainLater(f"rules change faster than {container} can be read")


def has_table(table: str) -> bool:
    """Whether there is a table, ``inet name``."""
    family, name = table.split(" ")
    return bool(asked(nfnetlink.opened(), TABLE, 0, family, attribute(TABLE_NAME, string(name))))


def has_chain(table: str, name: str) -> bool:
    """Whether a table has a chain; not where there is no such table."""
    chain = Chain(table, name)
    return bool(asked(nfnetlink.opened(), CHAIN, 0, _family(table), chain.body()))


def has_set(container: str) -> bool:
    """Whether there is a set or map, ``inet table name``."""
    return bool(asked(nfnetlink.opened(), SET, 0, _family(container), _named(container)))


def change(changes: Iterable[Change]) -> None:
    """Change elements of sets, all or nothing. Raises KernelRefused."""
    nfnetlink.change(nfnetlink.opened(), [request for item in changes for request in item.requests()])


def delete_set(container: str) -> None:
    """Delete a set, ``inet table name``, unless a rule looks something up in it. Raises KernelRefused."""
    try:
        nfnetlink.change(nfnetlink.opened(), [request(DELETE_SET, 0, _family(container), _named(container))])
    except KernelRefused as error:
        if error.errno not in (errno.ENOENT, errno.EBUSY):
            raise


def delete_there(chains: Iterable[Chain] = (), elements: Iterable[Element] = ()) -> None:
    """Delete what is there of these in one transaction.

    Looking and deleting are one, as in `delete_idle`. Raises KernelRefused, also for a chain in use, and TryAgainLater where they come too fast.
    """
    channel, named, kept = nfnetlink.opened(), tuple(elements), tuple(chains)
    for _ in range(_TRIES):
        seen = nfnetlink.generation(channel)
        gone = [
            request(DELETE_ELEMENTS, 0, _family(item.container), item.body())
            for item in named
            if _is_there(channel, item)
        ]
        gone += [
            request(DELETE_CHAIN, 0, _family(chain.table), chain.body())
            for chain in kept
            if asked(channel, CHAIN, 0, _family(chain.table), chain.body())
        ]
        try:
            nfnetlink.change(channel, gone, seen)
        except KernelRefused as error:
            if error.errno == errno.EBUSY and kept:  # to elements nothing leads
                which = ", ".join(f"{name} of table {table}" for table, name in kept)
                raise KernelRefused(f"chain {which} cannot be deleted: it is in use", errno.EBUSY) from None
            if error.errno not in (errno.ENOENT, errno.ERESTART):
                raise
        else:
            return
    raise TryAgainLater("rules come and go faster than they can be deleted")


def add_where_there(elements: Iterable[Element]) -> None:
    """Add each to its set, unless that is gone. Raises KernelRefused."""
    channel = nfnetlink.opened()
    for item in elements:
        try:
            nfnetlink.change(channel, [request(ELEMENTS, CREATE, _family(item.container), item.body())])
        except KernelRefused as error:
            if error.errno != errno.ENOENT:
                raise


def delete_table(table: str) -> None:
    """Delete a table, ``inet name``, with all that is in it; without one, nothing. Raises KernelRefused."""
    family, name = table.split(" ")
    try:
        nfnetlink.change(nfnetlink.opened(), [request(DELETE_TABLE, 0, family, attribute(TABLE_NAME, string(name)))])
    except KernelRefused as error:
        if error.errno != errno.ENOENT:
            raise


def delete_idle(table: str, chains: Iterable[str] = (), sets: Iterable[str] = ()) -> None:
    """Delete a table, ``inet name``, that has no chain but these and no element in these sets.

    Looking and deleting are one: the transaction is refused where anybody changed rules meanwhile, and begins again.
    Raises KernelRefused, and TryAgainLater where they change faster than one can look.
    """
    channel, own, counted = nfnetlink.opened(), set(chains), tuple(sets)
    family, name = table.split(" ")
    named = attribute(TABLE_NAME, string(name))
    for _ in range(_TRIES):
        try:
            seen = nfnetlink.generation(channel)
            if (
                not asked(channel, TABLE, 0, family, named)
                or _chains(channel, family, name) - own
                or any(_elements(channel, family, name, each) for each in counted)
            ):
                return
            nfnetlink.change(channel, [request(DELETE_TABLE, 0, family, named)], seen)
        except DumpInterrupted:
            continue
        except KernelRefused as error:
            # of another generation by now, in use by now, or gone by now
            if error.errno not in (errno.ERESTART, errno.EBUSY, errno.ENOENT):
                raise
        else:
            return
    raise TryAgainLater(f"rules change faster than it can be seen whether table {table} is in use")


def is_dormant(table: str) -> bool:
    """Whether somebody put a table, ``inet name``, to sleep: it is all there, and never asked (NFT_TABLE_F_DORMANT)."""
    family, name = table.split(" ")
    found = asked(nfnetlink.opened(), TABLE, 0, family, attribute(TABLE_NAME, string(name)))
    return any(attributes_of(answer).get(_TABLE_FLAGS) == _DORMANT for answer in found)


def _chains(channel: Channel, family: str, table: str) -> set[str]:
    found = (attributes_of(answer) for answer in asked(channel, CHAIN, DUMP, family, b""))
    return {text_of(item.get(CHAIN_NAME, b"")) for item in found if text_of(item.get(TABLE_NAME, b"")) == table}


def _elements(channel: Channel, family: str, table: str, name: str) -> list[bytes]:
    messages = asked(channel, ELEMENTS, DUMP, family, _named(f"{family} {table} {name}"))
    return [item for message in messages for item in [attributes_of(message).get(ELEMENT_LIST)] if item]


@understood
def _key(item: bytes) -> bytes:
    return attributes(attributes(item)[_ELEMENT_KEY])[_VALUE]


def _target(item: bytes) -> str:
    data = attributes(attributes(item).get(_ELEMENT_DATA, b""))
    return text_of(attributes(data.get(_VERDICT, b"")).get(_VERDICT_CHAIN, b""))


def _is_there(channel: Channel, element: Element) -> bool:
    found = asked(channel, ELEMENTS, 0, _family(element.container), element.body())
    items = (item for message in found for item in listed(attributes_of(message).get(ELEMENT_LIST, b"")))
    return any(element.chain in ("", _target(item)) for item in items)


def _named(container: str) -> bytes:
    _, table, name = container.split(" ")
    return attribute(TABLE_NAME, string(table)) + attribute(SET_NAME, string(name))


def _family(place: str) -> str:
    return place.partition(" ")[0]
