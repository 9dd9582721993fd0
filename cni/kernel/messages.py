"""rtnetlink messages, as pyroute2 decodes them, read into plain data (rtnetlink(7), linux/if_link.h)."""

from __future__ import annotations

import ipaddress
from typing import Any

from cni.kernel.view import HeldAddress, KernelRoute, Link, Vxlan

FAMILY = {4: 2, 6: 10}

_IFF_UP, _IFF_PROMISC = 0x1, 0x100
_IFA_F_DADFAILED, _IFA_F_TENTATIVE = 0x08, 0x40
_RTN_LOCAL = 2
_BRIDGE_FILTERS = ("br_nf_call_iptables", "br_nf_call_ip6tables")


def link_of(message: Any) -> Link:
    """A network device of an RTM_NEWLINK message."""
    port = message.get(("linkinfo", "slave_data"))
    kind = message.get(("linkinfo", "kind")) or ""
    return Link(
        index=message["index"],
        name=message.get("ifname"),
        kind=kind,
        mac=message.get("address") or "",
        mtu=message.get("mtu"),
        up=bool(message["flags"] & _IFF_UP),
        state=message.get("operstate") or "",
        bridge=message.get("master") or 0,
        promiscuous=bool(message["flags"] & _IFF_PROMISC),
        hairpin=_flag(port, "mode"),
        isolated=_flag(port, "isolated"),
        neigh_suppress=_flag(port, "neigh_suppress"),
        vxlan=_vxlan(message.get(("linkinfo", "data"))) if kind == "vxlan" else None,
        parent=message.get("link") or 0,
        parent_elsewhere=message.get("link_netnsid") is not None,
        alias=message.get("ifalias") or "",
        macvlan_mode=str(message.get(("linkinfo", "data", "macvlan_mode")) or "") if kind == "macvlan" else "",
        filtered=kind == "bridge" and all(message.get(("linkinfo", "data", name)) for name in _BRIDGE_FILTERS),
    )


def _flag(port: Any, name: str) -> bool:
    return bool(port and port.get(f"IFLA_BRPORT_{name.upper()}"))


def _vxlan(data: Any) -> Vxlan:
    local = data.get("IFLA_VXLAN_LOCAL") or data.get("IFLA_VXLAN_LOCAL6") or ""
    return Vxlan(data.get("IFLA_VXLAN_ID"), data.get("IFLA_VXLAN_PORT"), local, data.get("IFLA_VXLAN_LINK") or 0)


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
