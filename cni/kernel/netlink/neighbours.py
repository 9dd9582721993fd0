"""Neighbours, and the forwarding database (FDB) of a VXLAN device (rtnetlink(7), linux/neighbour.h, bridge(8))."""

from __future__ import annotations

import errno
import ipaddress
import struct
from typing import NamedTuple

from cni.kernel.netlink.handle import Handle
from cni.kernel.netlink.wire import (
    APPEND,
    CREATE,
    DUMP,
    FAMILY,
    HEADER,
    REPLACE,
    attribute,
    attributes,
    mac_of,
    packed_mac,
    request,
    u32,
)
from cni.kernel.view import Link, LinkRef

_NEW, _DELETE, _GET = 28, 29, 30
#: struct ndmsg: family, index, state, flags, kind.
_NDMSG = struct.Struct("=BxxxiHBB")
_BRIDGE = 7  # AF_BRIDGE: what forwards MACs, not a host's own neighbours
_DST, _LLADDR, _IFINDEX = 1, 2, 8
_NOARP, _PERMANENT, _SELF = 0x40, 0x80, 0x02
_FLOOD = "00:00:00:00:00:00"  # the row for what has no row of its own, and for groups


class Row(NamedTuple):
    """A neighbour, or a row of an FDB, whose address is the VTEP's; empty is what the kernel does not say."""

    link: int
    state: int
    mac: str
    address: str


class Neighbours(Handle):
    """The neighbours a namespace knows for good, and where its VXLAN devices find MACs."""

    def neighbours(self, link: Link | LinkRef) -> dict[str, str]:
        """The permanent neighbours of a link: MACs by address."""
        return {row.address: row.mac for row in self._rows(0, link) if row.state & _PERMANENT}

    def add_neighbour(self, link: Link | LinkRef, address: str, mac: str) -> None:
        """Make a neighbour known for good, replacing what was learned."""
        place, dst = _neighbour(link, address, _PERMANENT)
        new = request(_NEW, CREATE | REPLACE, place, dst, attribute(_LLADDR, packed_mac(mac)))
        self._change(new, f"add neighbour {address} {mac} dev {link.name}")

    def delete_neighbour(self, link: Link | LinkRef, address: str) -> None:
        """Forget a neighbour; one that is gone already is forgotten."""
        gone = request(_DELETE, 0, *_neighbour(link, address, 0))
        self._change(gone, f"remove neighbour {address} dev {link.name}", errno.ENOENT)

    # --- the forwarding database of a VXLAN device

    def fdb(self, link: Link | LinkRef) -> dict[str, str]:
        """The VTEP behind each MAC, learned or given."""
        return {row.mac: row.address for row in self._rows(_BRIDGE, link) if row.address and row.mac != _FLOOD}

    def given_rows(self, link: Link | LinkRef) -> list[tuple[str, str]]:
        """Every MAC somebody put behind a VTEP for good, with that VTEP; no MAC (zeros) is what has no known destination."""
        rows = self._rows(_BRIDGE, link)
        return [(row.mac, row.address) for row in rows if row.address and row.state & _PERMANENT]

    def add_fdb_row(self, link: Link | LinkRef, mac: str, vtep: str) -> None:
        """Have a MAC behind a VTEP for good, wherever it was."""
        new = request(_NEW, CREATE | REPLACE, *_row(link, mac, vtep, _PERMANENT | _NOARP))
        self._change(new, f"add {mac} at VTEP {vtep} to {link.name}")

    def add_given_row(self, link: Link | LinkRef, mac: str, vtep: str) -> None:
        """Have a row that `given_rows` told of; no MAC may have several."""
        new = request(_NEW, CREATE | APPEND, *_row(link, mac, vtep, _PERMANENT | _NOARP))
        self._change(new, f"add {mac} at VTEP {vtep} to {link.name}", errno.EEXIST)

    def delete_fdb_row(self, link: Link | LinkRef, mac: str, vtep: str) -> None:
        """Have a MAC behind a VTEP no more; one that is gone already is gone."""
        gone = request(_DELETE, 0, *_row(link, mac, vtep, 0))
        self._change(gone, f"remove {mac} at VTEP {vtep} from {link.name}", errno.ENOENT)

    def flood_targets(self, link: Link | LinkRef) -> set[str]:
        """The VTEPs that get what has no known destination."""
        return {row.address for row in self._rows(_BRIDGE, link) if row.address and row.mac == _FLOOD}

    def add_flood_target(self, link: Link | LinkRef, vtep: str) -> None:
        """Send broadcast, unknown unicast and multicast to one more VTEP."""
        new = request(_NEW, CREATE | APPEND, *_row(link, _FLOOD, vtep, _PERMANENT | _NOARP))
        self._change(new, f"add VTEP {vtep} to {link.name}", errno.EEXIST)

    def delete_flood_target(self, link: Link | LinkRef, vtep: str) -> None:
        """Stop sending to a VTEP."""
        gone = request(_DELETE, 0, *_row(link, _FLOOD, vtep, 0))
        self._change(gone, f"remove VTEP {vtep} from {link.name}", errno.ENOENT)

    def _rows(self, family: int, link: Link | LinkRef) -> list[Row]:
        asked = request(_GET, DUMP, _NDMSG.pack(family, 0, 0, 0, 0), attribute(_IFINDEX, u32(link.index)))
        return [row for row in map(row_of, self._dump(asked)) if row.link == link.index]


def row_of(message: bytes) -> Row:
    """What an RTM_NEWNEIGH message tells of."""
    _, index, state, _, _ = _NDMSG.unpack_from(message, HEADER.size)
    said = attributes(message, HEADER.size + _NDMSG.size)
    address = str(ipaddress.ip_address(said[_DST])) if _DST in said else ""
    return Row(index, state, mac_of(said.get(_LLADDR, b"")), address)


def _neighbour(link: Link | LinkRef, address: str, state: int) -> tuple[bytes, bytes]:
    parsed = ipaddress.ip_address(address)
    return _NDMSG.pack(FAMILY[parsed.version], link.index, state, 0, 0), attribute(_DST, parsed.packed)


def _row(link: Link | LinkRef, mac: str, vtep: str, state: int) -> tuple[bytes, ...]:
    place = _NDMSG.pack(_BRIDGE, link.index, state, _SELF, 0)
    return place, attribute(_DST, ipaddress.ip_address(vtep).packed), attribute(_LLADDR, packed_mac(mac))
