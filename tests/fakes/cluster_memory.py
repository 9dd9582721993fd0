"""A cluster's store in memory: the hosts of a test share one `Memory`, each by a `MemoryStore` of its own. It keeps
`cluster_contract`, as etcd does.
"""

from __future__ import annotations

import ipaddress
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from cni.cluster.document import Document
from cni.cluster.fields import Malformed
from cni.cluster.model import Alive, Block, Endpoint, Item, Key, Network, Node, read
from cni.cluster.store import Change, Listing, Session, Sparing
from cni.errors import Compacted, Conflict, NameTaken, Replaced, SessionLost, Unreachable

T = TypeVar("T")


class Lease(NamedTuple):
    """Until when something is, by the memory's clock, and for how long it was asked."""

    ends: float
    seconds: float


@dataclass
class Row:
    """What is under a key: JSON as text, since which revision, and with what end."""

    text: str
    created: int
    lease: Lease | None = None


class Memory:
    """What all hosts see, with a revision for each change."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.revision = 1
        self.rows: dict[Key, Row] = {}
        self._log: list[tuple[int, Key, bool]] = []
        self._forgotten = 0
        self._lives = 1
        self._ahead = 0.0
        #: By the fence of a session, when somebody spoke in it last.
        self.voices: dict[str, int] = {}

    def now(self) -> float:
        """The store's clock."""
        return time.monotonic() + self._ahead

    def pass_time(self, seconds: float) -> None:
        """Let the store's clock go on at once."""
        with self.changed:
            self._ahead += seconds
            self.expire()

    def compact(self) -> None:
        """Forget what changed until now: who watches has to begin anew."""
        with self.changed:
            self._forgotten, self._log = self.revision + 1, []
            self.changed.notify_all()

    def end_session(self, node: str) -> None:
        """A host's session ends, as if nothing had been heard of it."""
        with self.changed:
            self.write({}, [(Alive.room, node)])

    def put_text(self, key: Key, text: str) -> None:
        """Put under a key what no host would."""
        self.write({key: Row(text, 0)}, [])

    def backup(self) -> tuple[int, dict[Key, Row]]:
        """All there is, for `restore`."""
        with self.changed:
            return self.revision, dict(self.rows)

    def restore(self, backup: tuple[int, dict[Key, Row]]) -> None:
        """Be as at a `backup`; what happened since did not."""
        with self.changed:
            self.revision, self.rows = backup[0], dict(backup[1])
            self._log, self._forgotten, self._lives = [], self.revision + 1, self._lives + 1
            self.changed.notify_all()

    def write(self, put: dict[Key, Row], gone: Sequence[Key]) -> int:
        """Put and delete, as one revision."""
        with self.changed:
            self.revision += 1
            for key, row in put.items():
                before = self.rows.get(key)
                self.rows[key] = Row(row.text, before.created if before else self.revision, row.lease)
            for key in gone:
                self.rows.pop(key, None)
            self._log += [(self.revision, key, key in put) for key in (*put, *gone)]
            self.changed.notify_all()
            return self.revision

    def expire(self) -> None:
        """Take away what has ended by now."""
        ended = [key for key, row in self.rows.items() if row.lease and row.lease.ends <= self.now()]
        if ended:
            self.write({}, ended)

    def listing(self) -> Listing:
        """All there is now."""
        items, refused = _read({key: row.text for key, row in self.rows.items()})
        return Listing(self.revision, items, refused)

    def since(self, revision: int, life: int, hears: Callable[[Key], bool] = lambda _: True) -> Change:
        """What changed after a revision, of what somebody hears. Raises Compacted."""
        if life != self._lives:
            raise Replaced(f"it is another than at revision {revision}")
        if revision + 1 < self._forgotten:
            raise Compacted(f"what changed since revision {revision} is not known any more")
        heard = [(key, there) for at, key, there in self._log if at > revision and hears(key)]
        touched, left = dict.fromkeys(key for key, _ in heard), [key for key, there in heard if not there]
        items, refused = _read({key: self.rows[key].text for key in touched if key in self.rows})
        return Change(self.revision, items, tuple(dict.fromkeys(left)), refused)

    @property
    def life(self) -> int:
        """Another number after each `restore`."""
        return self._lives


