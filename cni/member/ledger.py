"""Of the cluster, what this host's own doings go by: the networks, who has which block, and what is said of this host."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Lock

from cni.cluster.model import Alive, Block, Endpoint, Item, Key, Network, Node
from cni.cluster.store import Change, Listing
from cni.kernel.clock import boottime

#: After how many seconds without a word of the store it is not known any more who came and went.
_DEAF = 10.0


class Ledger:
    """What was heard so far, and what this host did meanwhile. It may lag behind the store, which every write asks again.

    `clock` is in seconds; nobody sets it, and it goes on while the host sleeps.
    """

    def __init__(self, me: str, clock: Callable[[], float] = boottime) -> None:
        self.me = me
        self._clock = clock
        self._lock = Lock()
        self._networks: dict[str, Network] = {}
        self._blocks: dict[str, dict[str, Block]] = {}
        self._own: dict[Key, Block] = {}
        self._endpoints: dict[Key, Endpoint] = {}
        self._expected: dict[Key, Endpoint | None] = {}
        self._nodes: dict[str, Node] = {}
        self._alive: set[str] = set()
        #: Since when nothing was heard of a host, while the store was; and when it was last.
        self._silent: dict[str, float] = {}
        self._heard_at = 0.0
        #: Counts what this host is to look at: listings, and changes of what is its own.
        self.news = 0
        self.listings = 0
        #: Counts changes of which hosts there are, and how they are reached.
        self.hosts = 0

    def heard(self, news: Listing | Change) -> None:
        """Know what is new; nothing may be, and it is known then that the store is heard."""
        with self._lock:
            now, before = self._clock(), self._heard_at
            self._heard_at = now
            if now - before > _DEAF:  # whoever came and went meanwhile was not seen
                self._silent = dict.fromkeys(self._silent, now)
            if isinstance(news, Listing):
                self._silent.clear()
                for known in (self._networks, self._blocks, self._own, self._endpoints, self._nodes, self._alive):
                    known.clear()
                self._put(news.items)
                self._silent = dict.fromkeys(self._nodes.keys() - self._alive, now)
                self.listings += 1
                self.hosts += 1
                self.news += 1
            elif self._take(news.gone) | self._put(news.put):
                self.news += 1

    def network(self, name: str) -> Network | None:
        """What the cluster says of a network."""
        with self._lock:
            return self._networks.get(name)

    def networks(self) -> list[Network]:
        """Every network of the cluster."""
        with self._lock:
            return list(self._networks.values())

    def is_lived_in(self, network: str) -> bool:
        """Whether another host has a block of a network, and is no guest there."""
        with self._lock:
            owners = {block.node for block in self._blocks.get(network, {}).values()} - {self.me}
            return any(name not in self._nodes or network not in self._nodes[name].guest_of for name in owners)

    def blocks(self, network: str) -> list[Block]:
        """Who has which block of a network."""
        with self._lock:
            return list(self._blocks.get(network, {}).values())

    def block(self, network: str, span: str) -> Block | None:
        """Who has a block."""
        with self._lock:
            return self._blocks.get(network, {}).get(span)

    def own_blocks(self, machine: str) -> list[Block]:
        """The blocks that are said to be this host's."""
        with self._lock:
            return [block for block in self._own.values() if block.machine == machine]

    def own_endpoints(self) -> list[Endpoint]:
        """The endpoints that are said to be this host's."""
        with self._lock:
            return list(self._endpoints.values())

    def nodes(self) -> list[Node] | None:
        """Every host, None before anything was heard."""
        with self._lock:
            return list(self._nodes.values()) if self.listings else None

    def others(self) -> list[Node]:
        """The other hosts that are alive, from the one after this one by name on, and around: all asking the first would be too many."""
        with self._lock:
            alive = sorted(self._nodes.keys() & self._alive - {self.me})
            around = [name for name in alive if name > self.me] + [name for name in alive if name < self.me]
            return [self._nodes[name] for name in around]

    def silent(self) -> list[tuple[Node, float]]:
        """The hosts nothing is heard of, and for how many seconds that was seen to be so; none while the store is not heard."""
        with self._lock:
            now = self._clock()
            if now - self._heard_at > _DEAF:
                return []
            return [(node, now - since) for name, since in self._silent.items() if (node := self._nodes.get(name))]

    @contextmanager
    def expecting(self, there: Iterable[Endpoint], gone: Iterable[Key]) -> Iterator[None]:
        """While this host says it of its endpoints the watch may tell it before the store has answered: that is no news."""
        expected = dict.fromkeys(gone) | {item.key: item for item in there}
        with self._lock:
            self._expected |= expected
        try:
            yield
        finally:
            with self._lock:
                for key in expected:
                    self._expected.pop(key, None)

    def note(self, put: Iterable[Item] = (), gone: Iterable[Key] = ()) -> None:
        """Know what this host itself has just done."""
        with self._lock:
            self._take(gone)
            self._put(put)

    def _put(self, items: Iterable[Item]) -> bool:
        """Whether any of it is of this host's."""
        ours = False
        for item in items:
            if isinstance(item, Block):
                ours |= self._put_block(item)
            elif isinstance(item, Endpoint):
                ours |= self._put_endpoint(item)
            elif isinstance(item, Network):
                ours |= self._networks.get(item.name) != item
                self._networks[item.name] = item
            elif isinstance(item, Node):
                self.hosts += self._nodes.get(item.name) != item
                self._nodes[item.name] = item
            elif isinstance(item, Alive):
                self._alive.add(item.node)
                self._silent.pop(item.node, None)
        return ours

    def _put_block(self, item: Block) -> bool:
        known = self._blocks.setdefault(item.network, {})
        before, known[item.span] = known.get(item.span), item
        if before == item:
            return False
        mine = self._take_own(item.key)
        if item.node == self.me:
            self._own[item.key] = item
        return mine or item.node == self.me

    def _take_own(self, key: Key) -> bool:
        """Whether a block was this host's; its endpoints went with it, of which it may not be told."""
        block = self._own.pop(key, None)
        for one in [it for it in self._endpoints.values() if block and block.has(it)]:
            del self._endpoints[one.key]
        return block is not None

    def _put_endpoint(self, item: Endpoint) -> bool:
        if item.node != self.me:
            return self._endpoints.pop(item.key, None) is not None
        before, self._endpoints[item.key] = self._endpoints.get(item.key), item
        return item not in (before, self._expected.get(item.key))

    def _take(self, keys: Iterable[Key]) -> bool:
        """Whether any of it was of this host's."""
        ours = False
        for key in keys:
            if key[0] == Block.room:
                self._blocks.get(key[1], {}).pop(key[2], None)
                ours |= self._take_own(key)
            elif key[0] == Endpoint.room:
                was_there = self._endpoints.pop(key, None) is not None
                ours |= was_there and self._expected.get(key, key) is not None
            elif key[0] == Network.room:
                ours |= self._networks.pop(key[1], None) is not None
            elif key[0] == Node.room:
                self.hosts += self._nodes.pop(key[1], None) is not None
            elif key[0] == Alive.room:
                self._alive.discard(key[1])
                self._silent[key[1]] = self._clock()
        return ours
