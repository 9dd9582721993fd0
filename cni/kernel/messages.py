"""rtnetlink messages, as pyroute2 decodes them, read into plain data (rtnetlink(7), linux/if_link.h)."""

from __future__ import annotations

import ipaddress
from typing import Any

from cni.kernel.view import HeldAddress, KernelRoute, Link, Vxlan

FAMILY = {4: 2, 6: 10}

_IFF_UP, _IFF_PROMISC = 0x1, 0x100
_IFA_F_DADFAILED, _IFA_F_TENTATIVE = 0x08, 0x40
_RTN_LOCAL = 2
_BRIDGE_FILTERS = ("IFLA_BR_NF_CALL_IPTABLES", "IFLA_BR_NF_CALL_IP6TABLES")


def link_of(message: Any) -> Link:
    """A network device of an RTM_NEWLINK message."""
    said = _Attributes(message)
    info = _Attributes(said("IFLA_LINKINFO"))
    kind = info("IFLA_INFO_KIND") or ""
    port = _Attributes(info("IFLA_INFO_SLAVE_DATA"))
    data = _Attributes(info("IFLA_INFO_DATA"))
    return Link(
        index=message["index"],
        name=said("IFLA_IFNAME"),
        kind=kind,
        mac=said("IFLA_ADDRESS") or "",
        mtu=said("IFLA_MTU"),
        up=bool(message["flags"] & _IFF_UP),
        state=said("IFLA_OPERSTATE") or "",
        bridge=said("IFLA_MASTER") or 0,
        promiscuous=bool(message["flags"] & _IFF_PROMISC),
        hairpin=bool(port("IFLA_BRPORT_MODE")),
        isolated=bool(port("IFLA_BRPORT_ISOLATED")),
        neigh_suppress=bool(port("IFLA_BRPORT_NEIGH_SUPPRESS")),
        vxlan=_vxlan(data) if kind == "vxlan" else None,
        parent=said("IFLA_LINK") or 0,
        parent_elsewhere=said("IFLA_LINK_NETNSID") is not None,
        alias=said("IFLA_IFALIAS") or "",
        macvlan_mode=str(data("IFLA_MACVLAN_MODE") or "") if kind == "macvlan" else "",
        filtered=kind == "bridge" and all(map(data, _BRIDGE_FILTERS)),
    )


class _Attributes:
    """A message's attributes by name; each is decoded when it is asked for (pyroute2 searches all for each)."""

    def __init__(self, message: Any) -> None:
        self._slots = {slot[0]: slot for slot in message["attrs"]} if message else {}

    def __call__(self, name: str) -> Any:
        slot = self._slots.get(name)
        return slot[1] if slot else None


def _vxlan(data: _Attributes) -> Vxlan:
    local = data("IFLA_VXLAN_LOCAL") or data("IFLA_VXLAN_LOCAL6") or ""
    return Vxlan(data("IFLA_VXLAN_ID"), data("IFLA_VXLAN_PORT"), local, data("IFLA_VXLAN_LINK") or 0)


def address_of(message: Any) -> HeldAddress:
    """An address of an RTM_NEWADDR message."""
    flags = message.get("IFA_FLAGS") or message["flags"]
    text = message.get("local") if message["family"] == FAMILY[4] else message.get("address")
    return HeldAddress(
        ipaddress.ip_interface(f"{text}/{message['prefixlen']}"),
        bool(flags & _IFA_F_TENTATIVE),
        bool(flags & _IFA_F_DADFAILED),
    )


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
