"""rtnetlink messages read into plain data (rtnetlink(7), linux/if_link.h, linux/if_addr.h)."""

from __future__ import annotations

import ipaddress
import struct
import sys
from typing import Any

from cni.kernel.view import MAIN_TABLE, HeldAddress, KernelRoute, Link, Vxlan

FAMILY = {4: 2, 6: 10}

#: struct nlmsghdr in bytes, struct nlattr, and what is read of struct ifinfomsg and ifaddrmsg.
_HEADER, _ATTRIBUTE, _NUMBER = 16, struct.Struct("=HH"), 0x3FFF
_LINK, _ADDRESS, _ROUTE = struct.Struct("=4xiI4x"), struct.Struct("=xBBx4x"), struct.Struct("=xBxxB7x")
_LABEL = struct.Struct("=xxBx8x")
_RTA_OIF, _RTA_TABLE = 4, 15
_MAC, _IFNAME, _MTU, _PARENT, _MASTER, _OPERSTATE, _LINKINFO, _ALIAS, _PARENT_NETNS = 1, 3, 4, 5, 10, 16, 18, 20, 37
_KIND, _DATA, _PORT_DATA = 1, 2, 5
_MODE, _MULTICAST_ROUTER, _NEIGH_SUPPRESS, _ISOLATED, _MACVLAN_MODE = 4, 25, 32, 33, 1
_VXLAN_ID, _VXLAN_LINK, _VXLAN_LOCAL, _VXLAN_PORT, _VXLAN_LOCAL6 = 1, 3, 4, 15, 17
_BRIDGE_FILTERS = (36, 37)  # IFLA_BR_NF_CALL_IPTABLES, IFLA_BR_NF_CALL_IP6TABLES
_IFA_ADDRESS, _LOCAL, _FLAGS = 1, 2, 8
_IFAL_ADDRESS, _IFAL_LABEL = 1, 2
_STATES = ("UNKNOWN", "NOTPRESENT", "DOWN", "LOWERLAYERDOWN", "TESTING", "DORMANT", "UP")  # RFC 2863
_MACVLAN_MODES = {1: "private", 2: "vepa", 4: "bridge", 8: "passthru", 16: "source"}

_IFF_UP, _IFF_PROMISC = 0x1, 0x100
_IFA_F_DADFAILED, _IFA_F_TENTATIVE = 0x08, 0x40
_RTN_LOCAL = 2


def attributes(data: bytes, start: int = 0) -> dict[int, bytes]:
    """The attributes of a message or of an attribute, by number (linux/netlink.h)."""
    found, at, last, head = {}, start, len(data) - _ATTRIBUTE.size, _ATTRIBUTE.unpack_from
    while at <= last:
        length, number = head(data, at)
        found[number & _NUMBER] = data[at + 4 : at + length]
        at += (length + 3) & ~3 or _ATTRIBUTE.size
    return found


def link_of(message: bytes) -> Link:
    """A network device of an RTM_NEWLINK message.

    Every call looks at some, and pyroute2 takes ten times as long for one (a test compares the two).
    """
    index, flags = _LINK.unpack_from(message, _HEADER)
    said = attributes(message, _HEADER + _LINK.size)
    info = attributes(said.get(_LINKINFO, b""))
    kind = _text(info.get(_KIND, b""))
    port, data = attributes(info.get(_PORT_DATA, b"")), attributes(info.get(_DATA, b""))
    return Link(
        index=index,
        name=_text(said[_IFNAME]),
        kind=kind,
        mac=said.get(_MAC, b"").hex(":"),
        mtu=_number(said[_MTU]),
        up=bool(flags & _IFF_UP),
        state=_STATES[_number(said[_OPERSTATE])],
        bridge=_number(said.get(_MASTER, b"")),
        promiscuous=bool(flags & _IFF_PROMISC),
        hairpin=any(port.get(_MODE, b"")),
        isolated=any(port.get(_ISOLATED, b"")),
        neigh_suppress=any(port.get(_NEIGH_SUPPRESS, b"")),
        vxlan=_vxlan(data) if kind == "vxlan" else None,
        parent=_number(said.get(_PARENT, b"")),
        parent_elsewhere=_PARENT_NETNS in said,
        alias=_text(said.get(_ALIAS, b"")),
        macvlan_mode=_MACVLAN_MODES.get(_number(data.get(_MACVLAN_MODE, b"")), "") if kind == "macvlan" else "",
        filtered=kind == "bridge" and all(any(data.get(number, b"")) for number in _BRIDGE_FILTERS),
        multicast_router=_number(port.get(_MULTICAST_ROUTER, b"")),
    )


def label_of(message: bytes) -> tuple[str, int]:
    """A prefix and its label of an RTM_NEWADDRLABEL message."""
    (length,) = _LABEL.unpack_from(message, _HEADER)
    said = attributes(message, _HEADER + _LABEL.size)
    return str(ipaddress.IPv6Network((said[_IFAL_ADDRESS], length))), _number(said[_IFAL_LABEL])


def address_of(message: bytes) -> HeldAddress:
    """An address of an RTM_NEWADDR message: IPv4's own is IFA_LOCAL, whoever the peer is."""
    prefix, flags = _ADDRESS.unpack_from(message, _HEADER)
    said = attributes(message, _HEADER + _ADDRESS.size)
    packed = said.get(_LOCAL) or said[_IFA_ADDRESS]
    flags |= _number(said.get(_FLAGS, b""))
    address = ipaddress.ip_address(packed)
    return HeldAddress(
        ipaddress.ip_interface((address, prefix)), bool(flags & _IFA_F_TENTATIVE), bool(flags & _IFA_F_DADFAILED)
    )


def default_way_of(message: bytes) -> int:
    """The index of the link of an RTM_NEWROUTE message, if it is the main table's default route; or 0."""
    prefix, table = _ROUTE.unpack_from(message, _HEADER)
    said = attributes(message, _HEADER + _ROUTE.size)
    is_default = prefix == 0 and (_number(said.get(_RTA_TABLE, b"")) or table) == MAIN_TABLE
    return _number(said.get(_RTA_OIF, b"")) if is_default else 0


def _vxlan(data: dict[int, bytes]) -> Vxlan:
    local = data.get(_VXLAN_LOCAL) or data.get(_VXLAN_LOCAL6)
    text = str(ipaddress.ip_address(local)) if local else ""
    port = int.from_bytes(data[_VXLAN_PORT], "big")
    return Vxlan(_number(data[_VXLAN_ID]), port, text, _number(data.get(_VXLAN_LINK, b"")))


def _number(data: bytes) -> int:
    return int.from_bytes(data, sys.byteorder)


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="surrogateescape")


def route_of(message: Any, family: int) -> KernelRoute:
    """A route of an RTM_NEWROUTE message; `family` is 4 or 6."""
    metrics = message.get("metrics")
    dst = message.get("dst") or ("0.0.0.0" if family == 4 else "::")
    return KernelRoute(
        f"{dst}/{message['dst_len']}",
        message.get("gateway") or "",
        message.get("table") or message["table"],
        message.get("priority") or 0,
        (metrics and metrics.get("RTAX_MTU")) or 0,
        (metrics and metrics.get("RTAX_ADVMSS")) or 0,
        message["scope"],
        message.get("prefsrc") or "",
        message["type"] == _RTN_LOCAL,
    )
