"""What the kernel would do with a packet: the route it takes, from here or from a link (rtnetlink(7), RTM_GETROUTE), and its neighbour."""

from __future__ import annotations

import errno
import ipaddress
import struct
from typing import NamedTuple

from cni.errors import KernelRefused
from cni.kernel.netlink.neighbours import Row, row_of
from cni.kernel.netlink.nexthops import gateway_of, text_of_address
from cni.kernel.netlink.rtnl import Rtnl
from cni.kernel.netlink.wire import DUMP, FAMILY, HEADER, attribute, attributes, number_of, request, u8, u32, understood
from cni.kernel.view import Link, LinkRef

_GET_ROUTE, _GET_NEIGHBOUR = 26, 30
_RTMSG = struct.Struct("=BBBBBBBBI")
_NDMSG = struct.Struct("=BxxxiHBB")
_TYPE_AT = HEADER.size + 7
_DST, _SRC, _IIF, _OIF, _PREFSRC, _MARK, _IP_PROTO, _SPORT, _DPORT = 1, 2, 3, 4, 7, 16, 27, 28, 29
_NEIGHBOUR, _BRIDGE = 1, 7  # NDA_DST; AF_BRIDGE
_PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1}
_KINDS = {1: "unicast", 2: "local", 3: "broadcast", 5: "multicast", 6: "blackhole", 7: "unreachable", 8: "prohibit"}


class Asked(NamedTuple):
    """A packet to be routed: that is sent from here, or that a link, by its index, brought `into` here; `out` is by which it has to leave."""

    target: str
    source: str = ""
    into: int = 0
    out: int = 0
    mark: int = 0
    protocol: str = ""


class Way(NamedTuple):
    """Where a packet goes: `kind` as ip-route(8) calls it, ``unicast`` or ``local``, or what refuses it; by which link, over which
    gateway, with which source. `refused` is the kernel's error for no way at all.
    """

    kind: str
    link: int = 0
    gateway: str = ""
    source: str = ""
    refused: int = 0

    @property
    def why(self) -> str:
        """What the kernel says against it."""
        return errno.errorcode.get(self.refused, str(self.refused)) if self.refused else self.kind


class Lookups(Rtnl):
    """An Rtnl for who walks a packet's way."""

    @understood
    def way(self, asked: Asked) -> Way:
        """Where a packet goes; of one that came in, the kernel judges the source too."""
        to = ipaddress.ip_address(asked.target)
        links = ((_IIF, asked.into), (_OIF, asked.out), (_MARK, asked.mark))
        parts = [attribute(_DST, to.packed), *(attribute(number, u32(value)) for number, value in links if value)]
        if asked.source:
            parts.append(attribute(_SRC, ipaddress.ip_address(asked.source).packed))
        if asked.protocol in _PROTOCOLS:
            number = 58 if (asked.protocol, to.version) == ("icmp", 6) else _PROTOCOLS[asked.protocol]
            parts.append(attribute(_IP_PROTO, u8(number)))
        length = to.max_prefixlen
        place = _RTMSG.pack(FAMILY[to.version], length, length if asked.source else 0, 0, 0, 0, 0, 0, 0)
        try:
            message = self._channel.question(request(_GET_ROUTE, 0, place, *parts))
        except KernelRefused as error:
            return Way("refused", refused=error.errno)
        said = attributes(message, HEADER.size + _RTMSG.size)
        kind = _KINDS.get(message[_TYPE_AT], str(message[_TYPE_AT]))
        return Way(kind, number_of(said.get(_OIF, b"")), gateway_of(said), text_of_address(said.get(_PREFSRC, b"")))

    def neighbour(self, link: Link | LinkRef, address: str) -> Row | None:
        """What is known of a neighbour, whoever said it."""
        parsed = ipaddress.ip_address(address)
        place = _NDMSG.pack(FAMILY[parsed.version], link.index, 0, 0, 0)
        try:
            return row_of(
                self._channel.question(request(_GET_NEIGHBOUR, 0, place, attribute(_NEIGHBOUR, parsed.packed)))
            )
        except KernelRefused as error:
            if error.errno in (errno.ENOENT, errno.ENODEV, errno.EINVAL):
                return None
            raise

    def every_row(self) -> list[Row]:
        """Every row of the FDBs of bridges and VXLAN devices."""
        return [
            row_of(message) for message in self._dump(request(_GET_NEIGHBOUR, DUMP, _NDMSG.pack(_BRIDGE, 0, 0, 0, 0)))
        ]
