"""Links: the pod's veth pair, and the pod's end of it."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from cni.errors import Conflict, KernelRefused, Unfinished
from cni.kernel import sysctl
from cni.kernel.view import Link, LinkRef, VethEnd
from cni.protocol.result import Result
from cni.resources.base import Resource
from cni.resources.world import World
from cni.values import dataclass, replace

if TYPE_CHECKING:
    from cni.kernel.netlink.linkinfo import PortSettings
    from cni.kernel.netlink.links import LinkSettings

#: What a tunnel's port does on any bridge, and what a new port does besides.
TUNNEL_PORT: PortSettings = {"neigh_suppress": 1, "mode": 0, "isolated": 0}
_NEW_PORT: PortSettings = {"learning": 1, "flood": 1, "mcast_flood": 1, "bcast_flood": 1}
FORWARDING_PORT: PortSettings = {**TUNNEL_PORT, **_NEW_PORT}

L = TypeVar("L", bound=Link | LinkRef)


@dataclass(frozen=True)
class VethPair(Resource):
    """A veth whose pod end is born in the pod's namespace under its final name, MAC and MTU.

    `bridge` empty leaves the host end alone: a routed pair. One that `waits` is down until a later resource opens it.
    """

    host: str
    host_mac: str
    pod: str
    pod_mac: str
    mtu: int
    bridge: str
    hairpin: bool
    isolated: bool
    waits: bool = False
    of_link = True

    def ensure(self, world: World) -> None:
        bridge = required(world.host.cached_link(self.bridge), self.bridge).index if self.bridge else 0
        try:
            self._create(world, bridge)
        except Unfinished:
            world.created(self)
            raise
        except KernelRefused as error:
            if error.errno != errno.EEXIST:
                raise
            self._create_instead(world, bridge)
        world.created(self)
        if self.bridge:
            self._become_port(world)

    def differences(self, world: World) -> Iterator[str]:
        link = world.host.link_by_name(self.host)
        if link is None:
            yield f"host interface {self.host} is missing"
            return
        bridge = world.host.link_by_name(self.bridge) if self.bridge else None
        if bridge and link.bridge != bridge.index:
            yield f"host interface {self.host} is not a port of {self.bridge}"  # nor has it settings of one
        if not link.up:
            yield f"host interface {self.host} is down"
        if link.mtu != self.mtu:
            yield f"host interface {self.host} has MTU {link.mtu}, not {self.mtu}"
        if link.mac != self.host_mac:
            yield f"host interface {self.host} has MAC {link.mac}, not {self.host_mac}"
        is_port = bool(link.bridge) or not bridge
        faults = port_faults(link, hairpin=self.hairpin, isolated=self.isolated) if is_port else ()
        yield from (f"host interface {self.host} has {fault}" for fault in faults)

    def is_lost(self, world: World) -> bool:
        """Where either end is not there, the other is of no use."""
        link, end = world.host.link_by_name(self.host), world.pod.link_by_name(self.pod)
        if link and link.kind != "veth":
            raise Conflict(f"{self.host} exists on the host and is {link.kind or 'no veth'}; it is left as it is")
        if end and not (self._is_joined(link, end) or self._renamed(world, end)):
            raise Conflict(f"{self.pod} in the pod is not the other end of {self.host}; it is left as it is")
        return end is None and self._renamed_end(world) is None

    def lacking(self, world: World) -> Iterator[str]:
        """Who renamed the pod's end did not take it away."""
        if other := self._renamed_end(world):
            yield f"{self.pod} is called {other.name} in the pod"
        yield from self.differences(world)

    def repair(self, world: World) -> None:
        """A port that was another bridge's, or none's, has what a new one has. One that waits is opened by who opens it."""
        link = world.host.link_by_name(self.host)
        if other := self._renamed_end(world):
            world.pod.set_link(other, ifname=self.pod)
        if link is None:
            link = required(self._renamed(world, required(world.pod.link_by_name(self.pod), self.pod)), self.host)
            world.host.set_link(link, ifname=self.host)
        if (link.mac, link.mtu) != (self.host_mac, self.mtu):
            world.host.set_link(link, address=self.host_mac, mtu=self.mtu)
        bridge = world.host.link_by_name(self.bridge) if self.bridge else None
        if bridge and link.bridge != bridge.index:
            world.host.set_link(link, master=bridge.index)
            self._become_port(world)
        if bridge and any(port_faults(link, hairpin=self.hairpin, isolated=self.isolated)):
            port: PortSettings = {**_NEW_PORT, "mode": int(self.hairpin), "isolated": int(self.isolated)}
            world.host.set_port(link, **port)
        if not (link.up or self.waits):
            world.host.set_link(link, up=True)

    def remove(self, world: World) -> None:
        link = world.host.link_by_name(self.host)
        if link and link.kind == "veth":
            world.host.delete_link(link)

    def accepting(self, reported: Result) -> VethPair:
        for item in reported.interfaces:
            if item.name == self.host and not item.sandbox:
                return replace(self, mtu=item.mtu or self.mtu, host_mac=item.mac or self.host_mac)
        return self

    def describe(self) -> str:
        flags = ", hairpin" * self.hairpin + ", isolated" * self.isolated
        on = f" on {self.bridge}" if self.bridge else ""
        return f"veth {self.host}{on}{flags} <-> {self.pod} in the pod, {self.pod_mac}, MTU {self.mtu}"

    def _is_joined(self, link: Link | None, end: Link) -> bool:
        return link is not None and end.kind == "veth" and end.parent_elsewhere and end.parent == link.index

    def _renamed(self, world: World, end: Link) -> Link | None:
        """The host's end under another name."""
        known = world.host.link_by_name(self.host)
        link = world.host.link_by_index(end.parent) if end.parent_elsewhere and known is None else None
        return link if link and link.mac == self.host_mac and self._is_joined(link, end) else None

    def _renamed_end(self, world: World) -> Link | None:
        """The pod's end under another name."""
        link = world.host.link_by_name(self.host)
        if link is None or world.pod.link_ref(self.pod):
            return None
        return next((item for item in world.pod.links() if self._is_joined(link, item)), None)

    def _create(self, world: World, bridge: int) -> None:
        assert world.netns is not None
        own = VethEnd(self.host, self.host_mac, self.mtu)
        peer = VethEnd(self.pod, self.pod_mac, self.mtu, world.netns.fd)
        world.host.create_veth(own, peer, bridge=bridge, up=not (self.waits or bridge))

    def _become_port(self, world: World) -> None:
        """Go up as a port that speaks no IPv6 of its own: what comes in is the bridge's, so nobody could answer it. With it each
        port would have three routes, through all of which the kernel looks whenever one goes up or down (fib6_clean_all). Where
        /proc/sys is read-only it speaks.
        """
        sysctl.prefers(sysctl.of_link(6, self.host, "disable_ipv6"), "1")
        link = required(world.host.link_ref(self.host), self.host)
        if self.hairpin or self.isolated:
            world.host.set_port(link, up=not self.waits, mode=int(self.hairpin), isolated=int(self.isolated))
        elif not self.waits:
            world.host.set_link(link, up=True)

    def _create_instead(self, world: World, bridge: int) -> None:
        """Only a lost record can leave the host's end, whose name is ours alone; the pod's may be anybody's."""
        self.remove(world)
        try:
            self._create(world, bridge)
        except KernelRefused as error:
            if error.errno == errno.EEXIST and world.netns and world.pod.link_by_name(self.pod):
                raise Conflict(f"{self.pod} exists already in {world.netns.path}; it is left as it is") from None
            raise


