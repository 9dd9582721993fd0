"""What happens in the API, told from a listing on as news of the cluster.

Every host hears of Nodes and of policies. Pods, of which there may be 100,000, and Namespaces it hears of only where somebody goes by
them: policies, as soon as there is one, and networks of layer 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from typing import NamedTuple

from cni.cluster.kubernetes import items
from cni.cluster.kubernetes.api import Absent, Api, Listed
from cni.cluster.kubernetes.objects import NAMESPACES, NODES, PODS, POLICIES, Kind, Node, Object, Pod
from cni.cluster.kubernetes.roster import Roster
from cni.cluster.kubernetes.streams import News, Streams
from cni.cluster.kubernetes.told import Place, Told
from cni.cluster.model import Block, Endpoint, Item, Key, Network
from cni.cluster.store import Change, Listing, Sparing
from cni.errors import Forbidden

#: What one change puts and takes away, as it is after all of its news.
_Put = dict[Key, Item]
_Gone = dict[Key, None]
#: How long to wait for news before those who left are looked after, in seconds.
_PATIENCE = 1.0


class Scope(NamedTuple):
    """What is told: networks, whether there are policies, and why nothing is known of them; whether pods are endpoints."""

    networks: tuple[Network, ...]
    policies: bool
    undocumented: str
    endpoints: bool


class Watch:
    """One who is told. `saw` hears what this host's own Node is whenever it is told of; None where it is to be asked for. The `roster`
    outlives it, for what was deleted between two.
    """

    def __init__(
        self, api: Api, me: str, sparing: Sparing | None, saw: Callable[[Node | None], None], roster: Roster
    ) -> None:
        self._api, self._me, self._sparing, self._saw, self._roster = api, me, sparing, saw, roster
        self._told = Told()
        self._scope = Scope((), policies=False, undocumented="", endpoints=False)
        self._revision = 0

    @property
    def networks(self) -> tuple[Network, ...]:
        """Those that hosts have declared, as far as it is told."""
        return self._scope.networks

    def told(self, own: Callable[[], Iterable[Endpoint]]) -> Iterator[Listing | Change]:
        """A Listing, and every Change; whenever another scope is needed, a Listing again, in which is what this host itself said. Raises
        Unreachable.
        """
        while True:
            listed, listing = self.listed()
            yield listing._replace(items=(*listing.items, *own()))
            with closing(Streams(self._api, listed)) as streams:
                while (change := self._next(streams)) is not None:
                    yield change

    def listed(self) -> tuple[dict[Kind, Listed | None], Listing]:
        """All there is to be told, and where it goes on from. Raises Unreachable, and Forbidden of pods that somebody goes by."""
        nodes = self._api.list(NODES)
        self._roster.listed(node for node in nodes.objects if isinstance(node, Node))
        self._saw(self._roster.of_name(self._me))
        networks, refused = items.networks_of(self._roster, self._me)
        listed: dict[Kind, Listed | None] = {NODES: nodes}
        why = list[str]()
        for kind in POLICIES:
            listed[kind] = self._permitted(kind, why)
        policies = not why and any(
            found and (found.objects or found.refused) for found in listed.values() if found is not nodes
        )
        is_enough = self._is_enough(networks)
        self._scope = Scope(tuple(networks), policies, why[0] if why else "", policies or not is_enough)
        for kind in (NAMESPACES, PODS) if policies else ():
            listed[kind] = self._permitted(kind, why)
        if not is_enough:  # a listing without pods would say that there are none
            listed[PODS] = listed.get(PODS) or self._api.list(PODS)
        if policies and why:
            self._scope = self._scope._replace(policies=False, undocumented=why[0])
        return listed, self._listing(listed, refused + why)

    def _is_enough(self, networks: Iterable[Network]) -> bool:
        """Whether nobody here goes by where pods are."""
        return self._sparing is not None and self._sparing.is_enough(networks)

    def _permitted(self, kind: Kind, why: list[str]) -> Listed | None:
        try:
            return self._api.list(kind)
        except Absent:
            return None
        except Forbidden as error:
            why.append(error.msg)
            return None

    def _listing(self, listed: dict[Kind, Listed | None], refused: list[str]) -> Listing:
        self._told, self._revision = Told(), self._revision + 1
        found: list[Item] = [*self._scope.networks]
        for kind, known in listed.items():
            objects = sorted(known.objects, key=lambda one: one.metadata.creation_timestamp or "") if known else ()
            for one in objects:
                made, why = self._items(kind, known.served if known else "", one)
                refused += why
                found += self._told.put(_place(kind, one), made)[0]
            refused += known.refused if known else ()
        for node in self._roster.departed:
            found += self._still_told(node, listed)
        return Listing(self._revision, tuple(found), tuple(refused), self._scope.undocumented)

    def _still_told(self, node: Node, listed: Mapping[Kind, Listed | None]) -> list[Item]:
        """What of a deleted one counts on, unless the API has given a block of it to another."""
        nodes = listed[NODES]
        made, _ = self._items(NODES, nodes.served if nodes else "", node)
        if any(isinstance(item, Block) and self._told.holders(item.key) for item in made):
            self._roster.forget(node.metadata.name)
            return []
        return self._told.put(_place(NODES, node), made)[0]

    def _items(self, kind: Kind, served: str, found: Object) -> tuple[list[Item], list[str]]:
        """What of an object is told in this scope, and what of it cannot be read."""
        made, why = list[Item](), list[str]()
        try:
            if isinstance(found, Node):
                made, why = items.of_node(found, self._scope.networks, self._me)
            elif isinstance(found, Pod) and self._scope.endpoints:
                made = items.of_pod(found, self._scope.networks, self._me)
            if self._scope.policies:
                made.append(items.document_of(kind, served, found))
        except ValueError as error:
            why.append(f"{kind.called}/{found.metadata.namespace}/{found.metadata.name} in the store: {error}")
        return made, why

    def _next(self, streams: Streams) -> Change | None:
        """What changed; None where it takes another listing."""
        put, gone, refused = _Put(), _Gone(), list[str]()
        news, over = list[News](), list[str]()
        while not (news or over):
            if not self._scope.endpoints and not self._is_enough(self._scope.networks):
                return None
            news, over = self._heard(streams.wait(_PATIENCE)), [*self._roster.over()]
        for one in news:
            refused += [*one.refused, *([one.why] if one.why else [])]
            for found in one.put:
                self._take(one, found, put, gone, refused)
            for name in self._left(one):
                self._lose(one.kind, name, put, gone)
        for host in over:
            self._forget(host, put, gone)
        if self._is_too_narrow(news):
            return None
        self._revision += 1
        return Change(self._revision, tuple(put.values()), tuple(gone), tuple(refused))

    def _heard(self, news: Iterable[News]) -> list[News]:
        """What says something. Of whom no Node is told any more the own one is to be asked for."""
        found = list(news)
        if any(one.unheard and one.kind == NODES for one in found):
            self._saw(None)
        return [one for one in found if not one.unheard]

    def _take(self, news: News, found: Object, put: _Put, gone: _Gone, refused: list[str]) -> None:
        if isinstance(found, Node):
            self._roster.put(found)
            if found.metadata.name == self._me:
                self._saw(found)
        made, why = self._items(news.kind, news.served, found)
        refused += why
        for name in self._evicted(made):
            self._forget(name, put, gone)
        self._tell(_place(news.kind, found), made, put, gone)

    def _evicted(self, made: Iterable[Item]) -> set[str]:
        """Hosts that left, and whose blocks the API has given to another one."""
        blocks = [item.key for item in made if isinstance(item, Block)]
        names = {place[2] for key in blocks for place in self._told.holders(key)}
        return {name for name in names if self._roster.has_left(name)}

    def _left(self, news: News) -> Iterator[tuple[str, str]]:
        yield from news.gone
        if news.whole:
            there = {(one.metadata.namespace, one.metadata.name) for one in news.put}
            yield from ((place[1], place[2]) for place in self._told.places(news.kind.name) if place[1:] not in there)

    def _lose(self, kind: Kind, name: tuple[str, str], put: _Put, gone: _Gone) -> None:
        """Of a host that is deleted nothing is free yet: it may only be cut off, and its pods live."""
        if kind == NODES:
            self._roster.left(name[1])
            if name[1] == self._me:
                self._saw(None)
            return
        self._tell((kind.name, *name), (), put, gone)

    def _forget(self, name: str, put: _Put, gone: _Gone) -> None:
        self._roster.forget(name)
        self._tell((NODES.name, "", name), (), put, gone)

    def _tell(self, place: Place, made: Iterable[Item], put: _Put, gone: _Gone) -> None:
        """Have an object say this. A change says first what is gone: of what came and went in one, only that it went."""
        came, went = self._told.put(place, made)
        for key in went:
            put.pop(key, None)
            gone[key] = None
        for item in came:
            gone.pop(item.key, None)
            put[item.key] = item

    def _is_too_narrow(self, news: Iterable[News]) -> bool:
        """Whether what came takes another scope."""
        if self._scope.undocumented and any(one.whole for one in news):
            return True
        came = [one for one in news if one.put or one.gone]
        if not self._scope.policies and any(one.kind in POLICIES and one.put for one in came):
            return True
        if not any(one.kind == NODES for one in came):
            return False
        networks, _ = items.networks_of(self._roster, self._me)
        return tuple(networks) != self._scope.networks


def _place(kind: Kind, found: Object) -> Place:
    return kind.name, found.metadata.namespace, found.metadata.name
