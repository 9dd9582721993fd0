"""VXLAN: the device that makes a bridge span hosts (RFC 7348)."""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from cni.errors import Conflict, KernelRefused
from cni.kernel.netns import home_identity
from cni.kernel.view import Link, LinkRef, Vxlan
from cni.naming import OWNER, vtep_mac
from cni.protocol.result import Result
from cni.resources.advertisements import NoAdvertisements
from cni.resources.base import REFRESH, Resource
from cni.resources.gate import guard_vtep
from cni.resources.links import FORWARDING_PORT, TUNNEL_PORT, port_faults, required
from cni.resources.tunnels import delete_tunnel, give_rows, move_tunnel
from cni.resources.world import World
from cni.values import dataclass, replace

if TYPE_CHECKING:
    from cni.kernel.netlink.linkinfo import PortSettings

#: What a network says of its tunnel besides its MTU, which is the largest of those who share one.
_SAID = ("vni", "port", "local", "dev", "bridge", "learning", "mac")


@dataclass(frozen=True)
class VxlanLink(Resource):
    """A VXLAN device that is a port of a bridge, the only one there: two tunnels to the same hosts are a loop. Without a `bridge`
    packets are routed to it, from pods on the bridge `behind` it. `mac` empty is one of its own; hosts of a cluster know each other's.

    ARP and ND for addresses the bridge itself holds are answered here and not sent across (neigh_suppress), so hosts may
    hold the same gateway address and MAC. What its network's configuration says anew changes in place, or makes the device
    anew, unless another network of the node has it as it is, or a bridge that others are on: that is refused.
    """

    name: str
    vni: int
    port: int
    local: str
    dev: str
    mtu: int
    bridge: str
    learning: bool = True
    reported: str = ""
    mac: str = ""
    behind: str = ""
    shared = True
    configured = True
    mend = REFRESH

    def ensure(self, world: World) -> None:
        bridge = required(world.host.cached_link(self.bridge), self.bridge) if self.bridge else None
        link = next((item for item in world.host.tunnels() if item.name == self.name), None)
        if not (link and self._is_so(world, link, bridge)):
            with world.turn("the node's tunnels"):  # of two calls that find one to replace, the second looks again
                world.host.forget_seen()
                bridge = required(world.host.link_by_name(self.bridge), self.bridge) if self.bridge else None
                self._make_so(world, bridge)
        if not self.bridge:
            NoAdvertisements(self.name).ensure(world)

    def differences(self, world: World) -> Iterator[str]:
        link = world.host.link_by_name(self.name)
        if link is None:
            yield f"VXLAN device {self.name} is missing"
            return
        yield from self._faults(world, link)
        if self._own_address and not world.host.holding(ipaddress.ip_address(self.local)):
            yield f"VXLAN device {self.name} has local address {self.local}, which this host does not have"
        bridge = world.host.link_ref(self.bridge) if self.bridge else None
        if bridge and link.bridge != bridge.index:
            yield f"VXLAN device {self.name} is not a port of {self.bridge}"
        if not self.bridge:
            yield from NoAdvertisements(self.name).differences(world)
            if link.bridge:
                yield f"VXLAN device {self.name} is a port of a bridge, and packets are routed to it"
        for other in self._rivals(world, bridge) if bridge else ():
            yield f"{self.bridge} has two tunnels, {self.name} and {other.name}: a loop where both reach the same hosts"
        if not link.up:
            yield f"VXLAN device {self.name} is down"
        if link.mtu < self.mtu:
            yield f"VXLAN device {self.name} has MTU {link.mtu}, below the pods' {self.mtu}"
        if link.alias == OWNER and link.mac not in (self._mac, self.reported):
            yield f"VXLAN device {self.name} has MAC {link.mac}, not {self._mac}"
        yield from self._port_faults(link) if self.bridge else ()

    def accepting(self, reported: Result) -> VxlanLink:
        """The release before had any MAC, and said which."""
        return replace(self, reported=next((item.mac for item in reported.interfaces if item.name == self.name), ""))

    def remove(self, world: World) -> None:
        link = world.host.link_by_name(self.name)
        if link and link.kind == "vxlan":
            world.host.delete_link(link)

    def describe(self) -> str:
        place = f", local {self.local}" * bool(self.local) + f", dev {self.dev}" * bool(self.dev)
        place += ", not learning" * (not self.learning)
        on = f"on {self.bridge}" if self.bridge else "routed" + f", {self.behind} behind it" * bool(self.behind)
        return f"VXLAN {self.name}, VNI {self.vni}, UDP port {self.port}{place}, MTU {self.mtu}, {on}"

    @property
    def mentions(self) -> tuple[str, ...]:
        """By the bridge it is known whether anybody has the tunnel still, or by itself where it is on none."""
        return (overlay_place(self.bridge or self.name),)

    @property
    def _own_address(self) -> str:
        """The address the configuration gives it, if it gives one: ``::`` says a family only."""
        return "" if self.local in ("", "::") else self.local

    @property
    def _mac(self) -> str:
        return self.mac or vtep_mac(self.name, home_identity())

    @property
    def _port(self) -> PortSettings:
        """What is learned of a cluster's tunnel is not so, or forged: where each MAC is, its hosts are told."""
        if self.learning:
            return FORWARDING_PORT
        return {**TUNNEL_PORT, "learning": 0} if self.mac else TUNNEL_PORT

    def _port_faults(self, link: Link) -> Iterator[str]:
        """A bridge learns as the device does: a controller may have that off."""
        if self._port.get("learning") == 0 and "learning" not in link.switched_off:
            yield f"VXLAN device {self.name} has learning on as a port of {self.bridge}"
        if not link.neigh_suppress:
            yield f"VXLAN device {self.name} does not suppress ARP and ND for the gateway"
        yield from (f"VXLAN device {self.name} has {fault}" for fault in port_faults(link, learning=self.learning))

    def _is_so(self, world: World, link: Link, bridge: Link | None) -> bool:
        placed = link.bridge == (bridge.index if bridge else 0) and link.up and not self._rivals(world, bridge)
        placed = placed and not (bridge and any(self._port_faults(link)))
        placed = placed and (link.alias != OWNER or link.mac == self._mac)
        return placed and not any(self._faults(world, link)) and self._has_mtu(world, link, bridge)

    def _make_so(self, world: World, bridge: Link | None) -> None:
        tunnel = next((item for item in world.host.tunnels() if item.name == self.name), None)
        link = tunnel or world.host.link_by_name(self.name)
        rivals = self._rivals(world, bridge)
        for fault in (*self._held(world, link, bridge), *self._rivalled(world, rivals)):
            raise Conflict(fault)
        for rival in rivals:
            delete_tunnel(world, self, rival)
        stood, place = link is not None, bridge.index if bridge else 0
        link = self._as_configured(world, link) if link else self._created(world)
        moves = link.bridge != place
        if moves and stood:
            move_tunnel(world, self, link, place)
        elif moves:
            world.host.set_link(link, master=place)
        if bridge and (moves or any(self._port_faults(link))):
            world.host.set_port(link, **self._port)
        if link.alias == OWNER and link.mac != self._mac:
            world.host.set_link(link, address=self._mac)
        if not self._has_mtu(world, link, bridge):
            world.host.set_link(link, mtu=self.mtu)
        if not link.up:
            self._set_up(world, link)

    def _rivals(self, world: World, bridge: Link | LinkRef | None) -> list[Link]:
        there = world.host.tunnels() if bridge else ()
        return [link for link in there if bridge and link.bridge == bridge.index and link.name != self.name]

    def _held(self, world: World, link: Link | None, bridge: Link | None) -> Iterator[str]:
        """Who else has the device, where it is not as it is to be."""
        if link is None:
            return
        faults = list(self._faults(world, link))
        if link.alias != OWNER:
            yield from (f"{fault}; delete it or choose another VNI" for fault in faults)
        here = (0, bridge.index) if bridge else (0,)
        elsewhere = world.host.link_by_index(link.bridge) if link.bridge not in here else None
        if not faults and not elsewhere:
            return
        yield from (f"{self._wish}: network {network} has {other.describe()}" for network, other in self._others(world))
        if elsewhere and (link.alias != OWNER or len(world.host.ports(elsewhere)) > 1):
            yield f"{self._wish}: it is a port of {elsewhere.name}, which has others; one VNI spans one bridge"

    def _rivalled(self, world: World, rivals: list[Link]) -> Iterator[str]:
        """What keeps another tunnel on the bridge."""
        for rival in rivals:
            there = f"{self._wish}: {self.bridge} has {rival.name}, and two tunnels to the same hosts are a loop"
            if rival.alias != OWNER:
                yield f"{there}; agent-cni did not make it"
            for network in _networks_with(world, rival.name):
                yield f"{there}; network {network} needs it"

    def _others(self, world: World) -> Iterator[tuple[str, VxlanLink]]:
        """The networks that pods have with this device, and say otherwise of it."""
        for said in world.networks():
            for item in said.resources if said.in_use else ():
                if isinstance(item, VxlanLink) and item.name == self.name and self._differs(item):
                    yield said.network, item

    def _differs(self, other: VxlanLink) -> bool:
        return any(getattr(self, name) != getattr(other, name) for name in _SAID)

    @property
    def _wish(self) -> str:
        return f"{self.name} for {self.bridge or 'what is routed'}"

    def _faults(self, world: World, link: Link) -> Iterator[str]:
        if link.vxlan is None:
            yield f"{self.name} exists on the host and is {link.kind or 'no VXLAN device'}"
            return
        if (link.vxlan.vni, link.vxlan.port) != (self.vni, self.port):
            yield f"{self.name} has VNI {link.vxlan.vni} and UDP port {link.vxlan.port}, not {self.vni} and {self.port}"
        ours = link.alias == OWNER  # somebody else's may be bound where we do not care
        dev = world.host.link_ref(self.dev) if self.dev else None
        if (dev or ours) and link.vxlan.dev != (dev.index if dev else 0):
            yield f"{self.name} is not bound to {self.dev}" if self.dev else f"{self.name} is bound to a link"
        if (self._own_address or ours) and not _same(link.vxlan.local, self._own_address):
            yield f"{self.name} has local address {link.vxlan.local or 'none'}, not {self._own_address or 'one'}"
        if ours and link.vxlan.learning != self.learning:
            yield f"{self.name} has learning {'off' if self.learning else 'on'}"

    def _settings(self, world: World) -> Vxlan:
        dev = required(world.host.link_ref(self.dev), self.dev).index if self.dev else 0
        return Vxlan(self.vni, self.port, self.local, dev, self.learning)

    def _as_configured(self, world: World, link: Link) -> Link:
        """Our own device, changed where it is if the kernel can do that, and else made anew."""
        if link.alias != OWNER or not any(self._faults(world, link)):
            return link
        assert link.vxlan
        wanted, before = self._settings(world), link.vxlan
        if before.port == wanted.port and (wanted.dev or not before.dev):
            # of a tunnel without an address the kernel does not tell the family, and refuses one of another
            with suppress(KernelRefused):
                world.host.set_vxlan(link, wanted)
                back = replace(before, local=before.local or ("::" if ":" in wanted.local else ""))
                world.changed(self, lambda: world.host.set_vxlan(link, back))
                return link
        rows = delete_tunnel(world, self, link)
        made = self._created(world)
        give_rows(world, made, rows)
        return made

    def _created(self, world: World) -> Link:
        wanted = self._settings(world)
        world.make(self, lambda: world.host.create_vxlan(self.name, self._mac, self.mtu, wanted))
        guard_vtep(self.port)
        link = world.host.link_by_name(self.name)
        if link is None:  # refused as there already: a VNI and port have one device, whatever its name
            holders = (other.name for other in world.host.tunnels() if other.vxlan and other.vxlan.vni == self.vni)
            raise Conflict(f"VNI {self.vni} on UDP port {self.port} is held by {next(holders, 'another device')}")
        for fault in self._faults(world, link):  # somebody has made it, or a link of that name, meanwhile
            raise Conflict(f"{fault}; delete it or choose another VNI")
        return link

    def _has_mtu(self, world: World, link: Link, bridge: Link | None) -> bool:
        """Whether it is wide enough; and not wider, but where that is somebody else's wish, or a pod's link is too."""
        if link.mtu <= self.mtu or link.alias != OWNER:
            return link.mtu >= self.mtu
        ports = world.host.ports(bridge) if bridge else ()
        return any(port.mtu > self.mtu for port in ports if port.name != self.name)

    def _set_up(self, world: World, link: Link) -> None:
        try:
            world.host.set_link(link, up=True)
        except KernelRefused as error:
            if error.errno == errno.EADDRINUSE:
                raise Conflict(f"{self.name}: UDP port {self.port} is taken by another program on this host") from None
            raise


def overlay_place(bridge: str) -> str:
    """How the tunnel of a bridge is asked for."""
    return f"overlay {bridge}"


def _networks_with(world: World, link: str) -> list[str]:
    """The other networks that pods have with a device."""
    return [
        said.network
        for said in world.networks()
        if said.in_use and any(isinstance(item, VxlanLink) and item.name == link for item in said.resources)
    ]


def _same(one: str, other: str) -> bool:
    return one == other or (bool(one and other) and ipaddress.ip_address(one) == ipaddress.ip_address(other))
