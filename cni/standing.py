"""Attachments that stand as they stood when nothing of them was to be mended: of those a refresh does not ask again what costs much.

What it found then holds as long as what it went by is what it was: the record and the release, the feed's documents, and what the
kernel has of their rules. Whatever is otherwise has an attachment looked at in full, so to forget all of it is harmless.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

from cni import __version__, engine
from cni.errors import CniError
from cni.kernel import inventory, netfilter
from cni.kernel.netns import Netns, home_identity
from cni.naming import Attachment, digest_of
from cni.node import Node, beside_calls
from cni.policy.feeds import book_of
from cni.policy.known import KnownBook
from cni.policy.peering import Peering
from cni.protocol.result import Result
from cni.resources import Difference, Gate, Resource, World
from cni.state import Store, owners_on_node
from cni.state.documents import Documents
from cni.state.far import far_revision
from cni.state.records import resources_of, spelled
from cni.state.standing import Judged, Key, Stood


@contextmanager
def standing(*, keep: bool) -> Iterator[Standing]:
    """For one look at attachments; with `keep` what it finds is known from then on. Within `feeds.reading_once`."""
    with ExitStack() as held:
        found = Standing(held)
        yield found
        if keep:
            found.keep()


class Before(NamedTuple):
    """What told an attachment's rules from others before they were looked at, and the `revision` of its feed: both only grow older."""

    rules: str
    feed: str
    revision: int


class Look:
    """At one attachment after the other: what they share is compared once, as long as nothing of it is amiss, and a table listed once."""

    def __init__(self) -> None:
        self._fine: set[Resource] = set()
        self._chains = netfilter.Chains()

    def differences(self, resources: Iterable[Resource], world: World, *, again: bool = False) -> list[Difference]:
        """How rules differ from what the kernel has; `again` where they are others than when the look began, as may be what was seen."""
        asked = [item for item in resources if item not in self._fine]
        found: list[Difference] = []
        for chains in (self._chains, *([netfilter.Chains()] if again else [])):
            with chains:
                found = engine.differences(asked, world, Result())
            if not found:
                break
        amiss = {item.resource for item in found}
        self._fine |= {item for item in asked if item.shared and item not in amiss}
        return found

    def mended(self, resources: Iterable[Resource]) -> None:
        """What they share is as it should be by now, whatever was listed before."""
        self._fine |= {item for item in resources if item.shared}


