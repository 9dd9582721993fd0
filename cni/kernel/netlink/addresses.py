"""Addresses of links (rtnetlink(7), linux/if_addr.h)."""

from __future__ import annotations

import errno
import ipaddress
import struct
from typing import TypedDict, Unpack

from cni.kernel.netlink.handle import Handle
from cni.kernel.netlink.wire import (
    CREATE,
    DUMP,
    EXCLUSIVE,
    FAMILY,
    HEADER,
    attribute,
    attributes,
    number_of,
    request,
    u8,
    u32,
    understood,
)
from cni.kernel.view import SCOPE_UNIVERSE, HeldAddress, Link, LinkRef
from cni.naming import IPAddress, IPInterface

_NEW, _DELETE, _GET = 20, 21, 22
_IFADDR = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefix length, flags, scope, index
_ADDRESS, _LOCAL, _BROADCAST, _CACHEINFO, _FLAGS, _TARGET_NETNSID, _PROTO = 1, 2, 4, 6, 8, 10, 11
_LEAST_WITH_BROADCAST = 30  # a point-to-point link of two addresses has none (RFC 3021)
_NODAD, _DADFAILED, _TENTATIVE = 0x02, 0x08, 0x40
#: struct ifa_cacheinfo: preferred for no second, valid for ever.
_DEPRECATED = struct.Struct("=IIII").pack(0, 0xFFFFFFFF, 0, 0)


class AddressSettings(TypedDict, total=False):
    """What a new address may be: `nodad` makes one of IPv6 usable at once, `deprecated` only for who asks for it. `protocol` says who
    made it, to kernels since 5.18. One of a narrower `scope` (rtnetlink(7)) is no source of what goes beyond that.
    """

    nodad: bool
    deprecated: bool
    protocol: int
    scope: int


class Addresses(Handle):
    """The addresses of a namespace's links."""

    def addresses(self, link: Link | LinkRef, namespace: int | None = None) -> list[HeldAddress]:
        """The addresses of a link, of this namespace or of one known by a number."""
        elsewhere = [] if namespace is None else [attribute(_TARGET_NETNSID, u32(namespace))]
        asked = request(_GET, DUMP, _IFADDR.pack(0, 0, 0, 0, link.index), *elsewhere)
        return [address_of(message) for message in self._dump(asked)]

    def own_addresses(self) -> list[IPAddress]:
        """Every address of this namespace's links."""
        asked = request(_GET, DUMP, _IFADDR.pack(0, 0, 0, 0, 0))
        return [address_of(message).interface.ip for message in self._dump(asked)]

    def link_holding(self, address: IPAddress) -> int:
        """The index of a link that has an address, whether traffic to it arrives now or not; or 0. It reads all there are."""
        for message in self._dump(request(_GET, DUMP, _IFADDR.pack(0, 0, 0, 0, 0))):
            if address_of(message).interface.ip == address:
                return int(_IFADDR.unpack_from(message, HEADER.size)[4])
        return 0

    def add_address(self, link: Link | LinkRef, interface: IPInterface, **settings: Unpack[AddressSettings]) -> None:
        """Add an address, an IPv4 one with its subnet's broadcast address."""
        parts = [_place(link, interface, settings.get("scope", SCOPE_UNIVERSE)), _own(interface)]
        if interface.version == 4 and interface.network.prefixlen <= _LEAST_WITH_BROADCAST:
            parts.append(attribute(_BROADCAST, interface.network.broadcast_address.packed))
        if settings.get("nodad"):
            parts.append(attribute(_FLAGS, u32(_NODAD)))
        if settings.get("deprecated"):
            parts.append(attribute(_CACHEINFO, _DEPRECATED))
        if protocol := settings.get("protocol"):
            parts.append(attribute(_PROTO, u8(protocol)))
        self._change(request(_NEW, CREATE | EXCLUSIVE, *parts), f"add {interface} to {link.name}")

    def delete_address(self, link: Link | LinkRef, interface: IPInterface) -> None:
        """Remove an address; one that is gone already is removed."""
        gone = request(_DELETE, 0, _place(link, interface), _own(interface))
        self._removal(gone, f"remove {interface} from {link.name}", errno.EADDRNOTAVAIL)


@understood
def address_of(message: bytes) -> HeldAddress:
    """An address of an RTM_NEWADDR message: IPv4's own is IFA_LOCAL, whoever the peer is."""
    _, prefix, flags, scope, _ = _IFADDR.unpack_from(message, HEADER.size)
    said = attributes(message, HEADER.size + _IFADDR.size)
    address = ipaddress.ip_address(said.get(_LOCAL) or said[_ADDRESS])
    flags |= number_of(said.get(_FLAGS, b""))
    held, maker = ipaddress.ip_interface((address, prefix)), number_of(said.get(_PROTO, b""))
    return HeldAddress(held, bool(flags & _TENTATIVE), bool(flags & _DADFAILED), maker, scope)


def _place(link: Link | LinkRef, interface: IPInterface, scope: int = SCOPE_UNIVERSE) -> bytes:
    return _IFADDR.pack(FAMILY[interface.version], interface.network.prefixlen, 0, scope, link.index)


def _own(interface: IPInterface) -> bytes:
    own = interface.ip.packed
    return attribute(_LOCAL, own) + attribute(_ADDRESS, own)
