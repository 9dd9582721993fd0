"""Neighbours that are known for good: nobody has to ask for them, and on a shim or a pod's own /32 nobody would answer."""

from __future__ import annotations

from collections.abc import Iterator

from cni.kernel.view import Link
from cni.resources.base import REFRESH, Resource
from cni.resources.links import required
from cni.resources.world import World
from cni.values import dataclass


@dataclass(frozen=True)
class HostNeighbour(Resource):
    """A pod the host knows for good, so that it never asks the wire for it under the shim's MAC."""

    link: str
    address: str
    mac: str
    mend = REFRESH

    def ensure(self, world: World) -> None:
        link = required(world.host.link_by_name(self.link), self.link)
        world.make(self, lambda: self.add(world, link))

    def add(self, world: World, link: Link) -> None:
        """Ask for it, whoever has it."""
        world.host.add_neighbour(link, self.address, self.mac)

    def differences(self, world: World) -> Iterator[str]:
        link = world.host.link_by_name(self.link)
        if link and world.host.neighbours(link).get(self.address) != self.mac:
            yield f"host neighbour {self.address} at {self.mac} dev {self.link} is missing"

    def remove(self, world: World) -> None:
        link = world.host.link_by_name(self.link)
        if link:
            world.host.delete_neighbour(link, self.address)

    def describe(self) -> str:
        return f"neighbour {self.address} at {self.mac} dev {self.link} on the host"


@dataclass(frozen=True)
class PodNeighbour(Resource):
    """The host's address, known to the pod for good: the shim that carries it has none to answer for."""

    link: str
    address: str
    mac: str
    mend = REFRESH

    def ensure(self, world: World) -> None:
        link = world.pod.link_by_name(self.link)
        if link:  # a refresh may come upon a pod whose DEL was stopped half-way
            world.pod.add_neighbour(link, self.address, self.mac)

    def differences(self, world: World) -> Iterator[str]:
        link = world.pod.link_by_name(self.link)
        if link and world.pod.neighbours(link).get(self.address) != self.mac:
            yield f"neighbour {self.address} at {self.mac} dev {self.link} is missing in the pod"

    def describe(self) -> str:
        return f"neighbour {self.address} at {self.mac} dev {self.link} in the pod"
