"""VXLAN: the device that makes a bridge span hosts, and the VTEPs it floods to (RFC 7348)."""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Iterator

from cni.errors import Conflict, KernelRefused
from cni.kernel.netns import home_identity
from cni.kernel.view import Link, Vxlan
from cni.naming import vtep_mac
from cni.resources.base import Resource
from cni.resources.gate import guard_vtep
from cni.resources.links import required
from cni.resources.world import World
from cni.values import dataclass


@dataclass(frozen=True)
class VxlanLink(Resource):
    """A VXLAN device that is a port of a bridge.

    ARP and ND for addresses the bridge itself holds are answered here and not sent across
    (neigh_suppress), so every host can hold the same gateway address and MAC.
    """

    name: str
    vni: int
    port: int
    local: str
    dev: str
    mtu: int
    bridge: str
    shared = True

    def ensure(self, world: World) -> None:
        bridge = required(world.host.link_by_name(self.bridge), self.bridge)
        link = world.host.link_by_name(self.name) or self._created(world)
        for fault in self._faults(world, link):
            raise Conflict(f"{fault}; delete it or choose another VNI")
        if link.bridge != bridge.index:
            world.host.set_link(link, master=bridge.index)
        if not link.neigh_suppress:
            world.host.set_port(link, neigh_suppress=1)
        if link.mtu < self.mtu:
            world.host.set_link(link, mtu=self.mtu)
        if not link.up:
            self._set_up(world, link)

    def differences(self, world: World) -> Iterator[str]:
        link = world.host.link_by_name(self.name)
        if link is None:
            yield f"VXLAN device {self.name} is missing"
            return
        yield from self._faults(world, link)
        bridge = world.host.link_by_name(self.bridge)
        if bridge and link.bridge != bridge.index:
            yield f"VXLAN device {self.name} is not a port of {self.bridge}"
        if not link.up:
            yield f"VXLAN device {self.name} is down"
        if link.mtu < self.mtu:
            yield f"VXLAN device {self.name} has MTU {link.mtu}, below the pods' {self.mtu}"
        if not link.neigh_suppress:
            yield f"VXLAN device {self.name} does not suppress ARP and ND for the gateway"

    def remove(self, world: World) -> None:
        link = world.host.link_by_name(self.name)
        if link and link.kind == "vxlan":
            world.host.delete_link(link)

    def describe(self) -> str:
        place = f", local {self.local}" * bool(self.local) + f", dev {self.dev}" * bool(self.dev)
        return f"VXLAN {self.name}, VNI {self.vni}, UDP port {self.port}{place}, MTU {self.mtu}, on {self.bridge}"

    def _faults(self, world: World, link: Link) -> Iterator[str]:
        if link.vxlan is None:
            yield f"{self.name} exists on the host and is {link.kind or 'no VXLAN device'}"
            return
        if (link.vxlan.vni, link.vxlan.port) != (self.vni, self.port):
            yield f"{self.name} has VNI {link.vxlan.vni} and UDP port {link.vxlan.port}, not {self.vni} and {self.port}"
        dev = world.host.link_by_name(self.dev) if self.dev else None
        if dev and link.vxlan.dev != dev.index:
            yield f"{self.name} is not bound to {self.dev}"
        if self.local and not _same(link.vxlan.local, self.local):
            yield f"{self.name} has local address {link.vxlan.local or 'none'}, not {self.local}"

    def _mac(self) -> str:
        return vtep_mac(self.name, home_identity())

    def _created(self, world: World) -> Link:
        dev = required(world.host.link_by_name(self.dev), self.dev).index if self.dev else 0
        wanted = Vxlan(self.vni, self.port, self.local, dev)
        world.make(self, lambda: world.host.create_vxlan(self.name, self._mac(), self.mtu, wanted))
        guard_vtep(self.port)
        link = world.host.link_by_name(self.name)
        if link is None:  # refused as there already: a VNI and port have one device, whatever its name
            holders = (other.name for other in world.host.links() if other.vxlan and other.vxlan.vni == self.vni)
            raise Conflict(f"VNI {self.vni} on UDP port {self.port} is held by {next(holders, 'another device')}")
        return link

    def _set_up(self, world: World, link: Link) -> None:
        try:
            world.host.set_link(link, up=True)
        except KernelRefused as error:
            if error.errno == errno.EADDRINUSE:
                raise Conflict(f"{self.name}: UDP port {self.port} is taken by another program on this host") from None
            raise


@dataclass(frozen=True)
class FloodList(Resource):
    """Exactly these VTEPs get broadcast and unknown traffic (head-end replication)."""

    link: str
    vteps: tuple[str, ...]
    shared = True

    def ensure(self, world: World) -> None:
        link = required(world.host.link_by_name(self.link), self.link)
        now = world.host.flood_targets(link)
        missing = tuple(vtep for vtep in self.vteps if vtep not in now)
        extra = tuple(now - set(self.vteps))
        world.changed(self, lambda: _reflood(world, link, extra, missing))
        _reflood(world, link, missing, extra)

    def differences(self, world: World) -> Iterator[str]:
        link = world.host.link_by_name(self.link)
        now = world.host.flood_targets(link) if link else set()
        for vtep in sorted(set(self.vteps) - now):
            yield f"VTEP {vtep} is missing from {self.link}"
        for vtep in sorted(now - set(self.vteps)):
            yield f"{self.link} floods to VTEP {vtep}, which is not among the remotes"

    def describe(self) -> str:
        return f"{self.link} floods to {', '.join(self.vteps) or 'no other host'}"


def _reflood(world: World, link: Link, added: tuple[str, ...], deleted: tuple[str, ...]) -> None:
    for vtep in added:
        world.host.add_flood_target(link, vtep)
    for vtep in deleted:
        world.host.delete_flood_target(link, vtep)


def _same(one: str, other: str) -> bool:
    return bool(one) and ipaddress.ip_address(one) == ipaddress.ip_address(other)
