"""What other hosts of a cluster have, as rows of this host's kernel. The member makes them, many at a time, and no call.

A row is by what it is found in its table (`key`), and what it says (`value`); `of` makes one of these. `found` says which rows of
a link are the member's, so that those nobody wants any more can go: routes, neighbours and addresses say who made them, an FDB
what a control plane put there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from cni.kernel.view import MAIN_TABLE, MEMBER, SCOPE_LINK, SCOPE_UNIVERSE, KernelRoute, Link
from cni.naming import interface_of
from cni.resources.base import Resource
from cni.resources.links import required
from cni.resources.world import World
from cni.values import dataclass, fields


@dataclass(frozen=True)
class RemoteRow(Resource, abstract=True):
    """A row on a link of ours; its fields are the link, the key, and the value if it has one."""

    link: str

    @classmethod
    def found(cls, world: World, link: Link) -> Iterator[tuple[str, Any]]:
        """Key and value of every row of the kind on a link that is ours."""
        raise NotImplementedError

    @classmethod
    def in_the_way(cls, world: World, link: Link, keys: Collection[str]) -> list[RemoteRow]:
        """What of others must go before rows with these keys can be ours."""
        return []

    @classmethod
    def of(cls, link: str, key: str, value: Any) -> RemoteRow:
        """The row with a key and a value."""
        return cls(link, key, value)  # type: ignore[call-arg]

    @property
    def place(self) -> object:
        return type(self), self.link, getattr(self, fields(self)[1].name)

    def _link(self, world: World) -> Link:
        return required(world.host.cached_link(self.link), self.link)


@dataclass(frozen=True)
class PeerRefusal(RemoteRow):
    """A network of the cluster's pods, which are behind what other rows say or nowhere: by the default route anybody could read it.
    Its link is the loopback, on which such routes are (ip-route(8), "unreachable").
    """

    dst: str

    def ensure(self, world: World) -> None:
        world.host.keep_refused(self.dst, MEMBER)

    def remove(self, world: World) -> None:
        world.host.delete_refused(self.dst, MEMBER)

    def describe(self) -> str:
        return f"route unreachable {self.dst}, but where a pod or a block is"

    @classmethod
    def of(cls, link: str, key: str, value: Any) -> RemoteRow:
        return PeerRefusal(link, key)

    @classmethod
    def found(cls, world: World, link: Link) -> Iterator[tuple[str, Any]]:
        return ((dst, True) for dst in world.host.refused_by(MEMBER))


@dataclass(frozen=True)
class PeerAddress(RemoteRow):
    """An address, with its prefix, by which this host itself speaks to pods."""

    address: str

    def ensure(self, world: World) -> None:
        link, wanted = self._link(world), interface_of(self.address)
        if wanted not in (item.interface for item in world.host.addresses(link)):
            world.host.add_address(link, wanted, nodad=wanted.version == 6, protocol=MEMBER)

    def remove(self, world: World) -> None:
        if link := world.host.link_ref(self.link):
            world.host.delete_address(link, interface_of(self.address))

    def describe(self) -> str:
        return f"{self.address} on {self.link}, by which this host speaks to pods"

    @classmethod
    def of(cls, link: str, key: str, value: Any) -> RemoteRow:
        return PeerAddress(link, key)

    @classmethod
    def found(cls, world: World, link: Link) -> Iterator[tuple[str, Any]]:
        held = (item for item in world.host.addresses(link) if item.protocol == MEMBER)
        return ((str(item.interface), True) for item in held)


@dataclass(frozen=True)
class PeerRow(RemoteRow):
    """A MAC that is behind another host: a row of the VXLAN device, and one of the bridge it is a port of, if it is. To be removed
    it may be without a VTEP: whatever it is behind.
    """

    mac: str
    vtep: str

    def ensure(self, world: World) -> None:
        world.host.add_peer_row(self._link(world), self.mac, self.vtep)

    def remove(self, world: World) -> None:
        if link := world.host.link_ref(self.link):
            world.host.delete_peer_row(link, self.mac, self.vtep)

    def describe(self) -> str:
        return f"{self.mac} at VTEP {self.vtep} by {self.link}"

    @classmethod
    def found(cls, world: World, link: Link) -> Iterator[tuple[str, Any]]:
        return iter(world.host.peer_rows(link).items())

    @classmethod
    def in_the_way(cls, world: World, link: Link, keys: Collection[str]) -> list[RemoteRow]:
        """What a user has put there a control plane does not take over but for its VTEP (vxlan_fdb_update_existing)."""
        return [PeerRow(link.name, mac, "") for mac in world.host.strange_rows(link) if mac in keys] if keys else []


@dataclass(frozen=True)
class PeerNeighbour(RemoteRow):
    """An address elsewhere whose MAC is known for good: nobody asks the wire for it."""

    address: str
    mac: str

    def ensure(self, world: World) -> None:
        world.host.add_neighbour(self._link(world), self.address, self.mac, protocol=MEMBER)

    def remove(self, world: World) -> None:
        if link := world.host.link_ref(self.link):
            world.host.delete_neighbour(link, self.address)

    def describe(self) -> str:
        return f"neighbour {self.address} at {self.mac} dev {self.link}"

    @classmethod
    def found(cls, world: World, link: Link) -> Iterator[tuple[str, Any]]:
        return iter(world.host.neighbours_by(link, MEMBER).items())


@dataclass(frozen=True)
class PeerRoute(RemoteRow):
    """A way to pods: through a link or by a gateway that is there whatever addresses the link has. `source` is the address this
    host itself speaks by.
    """

    dst: str
    gateway: str
    source: str

    def ensure(self, world: World) -> None:
        scope = SCOPE_UNIVERSE if self.gateway else SCOPE_LINK
        route = KernelRoute(self.dst, self.gateway, MAIN_TABLE, MEMBER, 0, 0, scope, self.source, protocol=MEMBER)
        world.host.replace_route(self._link(world), route, onlink=bool(self.gateway))

    def remove(self, world: World) -> None:
        if link := world.host.link_ref(self.link):
            world.host.delete_route(link, self.dst, protocol=MEMBER)

    def describe(self) -> str:
        via = f" via {self.gateway}" * bool(self.gateway) + f" src {self.source}" * bool(self.source)
        return f"route {self.dst}{via} dev {self.link}"

    @classmethod
    def of(cls, link: str, key: str, value: Any) -> RemoteRow:
        return PeerRoute(link, key, *value)

    @classmethod
    def found(cls, world: World, link: Link) -> Iterator[tuple[str, Any]]:
        every = (item for family in (4, 6) for item in world.host.routes(link, family))
        ours = (item for item in every if item.protocol == MEMBER and item.table == MAIN_TABLE)
        return ((item.dst, (item.gateway, item.source)) for item in ours)
