"""The requests every ADD makes, packed here: pyroute2 takes ten times as long for one, and a test compares the bytes.

Sources: netlink(7), rtnetlink(7), linux/if_link.h, linux/if_addr.h, linux/veth.h, linux/if_addrlabel.h.
"""

from __future__ import annotations

import ipaddress
import struct
from functools import lru_cache
from typing import Any

from cni.kernel.channel import ACK, CREATE, DUMP, EXCLUSIVE, REQUEST
from cni.kernel.messages import FAMILY
from cni.naming import IPInterface

_NEWLINK, _GETLINK, _NEWADDR = 16, 18, 20
_NEWADDRLABEL, _DELADDRLABEL, _GETADDRLABEL = 72, 73, 74
_HEADER, _ATTRIBUTE, _NUMBER = struct.Struct("=IHHII"), struct.Struct("=HH"), struct.Struct("=I")
_IFINFO, _IFADDR, _IFADDRLBL = struct.Struct("=BxHiII"), struct.Struct("=BBBBI"), struct.Struct("=BxBxII")
_IFF_UP, _IFA_F_NODAD = 0x1, 0x02
_LINKINFO, _INFO_KIND, _INFO_DATA, _VETH_PEER = 18, 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_IFAL_ADDRESS, _IFAL_LABEL = 1, 2
_TEXTS = {"ifname": 3, "ifalias": 20}
_NUMBERS = {"mtu": 4, "master": 10, "net_ns_fd": 28, "ext_mask": 29}
_MACS = {"address": 1}
_WITHOUT_STATISTICS = {"ext_mask": 8}


def link(name: str = "", index: int = 0) -> bytes:
    """One link asked for, by name or index, without its statistics."""
    said = _settings(({"ifname": name} if name else {}) | _WITHOUT_STATISTICS)
    return _request(_GETLINK, 0, _ifinfo(index, up=False), said)


def veth(name: str, mac: str, mtu: int, bridge: int, peer: dict[str, Any]) -> bytes:
    """A new pair: its own end up and, unless `bridge` is 0, a port; the other as `peer` says, down."""
    return _veth(_own(name, mac, mtu, bridge), peer, up=True)


def closed_veth(name: str, mac: str, mtu: int, bridge: int, peer: dict[str, Any]) -> bytes:
    """The same with its own end down."""
    return _veth(_own(name, mac, mtu, bridge), peer, up=False)


def _own(name: str, mac: str, mtu: int, bridge: int) -> dict[str, Any]:
    return {"ifname": name, "mtu": mtu, "address": mac} | ({"master": bridge} if bridge else {})


def _veth(own: dict[str, Any], peer: dict[str, Any], up: bool) -> bytes:
    other = _attribute(_VETH_PEER, _ifinfo(0, up=False) + _settings(peer))
    info = _attribute(_INFO_KIND, _text("veth")) + _attribute(_INFO_DATA, other)
    return _request(_NEWLINK, CREATE | EXCLUSIVE, _ifinfo(0, up), _settings(own) + _attribute(_LINKINFO, info))


def link_change(index: int, up: bool, settings: dict[str, Any]) -> bytes:
    """A link set up, and its mtu, master, address or ifalias changed. KeyError for another setting."""
    return _request(_NEWLINK, 0, _ifinfo(index, up), _settings(settings))


def new_address(index: int, interface: IPInterface, nodad: bool) -> bytes:
    """A new address; `nodad` makes an IPv6 one usable at once."""
    own = interface.ip.packed
    said = _attribute(_IFA_LOCAL, own) + _attribute(_IFA_ADDRESS, own)
    said += _attribute(_IFA_FLAGS, _NUMBER.pack(_IFA_F_NODAD)) if nodad else b""
    place = _IFADDR.pack(FAMILY[interface.version], interface.network.prefixlen, 0, 0, index)
    return _request(_NEWADDR, CREATE | EXCLUSIVE, place, said)


def labels() -> bytes:
    """Every IPv6 address label (linux/if_addrlabel.h, RFC 6724 section 2.1)."""
    return _request(_GETADDRLABEL, DUMP, _IFADDRLBL.pack(FAMILY[6], 0, 0, 0), b"")


@lru_cache(maxsize=64)
def new_label(prefix: ipaddress.IPv6Network, label: int) -> bytes:
    """A label for addresses of a prefix that has none of its own."""
    return _label(_NEWADDRLABEL, CREATE | EXCLUSIVE, prefix, label)


def label_deletion(prefix: ipaddress.IPv6Network, label: int) -> bytes:
    """A prefix's label gone."""
    return _label(_DELADDRLABEL, 0, prefix, label)


def _label(kind: int, how: int, prefix: ipaddress.IPv6Network, label: int) -> bytes:
    said = _attribute(_IFAL_ADDRESS, prefix.network_address.packed) + _attribute(_IFAL_LABEL, _NUMBER.pack(label))
    return _request(kind, how, _IFADDRLBL.pack(FAMILY[6], prefix.prefixlen, 0, 0), said)


def _request(kind: int, how: int, place: bytes, attributes: bytes) -> bytes:
    length = _HEADER.size + len(place) + len(attributes)
    return _HEADER.pack(length, kind, how | REQUEST | ACK, 0, 0) + place + attributes


def _ifinfo(index: int, up: bool) -> bytes:
    return _IFINFO.pack(0, 0, index, _IFF_UP * up, _IFF_UP * up)


def _settings(settings: dict[str, Any]) -> bytes:
    return b"".join(_setting(name, value) for name, value in settings.items())


def _setting(name: str, value: Any) -> bytes:
    if name in _NUMBERS:
        return _attribute(_NUMBERS[name], _NUMBER.pack(value))
    if name in _MACS:
        return _attribute(_MACS[name], bytes.fromhex(value.replace(":", "")))
    return _attribute(_TEXTS[name], _text(value))


def _attribute(number: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, number) + value + bytes(-length % 4)


def _text(value: str) -> bytes:
    return value.encode() + b"\0"
