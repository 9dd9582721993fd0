"""Neighbours, and the forwarding database (FDB) of a VXLAN device (rtnetlink(7), linux/neighbour.h, bridge(8))."""

from __future__ import annotations

import errno
import ipaddress
import struct
from collections.abc import Iterator
from sys import intern
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
    number_of,
    packed_mac,
    request,
    u8,
    u32,
    understood,
)
from cni.kernel.view import Link, LinkRef

_NEW, _DELETE, _GET = 28, 29, 30
#: struct ndmsg: family, index, state, flags, kind.
_NDMSG = struct.Struct("=BxxxiHBB")
_BRIDGE = 7  # AF_BRIDGE: what forwards MACs, not a host's own neighbours
_DST, _LLADDR, _IFINDEX, _PROTOCOL = 1, 2, 8, 12
_REACHABLE, _NOARP, _PERMANENT = 0x02, 0x40, 0x80
_SELF, _MASTER, _LEARNED_ELSEWHERE = 0x02, 0x04, 0x10  # the last: NTF_EXT_LEARNED, which neither FDB lets grow old
_FLOOD = "00:00:00:00:00:00"  # the row for what has no row of its own, and for groups


class Row(NamedTuple):
    """A neighbour, or a row of an FDB, whose address is the VTEP's; empty is what the kernel does not say."""

    link: int
    state: int
    mac: str
    address: str
    flags: int = 0
    protocol: int = 0


class Neighbours(Handle):
    """The neighbours a namespace knows for good, and where its VXLAN devices find MACs."""

    def neighbours(self, link: Link | LinkRef) -> dict[str, str]:
        """The permanent neighbours of a link: MACs by address."""
        return {row.address: row.mac for row in self._rows(0, link) if row.state & _PERMANENT}

    def _every_neighbour(self) -> dict[int, dict[str, str]]:
        """The same of all links, by their index."""
        found: dict[int, dict[str, str]] = {}
        for row in map(row_of, self._dump(request(_GET, DUMP, _NDMSG.pack(0, 0, 0, 0, 0)))):
            if row.state & _PERMANENT:
                found.setdefault(row.link, {})[row.address] = row.mac
        return found

    def neighbours_by(self, link: Link | LinkRef, protocol: int) -> dict[str, str]:
        """The permanent neighbours of a link that somebody made who says so: MACs by address."""
        rows = self._rows(0, link)
        return {row.address: row.mac for row in rows if row.protocol == protocol and row.state & _PERMANENT}

    def add_neighbour(self, link: Link | LinkRef, address: str, mac: str, protocol: int = 0) -> None:
        """Make a neighbour known for good, replacing what was learned; `protocol` says who did."""
        place, dst = _neighbour(link, address, _PERMANENT)
        maker = attribute(_PROTOCOL, u8(protocol)) if protocol else b""
        new = request(_NEW, CREATE | REPLACE, place, dst, attribute(_LLADDR, packed_mac(mac)), maker)
        self._change(new, f"add neighbour {address} {mac} dev {link.name}")

    def delete_neighbour(self, link: Link | LinkRef, address: str) -> None:
        """Forget a neighbour; one that is gone already is forgotten."""
        gone = request(_DELETE, 0, *_neighbour(link, address, 0))
        self._removal(gone, f"remove neighbour {address} dev {link.name}", errno.ENOENT)

    # --- the forwarding database of a VXLAN device

    def fdb(self, link: Link | LinkRef) -> dict[str, str]:
        """The VTEP behind each MAC, learned or given."""
        return {row.mac: row.address for row in self._rows(_BRIDGE, link) if row.address and row.mac != _FLOOD}

    def strange_rows(self, link: Link | LinkRef) -> set[str]:
        """The MACs that are behind a VTEP, and no control plane has put there."""
        rows = (row for row in self._rows(_BRIDGE, link) if row.address and row.mac != _FLOOD)
        return {row.mac for row in rows if not row.flags & _LEARNED_ELSEWHERE}

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
        self._removal(gone, f"remove {mac} at VTEP {vtep} from {link.name}", errno.ENOENT)

    # --- what others' MACs are behind: a row of the device, and one of the bridge it is a port of

    def peer_rows(self, link: Link) -> dict[str, str]:
        """The MACs that a control plane put behind VTEPs; no VTEP where the bridge does not send a MAC to the device."""
        behind: dict[str, str] = {}
        halves: set[str] = set()  # of which one of the two rows was seen so far
        for row in self._rows(_BRIDGE, link):
            if row.flags & _LEARNED_ELSEWHERE:
                halves ^= {row.mac}
                behind[row.mac] = intern(row.address) or behind.get(row.mac, "")
        return behind | dict.fromkeys(halves, "") if link.bridge else behind

    def add_peer_row(self, link: Link | LinkRef, mac: str, vtep: str) -> None:
        """Have a MAC behind a VTEP, wherever it was, and behind the device for its bridge if it has one (rtnl_fdb_add)."""
        flags = _SELF | _MASTER | _LEARNED_ELSEWHERE  # NOARP alone the device refuses, after the bridge has taken it
        new = request(_NEW, CREATE | REPLACE, *_row(link, mac, vtep, _REACHABLE | _NOARP, flags))
        self._change(new, f"add {mac} at VTEP {vtep} to {link.name}")

    def delete_peer_row(self, link: Link | LinkRef, mac: str, vtep: str) -> None:
        """Have a MAC behind a VTEP no more, or, without one, behind any, nor behind the device where its bridge still sends it there."""
        self.delete_fdb_row(link, mac, vtep)
        gone = request(_DELETE, 0, _place(link, 0, _MASTER), attribute(_LLADDR, packed_mac(mac)))
        what = f"remove {mac} from the bridge of {link.name}"
        self._removal(gone, what, errno.ENOENT, errno.EOPNOTSUPP)  # the latter where it is no port

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
        self._removal(gone, f"remove VTEP {vtep} from {link.name}", errno.ENOENT)

    def _rows(self, family: int, link: Link | LinkRef) -> Iterator[Row]:
        asked = request(_GET, DUMP, _NDMSG.pack(family, 0, 0, 0, 0), attribute(_IFINDEX, u32(link.index)))
        return (row for row in map(row_of, self._dump(asked)) if row.link == link.index)


@understood
def row_of(message: bytes) -> Row:
    """What an RTM_NEWNEIGH message tells of."""
    _, index, state, flags, _ = _NDMSG.unpack_from(message, HEADER.size)
    said = attributes(message, HEADER.size + _NDMSG.size)
    address = str(ipaddress.ip_address(said[_DST])) if _DST in said else ""
    return Row(index, state, mac_of(said.get(_LLADDR, b"")), address, flags, number_of(said.get(_PROTOCOL, b"")))


def _neighbour(link: Link | LinkRef, address: str, state: int) -> tuple[bytes, bytes]:
    parsed = ipaddress.ip_address(address)
    return _NDMSG.pack(FAMILY[parsed.version], link.index, state, 0, 0), attribute(_DST, parsed.packed)


def _row(link: Link | LinkRef, mac: str, vtep: str, state: int, flags: int = _SELF) -> tuple[bytes, ...]:
    where = attribute(_DST, ipaddress.ip_address(vtep).packed) if vtep else b""
    return _place(link, state, flags), where, attribute(_LLADDR, packed_mac(mac))


def _place(link: Link | LinkRef, state: int, flags: int) -> bytes:
    return _NDMSG.pack(_BRIDGE, link.index, state, flags, 0)
