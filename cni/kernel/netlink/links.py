"""Links: asked for, made, changed, deleted and read (rtnetlink(7), linux/if_link.h, linux/veth.h)."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Mapping
from typing import Any, TypedDict, Unpack

from cni.errors import KernelRefused
from cni.kernel.netlink import linkinfo
from cni.kernel.netlink.linkinfo import LINKINFO, PortSettings
from cni.kernel.netlink.namespaces import Namespaces
from cni.kernel.netlink.wire import (
    CREATE,
    DUMP,
    EXCLUSIVE,
    HEADER,
    attribute,
    attributes,
    mac_of,
    number_of,
    packed_mac,
    request,
    string,
    text_of,
    u32,
    understood,
)
from cni.kernel.view import Link, LinkRef, MacvlanSettings, VethEnd, Vxlan
from cni.naming import OWNER

_NEW, _DELETE, _GET = 16, 17, 18
_IFINFO = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, the flags that are changed
_UP, _LOOPBACK, _PROMISC = 0x1, 0x8, 0x100
#: The kernel's own choice begins at 1, and does not come here.
_OWN_INDEX = 1 << 24
#: IFLA_*
_ADDRESS, _IFNAME, _MTU, _LINK, _MASTER, _OPERSTATE, _IFALIAS = 1, 3, 4, 5, 10, 16, 20
_NET_NS_FD, _EXT_MASK, _LINK_NETNSID, _TARGET_NETNSID = 28, 29, 37, 46
_STATES = ("UNKNOWN", "NOTPRESENT", "DOWN", "LOWERLAYERDOWN", "TESTING", "DORMANT", "UP")  # RFC 2863

_SETTINGS: dict[str, tuple[int, Callable[[Any], bytes]]] = {
    "ifname": (_IFNAME, string),
    "mtu": (_MTU, u32),
    "master": (_MASTER, u32),
    "address": (_ADDRESS, packed_mac),
    "ifalias": (_IFALIAS, string),
    "net_ns_fd": (_NET_NS_FD, u32),
}
_WITHOUT_STATISTICS = attribute(_EXT_MASK, u32(8))
_ABSENT = (errno.ENODEV, errno.EINVAL, errno.ERANGE)  # the latter two: no link can have such a name or index


class LinkSettings(TypedDict, total=False):
    """What can be changed of any link, in ip-link(8)'s words; `master` is an index, 0 for none."""

    mtu: int
    master: int
    address: str
    ifalias: str
    ifname: str