@dataclass(frozen=True)
class LostPort(Resource):
    """The host end of a routed pair, as far as its name tells: a bridge's port under it is another plugin's of the chain."""

    host: str

    def remove(self, world: World) -> None:
        link = world.host.link_by_name(self.host)
        if link and link.kind == "veth" and not link.bridge:
            world.host.delete_link(link)

    def describe(self) -> str:
        return f"whatever is left of {self.host}"


class PodChange(Resource):
    """What the pod's rtnetlink is asked for together with its neighbours in a plan."""

    @property
    def batch(self) -> OneCall:
        return OneCall()


@dataclass(frozen=True)
class OneCall:
    """Requests that go to the pod's rtnetlink in one system call."""

    def ensure(self, items: Sequence[Resource], world: World) -> None:
        """Ask for all of them."""
        try:
            with world.pod.batch():
                for item in items:
                    item.ensure(world)
        except KernelRefused as error:
            if error.errno != errno.EADDRINUSE:  # macvlan_open in drivers/net/macvlan.c
                raise
            for link in (item for item in items if isinstance(item, PodLink)):
                raise Conflict(
                    f"{link.name} cannot go up: its MAC {link.mac} is in use on its master already"
                ) from None
            raise


@dataclass(frozen=True)
class PodLink(PodChange):
    """The pod's end, set up. Later plugins of a chain may change its MAC and MTU and report it; `tuning` lowers the MTU and does not."""

    name: str
    mac: str
    mtu: int
    opens = True
    of_link = True

    def ensure(self, world: World) -> None:
        world.pod.set_link(required(world.pod.link_ref(self.name), self.name), up=True)

    def repair(self, world: World) -> None:
        """With its MAC, and no larger MTU."""
        link = required(world.pod.link_by_name(self.name), self.name)
        wanted: LinkSettings = {"address": self.mac} if link.mac != self.mac else {}
        if link.mtu > self.mtu:
            wanted["mtu"] = self.mtu
        world.pod.set_link(link, up=True, **wanted)

    def differences(self, world: World) -> Iterator[str]:
        link = world.pod.link_by_name(self.name)
        if link is None:
            yield f"{self.name} is missing in the pod"
            return
        if not link.up:
            yield f"{self.name} is down in the pod"
        if link.mac != self.mac:
            yield f"{self.name} has MAC {link.mac}, not {self.mac}"
        if link.mtu > self.mtu:
            yield f"{self.name} has MTU {link.mtu}, above {self.mtu}"

    def accepting(self, reported: Result) -> PodLink:
        for item in reported.interfaces:
            if item.name == self.name and item.sandbox:
                return replace(self, mac=item.mac or self.mac, mtu=item.mtu or self.mtu)
        return self

    def describe(self) -> str:
        return f"{self.name} up in the pod"


def port_faults(link: Link, *, hairpin: bool = False, isolated: bool = False, learning: bool = True) -> Iterator[str]:
    """Which settings of a bridge's port are other than wanted, and how; without `learning` what a port forwards is somebody else's."""
    yield from (f"{name} off" for name in (link.switched_off if learning else ()))
    for name, wanted in (("hairpin", hairpin), ("isolated", isolated)):
        if getattr(link, name) != wanted:
            yield f"{name} {'off' if wanted else 'on'}"


def required(link: L | None, name: str) -> L:
    """A link that must be there. Raises KernelRefused when it vanished meanwhile."""
    if link is None:
        raise KernelRefused(f"{name} vanished while it was being set up", errno.ENODEV)
    return link
