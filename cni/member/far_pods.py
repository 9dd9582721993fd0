"""Whose addresses other hosts' endpoints are: known for all calls of the node, and put into the sets of who selects these pods."""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from cni.cluster.model import Endpoint, Key, Network
from cni.cluster.store import Change, Listing
from cni.member.elements import Elements, fill_sets, put_in_sets
from cni.policy.effects import Effects, said_of_pods
from cni.policy.known import KnownBook
from cni.resources import World
from cni.state.documents import Documents
from cni.state.elsewhere import Far, Spot

#: Pods beyond which sets are filled as a whole.
_MANY = 200


class _News(NamedTuple):
    """Addresses that somebody elsewhere has, and those nobody has there any more; `whole` if there are no others."""

    there: dict[Spot, Far]
    gone: list[Spot]
    whole: bool


class FarPods:
    """What is heard of them. This host's own are told by its attachments."""

    def __init__(self, me: str) -> None:
        self._me = me
        self._networks: dict[str, Network] = {}
        self._news: deque[_News] = deque()
        #: What was written, and as of when: of that file nobody else writes it.
        self._there: dict[Spot, Far] = {}
        self._revision = -1

    def heard(self, news: Listing | Change) -> None:
        """Know it in the next `keep`. What a store has lost with its memory stays: the hosts say it again, or are gone."""
        put = news.items if isinstance(news, Listing) else news.put
        gone: Iterable[Key] = () if isinstance(news, Listing) else news.gone
        self._networks |= {item.name: item for item in put if isinstance(item, Network)}
        endpoints = [item for item in put if isinstance(item, Endpoint)]
        there = {(item.address, item.network): self._far(item) for item in endpoints if self._is_a_pod_elsewhere(item)}
        left = [(key[2], key[1]) for key in gone if key[0] == Endpoint.room and len(key) == 3]
        left += [(item.address, item.network) for item in endpoints]
        whole = isinstance(news, Listing) and not news.replaced
        if whole or there or left:
            self._news.append(_News(there, [spot for spot in left if spot not in there], whole))

    def keep(self, documents: Documents, books: Mapping[str, KnownBook], world: World, folder: Path) -> list[Elements]:
        """Have what was heard be known, and in the sets; what was known before too, where the file is another one by now. Raises
        CniError, with what it is known by kept.
        """
        found: list[Elements] = []
        if self._revision < 0:
            self._there, self._revision = documents.far(), documents.far_revision()
        if self._revision != documents.far_revision():
            self._news.appendleft(_News(dict(self._there), [], whole=True))
        while self._news:
            news = self._news[0]
            effects, pods = _known(documents, news, books)
            self._news.popleft()
            if news.whole:
                self._there = {}
            for spot in news.gone:
                self._there.pop(spot, None)
            self._there |= news.there
            self._revision = documents.far_revision()
            if pods > _MANY:
                found.append(fill_sets(world, folder))
            else:
                found += (put_in_sets(world, folder, one) for one in effects)
        return found

    def _is_a_pod_elsewhere(self, item: Endpoint) -> bool:
        return item.node != self._me and item.pod.count("/") == 1

    def _far(self, item: Endpoint) -> Far:
        network = self._networks.get(item.network)
        pool = network.pool_of(ipaddress.ip_address(item.address)) if network else None
        namespace, _, name = item.pod.partition("/")
        return Far(namespace, name, pool.subnet if pool else "")


def _known(documents: Documents, news: _News, books: Mapping[str, KnownBook]) -> tuple[list[Effects], int]:
    """Write what is otherwise than it was known: what that touches in each feed, and of how many pods it is."""
    known = documents.far(None if news.whole else [*news.there, *news.gone])
    changed = {spot: far for spot, far in news.there.items() if known.get(spot) != far}
    gone = (known.keys() - news.there.keys()) if news.whole else known.keys() & set(news.gone)
    fars = [*changed.values(), *(known[spot] for spot in {*changed, *gone} if spot in known)]
    pods = {(far.namespace, far.name) for far in fars}
    if not pods:
        return [], 0
    few = pods if len(pods) <= _MANY else set()
    spots = {*changed, *gone} if few else set()
    # whose object says that one of these is theirs has it no more, or again
    touched = {feed: few.union(book.claiming(address for address, _ in spots)) for feed, book in books.items()}
    before = {feed: said_of_pods(book.anew(), touched[feed]) for feed, book in books.items()}
    with documents.transaction():
        documents.put_far(changed, gone)
    found = [Effects(book, before[feed], said_of_pods(book.anew(), touched[feed])) for feed, book in books.items()]
    return found, len(pods) if books else 0
