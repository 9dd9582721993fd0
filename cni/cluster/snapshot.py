"""What is in the store, as this host knows it: by room and key, and which of it news has touched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from sys import intern
from typing import Any, NamedTuple

from cni.cluster.model import Alive, Block, Endpoint, Item, Key, Network, Node
from cni.cluster.store import Change, Listing


class Place(NamedTuple):
    """What is known of an address: whose it is, and its MAC. Of another host's no more is kept: there may be 50,000."""

    node: str
    mac: str


class Snapshot:
    """Items by what tells them apart, at a revision; 0 before the first Listing. `own` are this host's endpoints, whole."""

    def __init__(self, me: str) -> None:
        self._me = me
        self.revision = 0
        self.nodes: dict[str, Node] = {}
        self.alive: dict[str, Alive] = {}
        self.networks: dict[str, Network] = {}
        #: By network, then by span.
        self.blocks: dict[str, dict[str, Block]] = {}
        #: By network, then by address.
        self.endpoints: dict[str, dict[str, Place]] = {}
        self.own: dict[Key, Endpoint] = {}

    def apply(self, news: Listing | Change) -> set[Key]:
        """Know what is new: the keys of what is another by now, or gone. What a Listing has not was deleted meanwhile; a Change
        that is older than what is known says nothing.
        """
        gone: Iterable[Key]
        if isinstance(news, Listing):
            listed = {item.key for item in news.items} if self.revision else set()
            gone, put = [key for key in self.keys() if key not in listed], news.items
        elif news.revision > self.revision:
            gone, put = news.gone, news.put
        else:
            return set()
        self.revision = news.revision
        return {key for key in gone if self._drop(key)} | {item.key for item in put if self._put(item)}

    def keys(self) -> Iterator[Key]:
        """Of everything there is."""
        for room, items in ((Node.room, self.nodes), (Alive.room, self.alive), (Network.room, self.networks)):
            yield from ((room, name) for name in items)
        yield from ((Block.room, network, span) for network, blocks in self.blocks.items() for span in blocks)
        yield from ((Endpoint.room, network, address) for network, known in self.endpoints.items() for address in known)

    def _put(self, item: Item) -> bool:
        """Whether it is another than before."""
        if isinstance(item, Endpoint):
            return self._put_endpoint(item)
        room, name = self._of(item.key)
        before, room[name] = room.get(name), item
        return before != item

    def _put_endpoint(self, item: Endpoint) -> bool:
        known = self.endpoints.setdefault(intern(item.network), {})
        place, before = Place(intern(item.node), item.mac), known.get(item.address)
        known[item.address] = place if place != before else before
        whole = self.own.pop(item.key, None)
        if item.node == self._me:
            self.own[item.key] = item
        return place != before or whole != self.own.get(item.key)

    def _drop(self, key: Key) -> bool:
        """Whether it was there."""
        room, name = self._of(key)
        self.own.pop(key, None)
        return room.pop(name, None) is not None

    def _of(self, key: Key) -> tuple[dict[str, Any], str]:
        """Where an item of a key is kept, and under which name; of a room of a later release, or with another depth, nothing is."""
        match key:
            case (Block.room, network, span):
                return self.blocks.setdefault(network, {}), span
            case (Endpoint.room, network, address):
                return self.endpoints.setdefault(network, {}), address
            case (Node.room, name):
                return self.nodes, name
            case (Alive.room, name):
                return self.alive, name
            case (Network.room, name):
                return self.networks, name
        return {}, ""
