"""What a VXLAN device knows of the other hosts: the VTEPs it floods to (RFC 7348, section 4.2)."""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Iterable, Iterator
from typing import TypeGuard

from cni.errors import Conflict, KernelRefused
from cni.kernel.view import Link, LinkRef
from cni.resources.base import REFRESH, Resource
from cni.resources.links import required
from cni.resources.tunnels import remade
from cni.resources.vxlan import VxlanLink
from cni.resources.world import Said, World
from cni.values import dataclass


@dataclass(frozen=True)
class FloodList(Resource):
    """These VTEPs get broadcast and unknown traffic (head-end replication), and those of the node's other networks on the device.

    One that is this host's own is left out, so that all hosts may have one list.
    """

    link: str
    vteps: tuple[str, ...]
    shared = True
    configured = True
    mend = REFRESH

    def ensure(self, world: World) -> None:
        link = required(world.host.link_ref(self.link), self.link)
        now, wanted = world.host.flood_targets(link), self._wanted(world)
        wanted -= _own(world, wanted - now if world.settled else wanted)
        missing, extra = sorted(wanted - now), sorted(now - wanted if self._is_ours(world) else ())
        if not missing and not extra:
            return
        try:
            _reflood(world, link, missing[:1], ())
        except KernelRefused as error:
            if error.errno != errno.EAFNOSUPPORT:
                raise
            _reflood(world, self._of_the_other_family(world), sorted(wanted), ())
            return
        world.changed(self, lambda: _reflood(world, link, extra, missing))
        _reflood(world, link, missing[1:], extra)

    def differences(self, world: World) -> Iterator[str]:
        link = world.host.link_ref(self.link)
        now, wanted = world.host.flood_targets(link) if link else set(), self._wanted(world)
        own = _own(world, now | wanted)
        for vtep in sorted(wanted - now - own):
            yield f"VTEP {vtep} is missing from {self.link}"
        for vtep in sorted(now & own):
            yield f"{self.link} floods to {vtep}, which is this host itself"
        for vtep in sorted(now - wanted - own) if self._is_ours(world) else ():
            yield f"{self.link} floods to VTEP {vtep}, which is not among the remotes"

    def describe(self) -> str:
        return f"{self.link} floods to {', '.join(self.vteps) or 'no other host'}"

    def _wanted(self, world: World) -> set[str]:
        lists = (item for said in self._others(world) for item in said.resources if self._is_of_the_device(item))
        return {*self.vteps, *(vtep for item in lists for vtep in item.vteps)}

    def _is_ours(self, world: World) -> bool:
        """Whether nobody else keeps the list, as where a network on the device has no remotes."""
        return all(any(map(self._is_of_the_device, said.resources)) for said in self._others(world))

    def _others(self, world: World) -> list[Said]:
        """What the other networks say that have the device."""
        return [
            said
            for said in world.networks()
            if any(isinstance(item, VxlanLink) and item.name == self.link for item in said.resources)
        ]

    def _is_of_the_device(self, item: Resource) -> TypeGuard[FloodList]:
        return isinstance(item, FloodList) and item.link == self.link

    def _of_the_other_family(self, world: World) -> Link:
        """The device for VTEPs of another IP version than before."""
        for said in self._others(world):
            if said.in_use:
                raise Conflict(f"{self.link}: network {said.network} has it, with VTEPs of the other IP version")
        return remade(world, self, self.link, "::" if any(":" in vtep for vtep in self.vteps) else "")


def _own(world: World, vteps: Iterable[str]) -> set[str]:
    """Which of several addresses this host has."""
    return {vtep for vtep in vteps if world.host.holder_of(ipaddress.ip_address(vtep))}


def _reflood(world: World, link: Link | LinkRef, added: Iterable[str], deleted: Iterable[str]) -> None:
    for vtep in added:
        world.host.add_flood_target(link, vtep)
    for vtep in deleted:
        world.host.delete_flood_target(link, vtep)
