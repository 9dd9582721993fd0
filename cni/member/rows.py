"""The rows of this host's kernel that are the member's: changed, compared with what is to be there, and mended."""

from __future__ import annotations

import errno
from collections import ChainMap, Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice, product
from typing import Any, NamedTuple, TypeVar
from weakref import WeakSet

from cni import engine
from cni.errors import CniError, KernelRefused
from cni.kernel.view import Link
from cni.member import figures
from cni.member.mending import state_of
from cni.overlay.peers import LOOPBACK, Peers
from cni.overlay.rows import ORDER, Changed, Table
from cni.resources import PeerRefusal, World
from cni.resources.remote import RemoteRow

#: Rows that are made into resources and requests at once: of 100,000 there is never more in memory than what they say.
_AT_ONCE = 1000

T = TypeVar("T")


class KernelRows:
    """Changes of them. What the kernel refuses is told to `refused`, and the rest is done. `links` are those that rows were seen on
    last, by index: name, and what of the link matters; `awaited` are the names of all that rows are for, seen or not. Another thread
    reads them: they are replaced, and never changed.
    """

    def __init__(self, world: World, refused: Callable[[CniError], None]) -> None:
        self._world, self._refused = world, refused
        self.links: dict[int, tuple[str, str]] = {}
        self.awaited: frozenset[str] = frozenset()
        self._compared = WeakSet[Peers]()

    def change(self, changed: Changed) -> int:
        """Have what is new before what is old goes, so that nothing that stays is missing meanwhile."""
        return self._ensure(changed.there) + self._remove(changed.gone)

    def leave(self, gone: Iterable[Peers], every: Collection[Peers]) -> None:
        """Have nothing of some networks any more where no other has a table; one that is another's too is compared."""
        left = by_table(every)
        rows = [row for peers in gone for row in peers.resources() if (type(row), row.link) not in left]
        self.change(Changed([], rows))

    def compare(self, every: Collection[Peers]) -> int:
        """Have in all tables what is to be there, and nothing else of ours: how many rows were mended, or, the first time, made."""
        count = sum(self._tried(self._compare, *table, wanted) for table, wanted in by_table(every).items())
        self._compared.update(every)
        return count

    def mend(self, tables: Mapping[Table, Mapping[str, Any]]) -> int:
        """Have rows again that somebody took away or made otherwise."""
        return sum(self._tried(self._mend_some, *table, rows) for table, rows in tables.items())

    def forget_links(self, every: Collection[Peers]) -> None:
        """Mind no link that no network has any more; one that is gone is minded, so that its coming is noticed."""
        names = {name for _, name in by_table(every)}
        self.links = {index: link for index, link in self.links.items() if link[0] in names}
        self.awaited = frozenset(names)

    def _tried(self, what: Callable[..., int], kind: type[RemoteRow], name: str, rows: object) -> int:
        """One table; where the kernel does not even say what is there, the others are done all the same."""
        try:
            return what(kind, name, rows)
        except CniError as error:
            self._refuse(error)
            return 0

    def _refuse(self, error: CniError) -> None:
        """A link that is gone, or goes, takes its rows with it, and is heard of."""
        if not (isinstance(error, KernelRefused) and error.errno in (errno.ENODEV, errno.ENETDOWN)):
            self._refused(error)

    def _mend_some(self, kind: type[RemoteRow], name: str, rows: Mapping[str, Any]) -> int:
        link = self._world.host.link_by_name(name)
        if link is None:
            return 0
        figures.MENDS.add(len(rows), kind=kind.kind)
        return self._mend(kind, link, [], list(rows), rows)

    def _compare(self, kind: type[RemoteRow], name: str, wanted: Wanted) -> int:
        """One table, if its link is there, and on a bridge or on none as was thought: else it is about to be heard of."""
        link = self._world.host.link_by_name(name)
        overlays = [peers.overlay for peers in wanted.of if peers.overlay.device == name]
        if link is None or any(bool(link.bridge) != bool(overlay.bridge) for overlay in overlays):
            return 0
        others = {index: known for index, known in self.links.items() if known[0] != name}
        self.links = others | {link.index: (name, state_of(link))}
        gone, missing = differing(self._world, kind, link, wanted.rows)
        count = self._mend(kind, link, gone, missing, wanted.rows)
        if count and self._compared.issuperset(wanted.of):
            figures.MENDS.add(count, kind=kind.kind)
        return count

    def _mend(
        self, kind: type[RemoteRow], link: Link, gone: list[RemoteRow], keys: Collection[str], wanted: Mapping[str, Any]
    ) -> int:
        """What is there may be in the way of what is to be, so it goes first."""
        self._remove([*gone, *kind.in_the_way(self._world, link, keys)])
        self._ensure(kind.of(link.name, key, wanted[key]) for key in keys)
        return len(gone) + len(keys)

    def _ensure(self, rows: Iterable[RemoteRow]) -> int:
        return sum(self._done(engine.apply, some, "put") for some in _parts(rows))

    def _remove(self, rows: Sequence[RemoteRow]) -> int:
        return sum(self._done(engine.remove, some[::-1], "taken") for some in _parts(reversed(rows)))

    def _done(self, what: Callable[[Sequence[RemoteRow], World], None], rows: list[RemoteRow], how: str) -> int:
        """One batch."""
        self._world.host.forget_seen()
        try:
            with self._world.host.batch():
                what(rows, self._world)
        except CniError as error:
            self._refuse(error)
        else:
            for kind, many in Counter(row.kind for row in rows).items():
                figures.CHANGES.add(many, kind=kind, change=how)
        return len(rows)


class Wanted(NamedTuple):
    """What is to be in a table, of some networks: they may have one device."""

    rows: Mapping[str, Any]
    of: tuple[Peers, ...]


def by_table(every: Collection[Peers]) -> dict[Table, Wanted]:
    """What is to be, in the order in which tables are filled; nothing is refused where there is no network."""
    found: dict[Table, list[Peers]] = {(PeerRefusal, LOOPBACK): []}
    for kind, peers in product(ORDER, every):
        for link in peers.links_of(kind):
            found.setdefault((kind, link), []).append(peers)
    rows = {table: [peers.tables.get(table, {}) for peers in of] for table, of in found.items()}
    return {
        table: Wanted(rows[table][0] if len(of) == 1 else ChainMap({}, *rows[table]), tuple(of))
        for table, of in found.items()
    }


def differing(
    world: World, kind: type[RemoteRow], link: Link, wanted: Mapping[str, Any]
) -> tuple[list[RemoteRow], list[str]]:
    """Of a table of ours, the rows that nobody wants, and the keys of those that are not there, or say something else. A link that
    is down has none to miss.
    """
    found: set[str] = set()
    gone: list[RemoteRow] = []
    for key, value in kind.found(world, link):
        if key not in wanted:
            gone.append(kind.of(link.name, key, value))
        elif wanted[key] == value:
            found.add(key)
    return gone, [key for key in wanted if key not in found] if link.up else []


def _parts(rows: Iterable[T]) -> Iterator[list[T]]:
    left = iter(rows)
    while some := list(islice(left, _AT_ONCE)):
        yield some
