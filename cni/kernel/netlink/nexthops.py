"""Next hops: of a route that has several, and the objects and groups a route may name instead (linux/rtnetlink.h, linux/nexthop.h)."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from typing import NamedTuple

from cni.errors import KernelRefused
from cni.kernel.netlink.handle import Handle
from cni.kernel.netlink.wire import HEADER, attribute, attributes, number_of, request, u32

_GET = 106
#: struct nhmsg: family, scope, protocol, flags; struct nexthop_grp: the object's number, weight.
_NHMSG, _MEMBER = struct.Struct("=BBBxI"), struct.Struct("=IBBxx")
_ID, _GROUP, _OIF, _GATEWAY = 1, 2, 5, 6
#: struct rtnexthop: length, flags, weight, index of the link.
_RTNEXTHOP = struct.Struct("=HBBI")
#: RTA_GATEWAY, and RTA_VIA, which begins with the family (struct rtvia).
_RTA_GATEWAY, _RTA_VIA = 5, 18


class NextHop(NamedTuple):
    """Where packets go next: the index of a link, or 0, and a gateway, or nothing for what is on the link."""

    link: int
    gateway: str


class NextHops(Handle):
    """The next hops a namespace keeps apart from its routes."""

    def _next_hops(self, number: int) -> list[NextHop]:
        """That of an object, or those of a group; none of one that is gone."""
        try:
            said = attributes(self._channel.question(_question(number)), HEADER.size + _NHMSG.size)
        except KernelRefused:
            return []
        if _GROUP in said:
            return [hop for member, _, _ in _MEMBER.iter_unpack(said[_GROUP]) for hop in self._next_hops(member)]
        return [NextHop(number_of(said.get(_OIF, b"")), text_of_address(said.get(_GATEWAY, b"")))]


def several(multipath: bytes) -> Iterator[NextHop]:
    """The next hops of an RTA_MULTIPATH, in its order."""
    at = 0
    while at + _RTNEXTHOP.size <= len(multipath):
        length, _, _, link = _RTNEXTHOP.unpack_from(multipath, at)
        yield NextHop(link, gateway_of(attributes(multipath[: at + length], at + _RTNEXTHOP.size)))
        at += (length + 3) & ~3 or _RTNEXTHOP.size


def gateway_of(said: dict[int, bytes]) -> str:
    """The gateway in the attributes of a route or of a next hop: RTA_VIA has one of the other family (RFC 8950)."""
    return text_of_address(said.get(_RTA_GATEWAY, b"") or said.get(_RTA_VIA, b"")[2:])


def text_of_address(packed: bytes) -> str:
    """An address as a text; of nothing, nothing."""
    return str(ipaddress.ip_address(packed)) if packed else ""


def _question(number: int) -> bytes:
    return request(_GET, 0, _NHMSG.pack(0, 0, 0, 0), attribute(_ID, u32(number)))