class Links(Namespaces):
    """The links of a namespace."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[str, Link] = {}
        self._tunnels: list[Link] | None = None

    def forget_seen(self) -> None:
        """Ask anew for what was kept of answers."""
        self._seen.clear()
        self._tunnels = None

    # --- questions

    def link_by_name(self, name: str) -> Link | None:
        """A link, or None."""
        link = self._one_link(0, attribute(_IFNAME, string(name)), name)
        if link:
            self._seen[name] = link
        return link

    def link_by_index(self, index: int) -> Link | None:
        """A link, or None."""
        return self._one_link(index, b"", str(index))

    def cached_link(self, name: str) -> Link | None:
        """A link as it was seen last, if it is the same one still: for whatever nobody changes meanwhile."""
        seen = self._seen.get(name)
        return seen if seen and seen.index == self._channel.link_index(name) else self.link_by_name(name)

    def link_ref(self, name: str) -> LinkRef | None:
        """A link to ask something for, or None: its index costs a tenth of all there is to say of it.

        It is asked for each time, because a link goes with its other end, or with a call of somebody else's.
        """
        index = self._channel.link_index(name)
        return LinkRef(index, name) if index else None

    def links(self) -> list[Link]:
        """Every link of the namespace."""
        return [link_of(answer) for answer in self._dump(request(_GET, DUMP, _place(), _WITHOUT_STATISTICS))]

    def ports(self, bridge: Link | LinkRef) -> list[Link]:
        """Every port of a bridge; the kernel leaves out other links."""
        asked = request(_GET, DUMP, _place(), _WITHOUT_STATISTICS, attribute(_MASTER, u32(bridge.index)))
        return [link_of(answer) for answer in self._dump(asked)]

    def tunnels(self) -> list[Link]:
        """Every VXLAN device, whoever made it; the kernel leaves out other kinds.

        It looks through all links for that, so a call asks once, and again when it has changed one. With a mask it would measure
        each of them besides, to know how much room an answer takes (rtnl_calcit in net/core/rtnetlink.c).
        """
        if self._tunnels is None:
            asked = request(_GET, DUMP, _place(), linkinfo.of_kind("vxlan"))
            self._tunnels = [link_of(answer) for answer in self._dump(asked)]
        return self._tunnels

    @understood
    def other_end(self, link: Link) -> tuple[int, Link] | None:
        """What a link is connected with in another namespace, and the number this one knows that by: nobody enters it. None where there
        is nothing, or nothing any more.
        """
        near = self._told(link.index, b"", link.name)
        said = attributes(near, HEADER.size + _IFINFO.size) if near else {}
        if _LINK_NETNSID not in said:
            return None
        namespace = number_of(said[_LINK_NETNSID])
        elsewhere = attribute(_TARGET_NETNSID, u32(namespace))
        far = self._told(number_of(said[_LINK]), elsewhere, f"the other end of {link.name}")
        return (namespace, link_of(far)) if far else None

    def _one_link(self, index: int, name: bytes, which: str) -> Link | None:
        told = self._told(index, name, f"link {which}")
        return link_of(told) if told else None

    def _told(self, index: int, more: bytes, which: str) -> bytes | None:
        try:
            return self._channel.question(request(_GET, 0, _place(index), more, _WITHOUT_STATISTICS))
        except KernelRefused as error:
            if error.errno in _ABSENT:
                return None
            raise KernelRefused(f"look up {which}: {error.msg}", error.errno) from None

    # --- changes

    def create_bridge(self, name: str, mac: str, mtu: int) -> None:
        """Create a bridge that keeps its MAC and MTU, and set it up.

        The kernel keeps an MTU only when it was changed by hand (br_change_mtu in net/bridge); one merely
        created with follows the smallest port's. So it is created with another one first.
        """
        said = _settings(ifname=name, mtu=mtu ^ 1, address=mac) + linkinfo.of_kind("bridge")
        self._create_ours(said, f"create bridge {name}", up=True, mtu=mtu)

    def filter_bridge(self, link: Link, on: bool = True) -> None:
        """Let what a bridge forwards between its ports meet packet rules, or not, whatever the global setting."""
        change = request(_NEW, 0, _place(link.index), linkinfo.bridge_filter(on))
        self._change(change, f"set nf_call_iptables on {link.name}")

    def create_veth(self, own: VethEnd, peer: VethEnd, *, bridge: int = 0, up: bool = True) -> None:
        """Create a veth pair in one step: this end up, or not, and a port of a bridge unless that index is 0.

        The other end is down, and in the namespace it names.
        """
        said = _end(own) + (_settings(master=bridge) if bridge else b"")
        place = _place(flags=_UP * up, change=_UP * up)
        new = _new(place, said, linkinfo.veth(_place() + _end(peer)))
        self._change(new, f"create veth {own.name} with {peer.name} in the pod")

    def create_vxlan(self, name: str, mac: str, mtu: int, vxlan: Vxlan) -> None:
        """Create a VXLAN device; it starts down."""
        self._tunnels = None
        what = f"create {name} (VNI {vxlan.vni}, UDP port {vxlan.port})"
        self._create_ours(_settings(ifname=name, mtu=mtu, address=mac) + linkinfo.vxlan(vxlan), what)

    def set_vxlan(self, link: Link | LinkRef, vxlan: Vxlan) -> None:
        """Change a VXLAN device's local address, link and learning, while it carries traffic."""
        self._tunnels = None
        change = request(_NEW, 0, _place(link.index), linkinfo.vxlan_changed(vxlan))
        said = f"local {vxlan.local or 'any'}, dev {vxlan.dev}, learning {vxlan.learning}"
        self._change(change, f"set {said} on {link.name}")

    def create_macvlan(self, name: str, mac: str, mtu: int, settings: MacvlanSettings) -> None:
        """Create a macvlan here, under its final name, on a link that may be in another namespace; `mac` empty: any.

        The request is made in the new link's own namespace, so its name meets only names of that
        namespace on every kernel.
        """
        said = [_settings(ifname=name, mtu=mtu), attribute(_LINK, u32(settings.parent))]
        if settings.netns_fd is not None:
            said.append(attribute(_LINK_NETNSID, u32(self._nsid(settings.netns_fd))))
        if mac:
            said.append(_settings(address=mac))
        self._change(_new(_place(), *said, linkinfo.macvlan(settings)), f"create macvlan {name}")

    def create_wireguard(self, name: str) -> bool:
        """Create a WireGuard device; it starts down. False where the kernel has none to give."""
        try:
            self._change(_new(_place(), _settings(ifname=name), linkinfo.of_kind("wireguard")), f"create {name}")
        except KernelRefused as error:
            if error.errno == errno.EOPNOTSUPP:
                return False
            raise
        return True

    def set_link(self, link: Link | LinkRef, *, up: bool = False, **settings: Unpack[LinkSettings]) -> None:
        """Set a link up, and change what is said."""
        place = _place(link.index, _UP * up, _UP * up)
        what = _spelled({**settings, **({"state": "up"} if up else {})})
        self._change(request(_NEW, 0, place, _settings(**settings)), f"set {what} on {link.name}")

    def set_down(self, link: Link | LinkRef) -> None:
        """Set a link down: nothing passes it."""
        self._change(request(_NEW, 0, _place(link.index, 0, _UP)), f"set {link.name} down", errno.ENODEV)

    def set_promiscuous(self, link: Link) -> None:
        """Make a link promiscuous."""
        self._change(request(_NEW, 0, _place(link.index, _PROMISC, _PROMISC)), f"set promiscuous mode on {link.name}")

    def set_port(self, link: Link | LinkRef, *, up: bool = False, **settings: Unpack[PortSettings]) -> None:
        """Change a bridge's port, and set it up."""
        change = request(_NEW, 0, _place(link.index, _UP * up, _UP * up), linkinfo.port(**settings))
        self._change(change, f"set {_spelled({**settings})} on bridge port {link.name}")

    def delete_link(self, link: Link) -> None:
        """Delete a link; one that is gone already is deleted."""
        self._seen.pop(link.name, None)
        self._tunnels = None
        self._change(request(_DELETE, 0, _place(link.index)), f"delete {link.name}", errno.ENODEV)

    def _create_ours(self, said: bytes, what: str, *, up: bool = False, **settings: Unpack[LinkSettings]) -> None:
        """Create a link, and give it our mark and what none can be created with, by an index that no other link has where it is refused."""
        index = _OWN_INDEX + int.from_bytes(os.urandom(3))
        finish = request(_NEW, 0, _place(index, _UP * up, _UP * up), _settings(**settings, ifalias=OWNER))
        self._create(_new(_place(index), said), finish, what)


