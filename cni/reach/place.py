"""A network namespace as a packet meets it, and the ones a packet may come through, joined by their links."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from cni.kernel.view import Link
from cni.reach.rules import Rules

if TYPE_CHECKING:
    from cni.kernel.netlink.lookups import Asked, Way
    from cni.kernel.netlink.neighbours import Row


class Place(Protocol):
    """A namespace: `links` by index, `addresses` of each that are in use, the `rows` of its FDBs, and its `rules`."""

    name: str
    is_node: bool

    @property
    def links(self) -> Mapping[int, Link]: ...

    @property
    def addresses(self) -> Mapping[int, Sequence[str]]: ...

    @property
    def rows(self) -> Sequence[Row]: ...

    @property
    def rules(self) -> Rules: ...

    def way(self, asked: Asked) -> Way:
        """Where the kernel sends a packet (kernel/netlink/lookups.py)."""

    def neighbour(self, link: Link, address: str) -> Row | None:
        """What is known of a neighbour."""

    def setting(self, key: str) -> str:
        """A sysctl's value, empty where there is none."""

    def listens(self, protocol: str, port: int, address: str) -> bool:
        """Whether a socket takes what arrives there."""


class At(NamedTuple):
    """A link of a place."""

    place: Place
    link: Link


class Map:
    """The node and the pods that are looked at."""

    def __init__(self, places: Iterable[Place]) -> None:
        self.places = tuple(places)
        self.node = next((place for place in self.places if place.is_node), None)

    def other_end(self, at: At) -> At | None:
        """What a veth is connected with, as far as that is here."""
        for place, link in self._every("veth"):
            mutual = (link.parent, at.link.parent) == (at.link.index, link.index)
            if place is not at.place and mutual and link.parent_elsewhere and at.link.parent_elsewhere:
                return At(place, link)
        return None

    def parent(self, at: At) -> At | None:
        """The link of the node that a macvlan is on."""
        place = self.node if at.link.parent_elsewhere else at.place
        link = place.links.get(at.link.parent) if place else None
        return At(place, link) if place and link else None

    def macvlan_on(self, at: At, address: str) -> At | None:
        """The macvlan on a link of the node that has an address."""
        every = (At(place, link) for place, link in self._every("macvlan") if holds(place, address, link))
        return next((item for item in every if (found := self.parent(item)) and found.link is at.link), None)

    def siblings(self, at: At) -> list[At]:
        """The other macvlans on the same link."""
        own = self.parent(at)
        every = (At(place, link) for place, link in self._every("macvlan") if link is not at.link)
        return [item for item in every if own and (found := self.parent(item)) and found.link is own.link]

    def _every(self, kind: str) -> Iterator[tuple[Place, Link]]:
        return ((place, link) for place in self.places for link in place.links.values() if link.kind == kind)


def holds(place: Place, address: str, link: Link | None = None) -> bool:
    """Whether a namespace, or one of its links, has an address."""
    return any(
        address in held for index, held in place.addresses.items() if link is None or index == link.index
    )  # fmt: skip


def ports(place: Place, bridge: Link) -> list[Link]:
    """A bridge's ports."""
    return [link for link in place.links.values() if link.bridge == bridge.index]
