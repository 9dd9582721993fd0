"""Whom policies select, as the state and the feeds say now: what elements the sets of peers are to have.

Whose an address is says the record of a live attachment, of whatever folder of this node, and what is in force the records of
those who use it; both are written before the kernel is asked. So who looks in his turn misses nobody who had his before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from itertools import chain

from cni.errors import InvalidConfig, TryAgainLater
from cni.naming import peer_set
from cni.policy.feeds import latest
from cni.policy.known import KnownBook
from cni.policy.objects import Pod
from cni.policy.selection import Selection
from cni.state import Record, Store


class Peering:
    """What can be known in one turn; `record` is the attachment's whose call it is."""

    def __init__(self, store: Store, record: Record | None) -> None:
        self._store = store
        self._record = record
        self._books: dict[str, KnownBook | None] = {}
        self._at: dict[tuple[str, tuple[str, ...], bool], tuple[Pod, ...]] = {}

    def members(self, selection: str, family: int) -> frozenset[bytes] | None:
        """The elements a selection's set is to have; None where its feed could never be read, and what there is stays."""
        chosen = selection_of(selection)
        book = self._book(chosen.feed) if chosen else None
        return chosen.members(book, family) if chosen and book else None

    def entries(
        self, addresses: Iterable[str], among: Iterable[tuple[str, int]] | None = None
    ) -> dict[str, frozenset[bytes]]:
        """Of each set of the node that somebody uses, by name, the elements it is to have of these addresses; `among` some in force."""
        wanted = tuple(addresses)
        return {
            peer_set(text, family, ports=chosen.port is not None): frozenset(self._of(chosen, wanted, family))
            for text, family in (self.in_force if among is None else among)
            for chosen in filter(None, [selection_of(text)])
        }

    def _of(self, chosen: Selection, addresses: tuple[str, ...], family: int) -> Iterator[bytes]:
        book = self._book(chosen.feed)
        for pod in self._pods_at(book, addresses, doubt=bool(chosen.doubt)) if book else ():
            if book and chosen.selects(pod, book.labels_of):
                yield from chosen.elements(pod, [text for text in pod.addresses if text in addresses], family)

    def _pods_at(self, book: KnownBook, addresses: tuple[str, ...], *, doubt: bool) -> tuple[Pod, ...]:
        """The pods of a feed that have one of these addresses: the attachment's own, as long as they are its; with a `doubt`, of those without an object too."""
        key = book.feed, addresses, doubt
        if key not in self._at:
            namespace, _, name = self._record.pod.partition("/") if self._record else ("", "", "")
            if self._record and self._store.has(self._record, addresses):
                found: Iterable[Pod] = [book.pod_or_unknown(namespace, name)] if name else []
            else:
                known = book.pods_at(addresses)
                others = book.unknown_pods() if doubt else ()
                found = chain(known, (pod for pod in others if not set(addresses).isdisjoint(pod.addresses)))
            self._at[key] = tuple(found)
        return self._at[key]

    def _book(self, feed: str) -> KnownBook | None:
        if feed not in self._books:
            try:
                self._books[feed] = latest(feed)
            except (InvalidConfig, TryAgainLater):
                self._books[feed] = None
        return self._books[feed]

    @cached_property
    def in_force(self) -> list[tuple[str, int]]:
        """The selections that sets on the host stand for, as they are spelled, each of a family."""
        return list(dict.fromkeys((text, int(family)) for text, family, netns in self._in_use if not netns))

    @property
    def in_pods(self) -> dict[str, set[str]]:
        """Those that sets in pods stand for, each with the namespaces it is in."""
        found: dict[str, set[str]] = {}
        for text, _, netns in self._in_use:
            if netns:
                found.setdefault(text, set()).add(netns)
        return found

    @cached_property
    def _in_use(self) -> list[list[str]]:
        return [text.rsplit(" ", 2) for text in self._store.sets_in_use()]


@lru_cache(maxsize=4096)
def selection_of(text: str) -> Selection | None:
    """A recorded selection; None for what is none of ours: one odd record is not the whole node's."""
    try:
        return Selection.read(text)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