# --- reading


@understood
def link_of(message: bytes) -> Link:
    """A network device of an RTM_NEWLINK message."""
    _, _, index, flags, _ = _IFINFO.unpack_from(message, HEADER.size)
    said = attributes(message, HEADER.size + _IFINFO.size)
    return Link(
        index=index,
        name=text_of(said[_IFNAME]),
        mac=mac_of(said.get(_ADDRESS, b"")),
        mtu=number_of(said[_MTU]),
        up=bool(flags & _UP),
        state=_STATES[number_of(said[_OPERSTATE])],
        bridge=number_of(said.get(_MASTER, b"")),
        promiscuous=bool(flags & _PROMISC),
        loopback=bool(flags & _LOOPBACK),
        parent=number_of(said.get(_LINK, b"")),
        parent_elsewhere=_LINK_NETNSID in said,
        alias=text_of(said.get(_IFALIAS, b"")),
        **linkinfo.facts_of(said.get(LINKINFO, b"")),
    )


# --- packing


def _place(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return _IFINFO.pack(0, 0, index, flags, change)


def _new(*parts: bytes) -> bytes:
    return request(_NEW, CREATE | EXCLUSIVE, *parts)


def _settings(**settings: Any) -> bytes:
    encoded = ((*_SETTINGS[name], value) for name, value in settings.items())
    return b"".join(attribute(number, encode(value)) for number, encode, value in encoded)


def _end(end: VethEnd) -> bytes:
    elsewhere = _settings(net_ns_fd=end.netns_fd) if end.netns_fd is not None else b""
    return _settings(ifname=end.name, mtu=end.mtu, address=end.mac) + elsewhere


def _spelled(settings: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items())