def is_rest(key: Key) -> bool:
    """Whether a host hears of what is under a key that is sparing."""
    return key[0] != Endpoint.room


def spared(listing: Listing, sparing: Sparing) -> Listing:
    """What of a listing a host hears that is sparing."""
    own = sparing.own_blocks(listing.items)
    items = [item for item in listing.items if not isinstance(item, Endpoint) or any(_holds(it, item) for it in own)]
    return _heard(listing._replace(items=tuple(items)), sparing)


def _heard(listing: Listing, sparing: Sparing | None) -> Listing:
    return listing._replace(items=tuple(map(sparing.heard, listing.items))) if sparing else listing


def _read(rows: dict[Key, str]) -> tuple[tuple[Item, ...], tuple[str, ...]]:
    items, refused = [], []
    for key, text in rows.items():
        try:
            item = read(key, _parsed(text))
        except Malformed as error:
            refused.append(str(error))
        else:
            items += [item] if item else []
    return tuple(items), tuple(refused)


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


class MemoryStore:
    """One host's way to a `Memory`. `seconds` is how long its session lives unheard, `beat` how often `changes` says that
    nothing changed.

    While `cut` the host reaches nothing. Of so many `lost_answers` of the next writes nobody hears: they are done, and the
    host is told Unreachable. `asked` names every method that was called.
    """

    assigns = False

    def __init__(self, memory: Memory, seconds: float = 15.0, beat: float = 0.1) -> None:
        self.memory, self.seconds, self.beat = memory, seconds, beat
        self.cut = False
        self.lost_answers = 0
        self.asked: list[str] = []
        self._declared: dict[str, Network] = {}
        self._spoken: dict[str, int] = {}

    def reached_at(self, node: str) -> str:
        """See ClusterStore."""
        return ""

    def reconnect(self) -> None:
        """See ClusterStore: there are none."""

    def assigned(self, session: Session) -> tuple[str, ...] | None:
        """See ClusterStore."""

    def serves(self, session: Session) -> None:
        """See ClusterStore."""

    def join(self, me: Node, token: str) -> Session:
        """See ClusterStore."""
        deadline = None
        while True:
            with self._asked("join") as memory:
                known, alive = self._row(me.key), self._row((Alive.room, me.name))
                if known and json.loads(known.text)["machine"] != me.machine:
                    raise NameTaken(f"{me.name} is the name of another machine of the cluster")
                if not alive or json.loads(alive.text)["token"] == token:
                    return self._lost_or(self._begin(me, token))
                assert alive.lease
                deadline = deadline or memory.now() + alive.lease.seconds + 2 * self.beat
                if memory.now() > deadline:
                    raise NameTaken(f"{me.name} lives in the cluster already")
                memory.changed.wait(self.beat / 2)

    def _begin(self, me: Node, token: str) -> Session:
        life = Alive(me.name, token)
        lease = Lease(self.memory.now() + self.seconds, self.seconds)
        self.memory.write({life.key: Row(json.dumps(life.value), 0, lease), me.key: Row(json.dumps(me.value), 0)}, [])
        return Session(me, token, str(self.memory.rows[life.key].created), "memory", self.seconds)

    def renew(self, session: Session) -> None:
        """See ClusterStore."""
        with self._asked("renew") as memory:
            lease = Lease(memory.now() + session.seconds, session.seconds)
            self._alive(session).lease = lease
            self._lost_or(None)

    def speak(self, session: Session) -> None:
        """See ClusterStore."""
        with self._asked("speak") as memory:
            self._alive(session)
            said = memory.voices.get(session.fence)
            if self._spoken.get(session.fence, said) != said:
                raise NameTaken(
                    f"{session.node.name} lives in the cluster, and so does another machine with its memory"
                )
            memory.voices[session.fence] = self._spoken[session.fence] = memory.revision = memory.revision + 1
            self._lost_or(None)

    def announce(self, session: Session, me: Node) -> Session:
        """See ClusterStore."""
        with self._asked("announce") as memory:
            self._alive(session)
            if (row := self._row(me.key)) is None or json.loads(row.text) != me.value:
                memory.write({me.key: Row(json.dumps(me.value), 0)}, [])
            return self._lost_or(session._replace(node=me))

    def leave(self, session: Session) -> None:
        """See ClusterStore."""
        me = session.node
        with self._asked("leave") as memory:
            known, alive = self._row(me.key), self._row((Alive.room, me.name))
            other = known and json.loads(known.text)["machine"] != me.machine
            if other or (alive and str(alive.created) != session.fence):
                raise NameTaken(f"{me.name} is the name of another by now")
            self._free(lambda block: (block.node, block.machine) == (me.name, me.machine))
            memory.write({}, [key for key in (me.key, (Alive.room, me.name)) if key in memory.rows])
            self._lost_or(None)

    def remove(self, node: str) -> list[Block]:
        """See ClusterStore."""
        with self._asked("remove") as memory:
            if self._row((Alive.room, node)):
                raise NameTaken(f"{node} is alive")
            freed = self._free(lambda block: block.node == node)
            if self._row((Node.room, node)):
                memory.write({}, [(Node.room, node)])
            return self._lost_or(freed)

    def declare(self, session: Session, network: Network) -> Network:
        """See ClusterStore."""
        with self._asked("declare") as memory:
            self._alive(session)
            known = self._network(network.name)
            if known and any(block.network == network.name for block in self._blocks()):
                self._declared[network.name] = known
                return known
            if known != network:
                memory.write({network.key: Row(json.dumps(network.value), 0)}, [])
            self._declared[network.name] = network
            return self._lost_or(network)

    def claim(self, session: Session, block: Block) -> bool:
        """See ClusterStore."""
        with self._asked("claim") as memory:
            self._alive(session)
            declared = self._declared.get(block.network)
            if declared and declared != self._network(block.network):
                raise Conflict(f"the network {block.network} is another in the cluster by now")
            others = [other for other in self._blocks() if _overlap(other, block)]
            if not block.is_of(session.node):
                return False
            if not others:
                memory.write({block.key: Row(json.dumps(block.value), 0)}, [])
            return self._lost_or(not others or others == [block])

    def give_up(self, session: Session, block: Block) -> bool:
        """See ClusterStore."""
        with self._asked("give_up"):
            self._alive(session)
            there = self._row(block.key)
            if not block.is_of(session.node) or (there and json.loads(there.text) != block.value):
                return False
            self._free(lambda other: other == block)
            return self._lost_or(True)

    def publish(self, session: Session, block: Block, there: Sequence[Endpoint], gone: Sequence[Endpoint]) -> bool:
        """See ClusterStore."""
        assert all(_holds(block, endpoint) for endpoint in (*there, *gone))
        with self._asked("publish") as memory:
            self._alive(session)
            row = self._row(block.key)
            if not block.is_of(session.node) or not row or json.loads(row.text) != block.value:
                return False
            put = {endpoint.key: Row(json.dumps(endpoint.value), 0) for endpoint in there}
            memory.write(put, [endpoint.key for endpoint in gone if endpoint.key in memory.rows])
            return self._lost_or(True)

    def apply(self, documents: Sequence[Document]) -> int:
        """See ClusterStore."""
        with self._asked("apply") as memory:
            put = {item.key: Row(json.dumps(item.value), 0) for item in documents}
            put = {key: row for key, row in put.items() if not (there := self._row(key)) or there.text != row.text}
            memory.write(put, [])
            return self._lost_or(len(put))

    def delete(self, documents: Sequence[Key]) -> int:
        """See ClusterStore."""
        with self._asked("delete") as memory:
            there = [key for key in documents if key in memory.rows]
            memory.write({}, there)
            return self._lost_or(len(there))

    def listing(self) -> Listing:
        """See ClusterStore."""
        with self._asked("listing") as memory:
            return memory.listing()

    def changes(self, sparing: Sparing | None = None) -> Iterator[Listing | Change]:
        """See ClusterStore."""
        with self._asked("changes") as memory:
            seen, life = memory.listing(), memory.life
        spares = sparing is not None and sparing.is_enough(seen.items)
        yield spared(seen, sparing) if sparing and spares else _heard(seen, sparing)
        revision = seen.revision
        while True:
            with self._reached() as memory:
                if memory.revision == revision and memory.life == life:
                    memory.changed.wait(self.beat)
            with self._reached() as memory:
                change = memory.since(revision, life, is_rest if spares else lambda _: True)
                seen = memory.listing()
            revision = change.revision
            if sparing and spares and not sparing.is_enough(change.put):
                spares, revision = False, seen.revision
                yield _heard(seen, sparing)
            else:
                yield change._replace(put=tuple(map(sparing.heard, change.put))) if sparing else change

    def turn(self, session: Session, what: str, seconds: float) -> bool:
        """See ClusterStore."""
        with self._asked("turn") as memory:
            self._alive(session)
            key, mine = ("turn", what), json.dumps({"node": session.node.name, "token": session.token})
            row = self._row(key)
            if row and row.text != mine:
                return False
            memory.write({key: Row(mine, 0, Lease(memory.now() + seconds, seconds))}, [])
            return self._lost_or(True)

    def _asked(self, method: str) -> _Reached:
        self.asked.append(method)
        return self._reached()

    def _reached(self) -> _Reached:
        return _Reached(self)

    def _lost_or(self, answer: T) -> T:
        if self.lost_answers:
            self.lost_answers -= 1
            raise Unreachable("the store's answer was lost")
        return answer

    def _row(self, key: Key) -> Row | None:
        return self.memory.rows.get(key)

    def _alive(self, session: Session) -> Row:
        row = self._row((Alive.room, session.node.name))
        if not row or str(row.created) != session.fence:
            raise SessionLost(f"the session of {session.node.name} has ended")
        return row

    def _network(self, name: str) -> Network | None:
        row = self._row((Network.room, name))
        return Network.read((Network.room, name), json.loads(row.text)) if row else None

    def _blocks(self) -> list[Block]:
        return [item for item in self.memory.listing().items if isinstance(item, Block)]

    def _free(self, which: Callable[[Block], bool]) -> list[Block]:
        blocks = [block for block in self._blocks() if which(block)]
        within = [
            item.key
            for item in self.memory.listing().items
            if isinstance(item, Endpoint) and any(_holds(block, item) for block in blocks)
        ]
        if blocks:
            self.memory.write({}, [*within, *(block.key for block in blocks)])
        return blocks


class _Reached:
    """The memory, by one at a time; nobody who is cut off reaches it."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def __enter__(self) -> Memory:
        if self._store.cut:
            raise Unreachable("the store does not answer")
        self._store.memory.changed.acquire()
        self._store.memory.expire()
        return self._store.memory

    def __exit__(self, *error: object) -> None:
        self._store.memory.changed.release()


def _overlap(one: Block, other: Block) -> bool:
    same = one.network == other.network and one.addresses.version == other.addresses.version
    return same and one.addresses.overlaps(other.addresses)


def _holds(block: Block, endpoint: Endpoint) -> bool:
    return endpoint.network == block.network and ipaddress.ip_address(endpoint.address) in block.addresses
