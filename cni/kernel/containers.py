"""Sets and maps of nf_tables, packed as libnftables makes them: those with a name, and those made for one rule.

With each stands what libnftables notes there for its own listings (libnftnl/udata.h); the kernel does not look at that.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise

from cni.kernel.expressions import number, value
from cni.kernel.netlink.wire import CREATE, attribute, nested, string
from cni.kernel.nfnetlink import ELEMENT_LIST, ELEMENTS, LIST_ITEM, SET, SET_NAME, TABLE_NAME, request

_BIG_ENDIAN, _HOST_ENDIAN = "000402000000", "000401000000"
_CONCATENATED = "000400000000" + "030800040d0000000100"
_OF_VERDICTS = "010400000000" + "060400000000"
_MERGED = "020401000000"
#: What keys are, by nft's words: the number of the type (datatype.h), its bytes, and what is noted of it.
TYPES = {
    "ipv4_addr": (7, 4, _BIG_ENDIAN),
    "ipv6_addr": (8, 16, _BIG_ENDIAN),
    "inet_service": (13, 2, _BIG_ENDIAN),
    "ifname": (41, 16, _HOST_ENDIAN),
    "ipv4_addr . inet_proto . inet_service": (0x730D, 12, _CONCATENATED),
    "ipv6_addr . inet_proto . inet_service": (0x830D, 24, _CONCATENATED),
}
_ANONYMOUS, _CONSTANT, _INTERVAL, _MAP = 0x1, 0x2, 0x4, 0x8
_TO_VERDICTS = attribute(6, number(0xFFFFFF00)) + attribute(7, number(16))
_INTERVAL_END, _UP_TO_THE_LAST = attribute(3, number(1)), attribute(6, bytes.fromhex("010401000000"))
#: Elements in one message: a list of them, as any attribute, has 64 KiB.
AT_ONCE = 500


def declared(family: str, table: str, name: str, kind: str, *, leading: bool) -> bytes:
    """The request that makes a set of a name, or a map that leads to chains, there or not."""
    notes = TYPES[kind][2] + _OF_VERDICTS * leading
    said = _described(_MAP if leading else 0, kind, _TO_VERDICTS if leading else b"", notes, 0)
    return request(
        SET, CREATE, family, _of(table) + said + attribute(SET_NAME, string(name)) + attribute(10, number(0))
    )


def anonymous(
    place: tuple[str, str], set_id: int, kind: str, noted: tuple[int, int], spans: Sequence[tuple[bytes, bytes]]
) -> Iterator[bytes]:
    """What makes a set for one rule of a `place`, family and table: of keys or, where one of the spans is longer, of intervals. `noted` are
    libnftables' numbers of the header and field that keys are of. Spans of which some are longer must not touch.
    """
    family, table = place
    ranges = any(low != high for low, high in spans)
    items = list(_intervals(sorted(spans))) if ranges else [_item(low) for low, _ in dict.fromkeys(spans)]
    size = len(items) + (_UP_TO_THE_LAST in items[-1])  # libnftables counts the end it leaves out, too
    flags, notes = _ANONYMOUS | _CONSTANT | _INTERVAL * ranges, TYPES[kind][2] + _MERGED * ranges + _field(*noted)
    named = _of(table), attribute(SET_NAME, string("__set%d"))
    said = _described(flags, kind, b"", notes, size)
    yield request(SET, CREATE, family, b"".join([*named, said, attribute(10, number(set_id))]))
    for at in range(0, len(items), AT_ONCE):
        some = nested(ELEMENT_LIST, *items[at : at + AT_ONCE])
        yield request(ELEMENTS, CREATE, family, b"".join([*named, attribute(4, number(set_id)), some]))


def touching(spans: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether spans of which some are longer than one key touch or overlap: libnftables would make one of them."""
    number_of = partial(int.from_bytes, byteorder="big")
    ranges = any(low != high for low, high in spans)
    return ranges and any(number_of(low) <= number_of(high) + 1 for (_, high), (low, _) in pairwise(sorted(spans)))


def _described(flags: int, kind: str, data: bytes, notes: str, size: int) -> bytes:
    what, length, _ = TYPES[kind]
    known = attribute(3, number(flags)) if flags else b""
    room = nested(9, attribute(1, number(size)) if size else b"")
    return (
        known
        + attribute(4, number(what))
        + attribute(5, number(length))
        + data
        + attribute(13, bytes.fromhex(notes))
        + room
    )


def _intervals(spans: Sequence[tuple[bytes, bytes]]) -> Iterator[bytes]:
    """Elements in the tree's order: each span's start and what is behind its end, after a mark that what is before all is in none."""
    length = len(spans[0][0])
    if any(spans[0][0]):
        yield _item(bytes(length), _INTERVAL_END)
    for low, high in spans:
        behind = int.from_bytes(high, "big") + 1
        is_last = behind == 1 << 8 * length
        yield _item(low, _UP_TO_THE_LAST if is_last else b"")
        if not is_last:
            yield _item(behind.to_bytes(length, "big"), _INTERVAL_END)


def _item(key: bytes, more: bytes = b"") -> bytes:
    return nested(LIST_ITEM, nested(1, value(key)), more)


def _of(table: str) -> bytes:
    return attribute(TABLE_NAME, string(table))


def _field(header: int, field: int) -> str:
    """What is noted of a field, in the machine's order."""
    numbers = [item.to_bytes(4, sys.byteorder).hex() for item in (7, header, field)]
    return f"03140004{numbers[0]}010c0004{numbers[1]}0104{numbers[2]}"
