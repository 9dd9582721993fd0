"""What is said of a link by its kind, and of a bridge's port (IFLA_LINKINFO in linux/if_link.h, linux/veth.h)."""

from __future__ import annotations

import ipaddress
from typing import Any, TypedDict, Unpack

from cni.kernel.netlink.wire import attribute, attributes, number_of, string, text_of, u8, u32
from cni.kernel.view import MacvlanSettings, Vxlan

LINKINFO = 18
#: IFLA_INFO_*: what is in the data depends on the link's kind, in a port's on its master's.
_KIND, _DATA, _PORT_KIND, _PORT_DATA = 1, 2, 4, 5
_NF_CALL = (36, 37)  # IFLA_BR_NF_CALL_IPTABLES, IFLA_BR_NF_CALL_IP6TABLES
_BRPORT = {"mode": 4, "learning": 8, "flood": 9, "multicast_router": 25, "mcast_flood": 27, "bcast_flood": 30}
_BRPORT |= {"neigh_suppress": 32, "isolated": 33}
#: What a new port has on.
_FORWARDING = ("learning", "flood", "mcast_flood", "bcast_flood")
_VETH_PEER = 1
_VXLAN_ID, _VXLAN_LINK, _VXLAN_LOCAL, _VXLAN_LEARNING, _VXLAN_PORT, _VXLAN_LOCAL6 = 1, 3, 4, 7, 15, 17
_MACVLAN_MODE, _MACVLAN_BC_QUEUE_LEN = 1, 7
_MACVLAN_MODES = {1: "private", 2: "vepa", 4: "bridge", 8: "passthru", 16: "source"}
_MACVLAN_NUMBERS = {mode: number for number, mode in _MACVLAN_MODES.items()}


class PortSettings(TypedDict, total=False):
    """What can be changed of a bridge's port (ip-link(8)); `mode` 1 is hairpin."""

    mode: int
    isolated: int
    learning: int
    flood: int
    mcast_flood: int
    bcast_flood: int
    neigh_suppress: int
    multicast_router: int


def of_kind(kind: str, *data: bytes) -> bytes:
    """A link of a kind, and what is said of it."""
    inside = attribute(_DATA, b"".join(data)) if data else b""
    return attribute(LINKINFO, attribute(_KIND, string(kind)) + inside)


def bridge_filter(on: bool) -> bytes:
    """A bridge that shows the packet rules what it forwards, or does not."""
    return of_kind("bridge", *(attribute(number, u8(on)) for number in _NF_CALL))


def veth(peer: bytes) -> bytes:
    """One end of a pair; `peer` is the other as the message of a link begins, and its attributes."""
    return of_kind("veth", attribute(_VETH_PEER, peer))


def vxlan(settings: Vxlan) -> bytes:
    """A VXLAN device to be made."""
    data = [attribute(_VXLAN_ID, u32(settings.vni))]
    data += [attribute(_VXLAN_PORT, settings.port.to_bytes(2, "big"))]
    data += [attribute(_VXLAN_LEARNING, u8(settings.learning))]
    if settings.local:
        data.append(_local(settings.local))
    if settings.dev:
        data.append(attribute(_VXLAN_LINK, u32(settings.dev)))
    return of_kind("vxlan", *data)


def vxlan_changed(settings: Vxlan) -> bytes:
    """What can be changed of a VXLAN device that is there (vxlan_changelink): its VNI, port and family stay, and it stays on some
    link once it is on one.
    """
    data = [attribute(_VXLAN_LEARNING, u8(settings.learning)), _local(settings.local or "0.0.0.0")]
    if settings.dev:
        data.append(attribute(_VXLAN_LINK, u32(settings.dev)))
    return of_kind("vxlan", *data)


def _local(address: str) -> bytes:
    parsed = ipaddress.ip_address(address)
    return attribute({4: _VXLAN_LOCAL, 6: _VXLAN_LOCAL6}[parsed.version], parsed.packed)


def _vxlan_of(data: dict[int, bytes]) -> Vxlan:
    local = data.get(_VXLAN_LOCAL) or data.get(_VXLAN_LOCAL6)
    text = str(ipaddress.ip_address(local)) if local else ""
    port = int.from_bytes(data[_VXLAN_PORT], "big")
    dev, learning = number_of(data.get(_VXLAN_LINK, b"")), any(data.get(_VXLAN_LEARNING, b""))
    return Vxlan(number_of(data[_VXLAN_ID]), port, text, dev, learning)


def macvlan(settings: MacvlanSettings) -> bytes:
    """A macvlan of a mode; its parent is said elsewhere."""
    mode = attribute(_MACVLAN_MODE, u32(_MACVLAN_NUMBERS[settings.mode]))
    queue = attribute(_MACVLAN_BC_QUEUE_LEN, u32(settings.queue)) if settings.queue else b""
    return of_kind("macvlan", mode + queue)


def port(**settings: Unpack[PortSettings]) -> bytes:
    """A bridge's port."""
    numbers: dict[str, Any] = {**settings}
    data = b"".join(attribute(_BRPORT[name], u8(value)) for name, value in numbers.items())
    return attribute(LINKINFO, attribute(_PORT_KIND, string("bridge")) + attribute(_PORT_DATA, data))


def facts_of(linkinfo: bytes) -> dict[str, Any]:
    """The fields of a Link that are said there, of a link that has none too."""
    info = attributes(linkinfo)
    kind = text_of(info.get(_KIND, b""))
    data, of_port = attributes(info.get(_DATA, b"")), attributes(info.get(_PORT_DATA, b""))
    return {
        "kind": kind,
        "filtered": kind == "bridge" and all(any(data.get(number, b"")) for number in _NF_CALL),
        "vxlan": _vxlan_of(data) if kind == "vxlan" else None,
        "macvlan_mode": _MACVLAN_MODES.get(number_of(data.get(_MACVLAN_MODE, b"")), "") if kind == "macvlan" else "",
        "hairpin": any(of_port.get(_BRPORT["mode"], b"")),
        "isolated": any(of_port.get(_BRPORT["isolated"], b"")),
        "neigh_suppress": any(of_port.get(_BRPORT["neigh_suppress"], b"")),
        "switched_off": tuple(name for name in _FORWARDING if of_port.get(_BRPORT[name]) == b"\0"),
        "multicast_router": number_of(of_port.get(_BRPORT["multicast_router"], b"")),
    }
