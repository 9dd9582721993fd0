"""Networks, blocks and endpoints in etcd.

Whatever is said of a block compares the block's own revision. After an answer was lost the block is put again with what is
said next: what was on its way before cannot arrive any more then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cni.cluster.config import EtcdConfig
from cni.cluster.etcd.engine import Engine
from cni.cluster.etcd.gateway import MOST_OPERATIONS, Row, delete, is_at, is_empty, put
from cni.cluster.model import Alive, Block, Endpoint, Network
from cni.cluster.store import Session
from cni.errors import Conflict

#: Operations of a transaction of endpoints.
_MOST = MOST_OPERATIONS - 8


class Blocks(Engine):
    """Who has which addresses. See ClusterStore for each method."""

    def __init__(self, config: EtcdConfig, seconds: float) -> None:
        super().__init__(config, seconds)
        #: Since which revision a block is this host's, where that is known.
        self._since: dict[Block, int] = {}
        #: What this host was told of a network.
        self._declared: dict[str, Network] = {}

    def declare(self, session: Session, network: Network) -> Network:
        """See ClusterStore."""
        at, attempts = self.keys.of(network.key), self.attempts()
        while True:
            attempts.begin()
            places = self.keys.of((Alive.room, session.node.name)), at, self.keys.blocks(network.name)
            (alive, known, blocks) = self.gateway.look(*places, limit=1).rows
            self.unless_lost(session, alive[0] if alive else None)
            said, since = self.item(known[0]) if known else None, known[0].modified if known else 0
            if isinstance(said, Network) and (blocks or said == network):
                self._declared[network.name] = said
                return said
            empty = [is_empty(self.keys.blocks(network.name))] if isinstance(said, Network) else []
            if since := attempts.write(
                [self.lives(session), is_at(at, modified=since), *empty], [put(at, network.value)]
            ):
                self._declared[network.name] = network
                return network

    def claim(self, session: Session, block: Block) -> bool:
        """See ClusterStore."""
        begins, around = self.keys.overlapping(block)
        attempts = self.attempts()
        while True:
            attempts.begin()
            alive = self.keys.of((Alive.room, session.node.name))
            rows = self.gateway.look(alive, self.keys.of((Network.room, block.network)), begins, *around).rows
            self.unless_lost(session, rows[0][0] if rows[0] else None)
            as_seen = [self.lives(session), *self._as_declared(block.network, rows[1])]
            found = [row for some in rows[2:] for row in some]
            if (found and [self.item(row) for row in found] != [block]) or not block.is_of(session.node):
                return False
            if found:
                as_seen += [is_at(found[0].key, modified=found[0].modified)]
            else:
                as_seen += [is_empty(begins), *(is_at(larger, created=0) for larger in around)]
            if since := attempts.write(as_seen, [put(self.keys.of(block.key), block.value)]):
                self._since[block] = since
                return True

    def _as_declared(self, name: str, seen: list[Row]) -> list[dict[str, Any]]:
        """The comparison that a network is what this host was told. Raises Conflict."""
        if name not in self._declared:
            return []
        if not seen or self.item(seen[0]) != self._declared[name]:
            raise Conflict(f"the network {name} is another in the cluster by now: it is to be declared again")
        return [is_at(seen[0].key, modified=seen[0].modified)]

    def give_up(self, session: Session, block: Block) -> bool:
        """See ClusterStore."""
        if not block.is_of(session.node):
            return False
        self._since.pop(block, None)
        attempts = self.attempts()
        while True:
            attempts.begin()
            seen = self._seen(session, block)
            if not seen or self.item(seen) != block:
                return not seen
            as_seen = [self.lives(session), is_at(seen.key, modified=seen.modified)]
            if attempts.write(as_seen, [delete(seen.key), delete(self.keys.endpoints(block))]):
                return True

    def publish(self, session: Session, block: Block, there: Sequence[Endpoint], gone: Sequence[Endpoint]) -> bool:
        """See ClusterStore."""
        for endpoint in (*there, *gone):
            assert block.has(endpoint)
        if not block.is_of(session.node):  # what the store has there may be just so, and is another's to say
            return False
        said = [put(self.keys.of(endpoint.key), endpoint.value) for endpoint in there]
        said += [delete(self.keys.of(endpoint.key)) for endpoint in gone]
        some = [said[start : start + _MOST] for start in range(0, len(said), _MOST)] or [[]]
        return all(self._said(session, block, operations) for operations in some)

    def _said(self, session: Session, block: Block, operations: list[dict[str, Any]]) -> bool:
        """Whether a block is this host's, of which something is said then."""
        at, attempts = self.keys.of(block.key), self.attempts()
        while True:
            attempts.begin()
            known = since = self._since.get(block, 0)
            if not known:
                seen = self._seen(session, block)
                if not seen or self.item(seen) != block:
                    return False
                since = seen.modified
            again = [] if known else [put(at, block.value)]
            written = attempts.write([self.lives(session), is_at(at, modified=since)], [*again, *operations])
            if written:
                self._since[block] = known or written
                return True
            self._since.pop(block, None)

    def _seen(self, session: Session, block: Block) -> Row | None:
        """What is under a block's key. Raises SessionLost."""
        alive, seen = self.look((Alive.room, session.node.name), block.key)
        self.unless_lost(session, alive)
        return seen