class Standing(Look):
    """A look that goes by what those before it found, and is known itself by those after it."""

    def __init__(self, held: ExitStack) -> None:
        super().__init__()
        self._held = held
        with closing(Documents.reading()) as documents:
            self._known, self._as_of = documents.stood()
            self._judged = documents.judged()
        self._judged_anew: dict[str, Judged] = {}
        self._found: dict[Key, Stood] = {}
        self._still: set[Key] = set()
        self._fine_together: set[str] = set()

    def stands(self, store: Store, attachment: Attachment, plugin: str, record: str) -> Stood | None:
        """What is known of an attachment of a folder whose record this tells from others, if it needs nothing now either."""
        key, _ = _key(store, attachment, plugin), self._began
        known = self._known.get(key)
        if known is None or known.record != _of_release(record):
            return None
        try:
            self._world.peers = lambda: Peering(store, None)
            if not self._is_as_it_was(known):
                return None
        except CniError:  # who looks at it in full says so
            return None
        self._still.add(key)
        return known

    def _is_as_it_was(self, known: Stood) -> bool:
        if known.feed and book_of(known.feed).revision != known.revision:
            return False
        if not self._unchanged and inventory.digest(known.names) != known.rules:
            return False
        if any(self._index(name) != index for name, index in known.links.items()):
            return False
        netns = Netns.if_there(known.netns)
        if netns is None:
            return False
        with closing(netns), self._world.beside(netns) as world:
            return (
                netns.identity == known.netns_id
                and not any(True for item in resources_of(known.own) or () for _ in item.besides(world))
                and self._is_fine(known.shared, world)
                and (self._unchanged or self._is_fine(known.by_rules, world))
            )

    def _is_fine(self, shared: str, world: World) -> bool:
        """Whether what is shared is as it should be; many attachments share the same."""
        if shared not in self._fine_together:
            if self.differences(resources_of(shared) or (), world):
                return False
            self._fine_together.add(shared)
        return True

    def remember(self, node: Node, resources: Sequence[Resource], before: Before) -> None:
        """Know an attachment that needed nothing, if its rules are still what they were before that was seen; not where any rule of the
        node became another during this look, for some chains may have been listed before.
        """
        record = node.record
        if inventory.generation() != self._generation:
            return
        if record is None or not record.netns_id or node.world.netns is None or _digest(resources) != before.rules:
            return
        links = {item.link: self._index(item.link) for item in resources if isinstance(item, Gate)}
        self._found[_key(node.store, record.attachment, record.plugin)] = Stood(
            _of_release(node.store.digest(record.attachment, record.plugin)), before.rules, list(_names(resources)),
            before.feed, before.revision, record.netns, record.netns_id, links,
            spelled([item.beside_rules for item in resources if not item.shared and item.beside_rules]),
            spelled([item for item in resources if item.shared and not item.goes_by]),
            spelled([item for item in resources if item.shared and item.goes_by]),
        )  # fmt: skip

    def faults_of(self, book: KnownBook) -> list[str]:
        """What is wrong with what a feed says; its policies are judged once as long as they are what they were."""
        known = self._judged.get(book.feed)
        if known is None or known[:2] != (_release(), book.revision):
            known = self._judged_anew[book.feed] = Judged(_release(), book.revision, book.wrong())
        return [*book.unread, *known.faults]

    def keep(self) -> None:
        """Have the next look know what this one found."""
        if self._judged_anew:
            with closing(Documents.open()) as documents:
                documents.judge(self._judged_anew)
        gone = self._known.keys() - self._still - self._found.keys()
        as_of = self._began if self._found or self._still else ""
        as_of = as_of if as_of == _now() else ""
        if self._found or gone or as_of != self._as_of:
            with closing(Documents.open()) as documents:
                documents.stand(self._found, gone, as_of)

    @cached_property
    def _unchanged(self) -> bool:
        """Whether no rule of the node, and no address, became another since all that is known was so."""
        return self._began == self._as_of

    @cached_property
    def _began(self) -> str:
        return _now()

    @property
    def _generation(self) -> str:
        return self._began.split(" ")[1]

    @cached_property
    def _world(self) -> World:
        world = self._held.enter_context(beside_calls())
        world.current = world.at_once = True
        return world

    def _index(self, link: str) -> int:
        found = self._world.host.link_ref(link)
        return found.index if found else 0


def before(resources: Iterable[Resource], feed: str) -> Before:
    """What is to be seen before an attachment is looked at, that goes by a feed or none."""
    try:
        revision = book_of(feed).revision if feed else 0
    except CniError:  # who asks what it says is told
        revision = -1
    return Before(_digest(resources), feed, revision)


def _digest(resources: Iterable[Resource]) -> str:
    return inventory.digest(_names(resources))


def _key(store: Store, attachment: Attachment, plugin: str) -> Key:
    return (str(store.path.parent), *attachment, plugin)


def _now() -> str:
    """What is another when a rule of the node became another, or whose an address is."""
    owners = digest_of(repr((sorted(owners_on_node().items()), far_revision())))
    return f"{home_identity()} {inventory.generation()} {owners}"


def _names(resources: Iterable[Resource]) -> dict[str, None]:
    return dict.fromkeys(name for item in resources if not item.shared for name in item.goes_by)


def _of_release(record: str) -> str:
    return f"{_release()} {record}"


@cache
def _release() -> str:
    """Another release, or another copy of this one, may want something else."""
    own = Path(__file__).stat()
    return f"{__version__} {own.st_ino} {own.st_mtime_ns}"
