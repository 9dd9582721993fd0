"""What a store of a cluster can do, in the cluster's own words: engines are etcd, the Kubernetes API, and memory for tests.

One contract suite holds all of them to what is said here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import ClassVar, NamedTuple, Protocol

from cni.cluster.document import Document
from cni.cluster.model import Block, Endpoint, Item, Key, Network, Node


class Session(NamedTuple):
    """A host's time in the cluster, from `join` until nothing was heard of it for `seconds`. `fence` is what every write of it
    is compared with, `lease` what keeps it; both are the engine's own.
    """

    node: Node
    token: str
    fence: str
    lease: str
    seconds: float


class Listing(NamedTuple):
    """All there is at a revision. `refused` names what could not be read. `undocumented` is why there are no documents in it, though the
    cluster may have some; empty where these are all. `origin` is whose revisions these are, empty where they do not go on from one
    listing to the next; with `replaced` it is known that the store is not the one that was heard before, or an older copy of it.
    """

    revision: int
    items: tuple[Item, ...]
    refused: tuple[str, ...] = ()
    undocumented: str = ""
    origin: str = ""
    replaced: bool = False


class Change(NamedTuple):
    """What one revision, or several together, took away and then put."""

    revision: int
    put: tuple[Item, ...]
    gone: tuple[Key, ...]
    refused: tuple[str, ...] = ()


class Sparing(NamedTuple):
    """How a host does without what others say of their pods, of which there may be 500,000: it hears of endpoints only if it `needs`
    them for a network or a document of the store, or `besides` for what none says, and then of all; of others' not by which container.
    `me` is its own name.
    """

    me: str
    needs: Callable[[Network | Document], bool]
    besides: Callable[[], bool] = lambda: False

    def is_enough(self, items: Iterable[Item]) -> bool:
        """Whether it needs none for what there is."""
        return not (self.besides() or any(isinstance(item, Network | Document) and self.needs(item) for item in items))

    def heard(self, item: Item) -> Item:
        """What of an item it needs."""
        if isinstance(item, Endpoint) and item.node != self.me:
            return item.heard
        return item

    def own_blocks(self, items: Iterable[Item]) -> list[Block]:
        """Its own blocks among what there is."""
        return [item for item in items if isinstance(item, Block) and item.node == self.me]


class ClusterStore(Protocol):
    """Every method is bounded in time and raises Unreachable; none repeats a write whose answer was lost: it looks first.

    One object may be used by several threads. Where it `assigns` blocks nobody claims one or gives it up: it says which a host has.
    """

    assigns: ClassVar[bool]

    def reached_at(self, node: str) -> str:
        """By which address others reach a host of a name, as far as the store knows it of somebody else; empty where it does not."""

    def reconnect(self) -> None:
        """Ask by other connections from now on, also who waits for an answer now: those there were are of an address that is left. It
        waits for nothing.
        """

    def join(self, me: Node, token: str) -> Session:
        """Live under a name. `token` is the host's own for a boot: who comes back with it goes on with the session it had.
        Raises NameTaken where another machine has the name, or another life of this one is heard of for longer than a session.
        """

    def renew(self, session: Session) -> None:
        """Be heard of for another `seconds`. Raises SessionLost."""

    def speak(self, session: Session) -> None:
        """Say that this process is the one that lives in a session. Raises SessionLost, and NameTaken where somebody said so since:
        another machine goes on with the same session. Of several threads one is to speak.
        """

    def announce(self, session: Session, me: Node) -> Session:
        """Say what changed of the host; the session goes on. Raises SessionLost."""

    def leave(self, session: Session) -> None:
        """Be gone, with every block and endpoint of the host; of a lost session too. Raises NameTaken where another machine, or
        another life of this one, has the name by now: nothing goes then.
        """

    def remove(self, node: str) -> list[Block]:
        """Say for a host that is gone that it is: the blocks that were its own, now free. Nobody is to be alive under the name:
        Raises NameTaken.
        """

    def declare(self, session: Session, network: Network) -> Network:
        """What the cluster says of a network: what this host says, if it is the first, or nobody has a block of it any more.
        Raises SessionLost.
        """

    def claim(self, session: Session, block: Block) -> bool:
        """Have a block, also where it was one's own already. False: somebody else has it, or one that overlaps, or
        it says itself that it is another host's.
        Raises SessionLost, and Conflict where the network is another by now than this host was told.
        """

    def give_up(self, session: Session, block: Block) -> bool:
        """Have a block no more, and no endpoint in it. False: it is somebody else's. Raises SessionLost."""

    def publish(self, session: Session, block: Block, there: Sequence[Endpoint], gone: Sequence[Endpoint]) -> bool:
        """Say which endpoints of a block are there, and which are gone, any number of them. False: the block is not this
        host's, and nothing was said. Raises SessionLost.
        """

    def apply(self, documents: Sequence[Document]) -> int:
        """Have documents be as they are here, whoever said something else of them before: how many were others. Nobody has to be a
        host of the cluster for it.
        """

    def delete(self, documents: Sequence[Key]) -> int:
        """Have no documents of these keys: how many there were."""

    def listing(self) -> Listing:
        """All there is now."""

    def changes(self, sparing: Sparing | None = None) -> Iterator[Listing | Change]:
        """A Listing, and then what changes, as it does. Who is sparing is listed the endpoints in its own blocks, and told of none;
        when it needs them by what changes, that is a Listing again, with all of them. It ends by raising Unreachable, or Compacted (Replaced where it is another store by now), after which whoever wants
        to go on begins anew. A Change without anything in it says that the store is still heard of, every few seconds.
        """

    def assigned(self, session: Session) -> tuple[str, ...] | None:
        """The blocks that a host is given, of whatever network, as CIDRs; None where the store does not assign any. Raises SessionLost."""

    def serves(self, session: Session) -> None:
        """Say that the host can have pods, where somebody waits for that. Raises SessionLost."""

    def turn(self, session: Session, what: str, seconds: float) -> bool:
        """Whether a host is the one that does something for all, for so long; asked again in time, it stays. Raises SessionLost."""
