"""Policies kept as their feeds say: what a change of documents touches is changed in the kernel, and nothing else.

A thread waits for folders; the hand does the rest, a bounded part at a time. What was done is known by the revision of the
book that is kept here for each feed: whoever read a change first, the difference to that book is what is to be done.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from cni.cluster.document import Document as Said
from cni.cluster.model import Key
from cni.cluster.store import Change, Listing
from cni.errors import CniError, KernelRefused
from cni.kernel.inotify import Folders, Noticed
from cni.kernel.locks import LockFile
from cni.member.backoff import Backoff
from cni.member.elements import Elements, inside
from cni.member.far_pods import FarPods
from cni.member.following import Following, place_of
from cni.member.inside import Inside
from cni.member.trouble import Trouble
from cni.naming import CLUSTER
from cni.policy import feeds
from cni.policy.cluster_feed import AsOf, told
from cni.policy.effects import Effects, said, said_of_pods
from cni.policy.known import KnownBook
from cni.resources import World
from cni.state.documents import Documents
from cni.state.fed import Fed
from cni.state.uses import node_lock

#: Seconds: between two looks at folders where the kernel watches none, and at folders that are not there.
_LEAST, _WATCHED = 1.0, 0.5
#: How many attachments' rules are one transaction at most: a second's work of the hand, which others wait for.
_TOGETHER = 250
_SOON = 0.05
#: For how many seconds a folder is known that nobody is fed from.
_KEPT = 3600.0


class Policies:
    """What this host's attachments follow. `look` is the hand's, `watch` a thread's; nothing raises a CniError."""

    def __init__(self, folder: Path, wake: Callable[[], None], me: str = "") -> None:
        self._folder, self._wake = folder, wake
        self._world = World(None, LockFile(node_lock()))
        self._noticed: deque[Noticed] = deque()
        self._told: deque[tuple[dict[str, tuple[str, Any]], list[str], bool, AsOf]] = deque()
        #: All that the cluster's store says by now, for a file of documents that is lost: nobody says it again.
        self._cluster: dict[str, tuple[str, Any]] | None = None
        self._origin = ""
        self._following = Following(folder)
        self._books: dict[str, KnownBook] = {}
        self._due: dict[Fed, None] = {}
        #: What sets are to hold by now, and do not yet.
        self._elements: list[Elements] = []
        self._failed = Backoff[Fed]()
        self._inside = Inside()
        #: Whose each address of this node was, when pods that have sets of their own were looked at last.
        self._owners: Mapping[str, str] | None = None
        self._far = FarPods(me)
        #: Since when nobody is fed from a folder of which something is known.
        self._idle: dict[str, float] = {}
        #: Counts what was changed in the kernel: elements of sets, and attachments' rules.
        self.done = 0
        self._trouble = Trouble("policies")

    def heard(self, news: Listing | Change) -> None:
        """Know what the cluster's documents are, and where its pods, in the next `look`; where it cannot be known now, what was known
        counts.
        """
        self._far.heard(news)
        if isinstance(news, Listing) and news.undocumented:
            return
        whole = isinstance(news, Listing)
        put = [item for item in (news.items if isinstance(news, Listing) else news.put) if isinstance(item, Said)]
        gone = [] if isinstance(news, Listing) else [key for key in news.gone if key[0] == Said.room]
        if isinstance(news, Listing):
            self._origin = news.origin
        as_of = AsOf(self._origin, news.revision, isinstance(news, Listing) and news.replaced)
        if whole or put or gone:
            there = {_source(item.key): (f"{item.kind} {item.namespace}/{item.name}", item.value) for item in put}
            left = [_source(key) for key in gone]
            self._told.append((there, left, whole, as_of))
            if whole and not as_of.replaced:
                self._cluster = {}
            if self._cluster is not None:
                self._cluster = {name: said for name, said in self._cluster.items() if name not in left} | there

    def watch(self) -> None:
        """Wait for what happens to folders that attachments are fed from, for ever; where the kernel watches no more, look."""
        blind = Trouble("inotify")
        while True:
            try:
                with closing(Folders()) as folders:
                    while True:
                        self._notice([*map(Noticed, folders.watch(self._following.folders)), *folders.wait(_WATCHED)])
                        blind.over()
            except KernelRefused as error:
                blind.is_so(f"{error.msg}: folders are looked at instead, every {_LEAST:g} s")
                self._notice([*map(Noticed, self._following.folders)])
                time.sleep(_LEAST)

    def _notice(self, found: Iterable[Noticed]) -> None:
        before = len(self._noticed)
        self._noticed.extend(found)
        if len(self._noticed) > before:
            self._wake()

    @property
    def owed(self) -> float:
        """Seconds until `look` is to be called for what is still to be done; infinity where that is nothing."""
        return _SOON if self._due else min(self._failed.owed, self._inside.owed)

    def look(self, *, compares: bool = False) -> None:
        """Do what there is to do; `compares` whole folders."""
        try:
            with feeds.going_by_what_is_known():
                self._look(compares=compares)
        except CniError as error:
            self._trouble.is_so(error.msg)
        else:
            if self._failed.owed == self._inside.owed == math.inf:
                self._trouble.over()

    def _look(self, *, compares: bool) -> None:
        new, troubles = self._following.ask(at_once=bool(self._noticed))
        self._due |= dict.fromkeys(new)
        self._books = {feed: book for feed, book in self._books.items() if feed in self._following.fed}
        names = self._names()
        self._due |= self._failed.due(all_of_it=compares)
        with closing(Documents.open()) as documents:
            while self._told:
                there, gone, whole, as_of = self._told[0]
                told(documents, there, gone, whole=whole, as_of=as_of)
                self._told.popleft()
            if self._cluster is not None and not documents.feed(CLUSTER).whole:
                told(documents, self._cluster, whole=True)
            try:
                self._put(self._far.keep(documents, self._books, self._world, self._folder))
            except CniError as error:
                troubles.append(error)
                self._books.clear()
            for feed in self._following.fed:
                try:
                    if compares or feed in names:
                        feeds.follow(documents, feed, None if compares else names[feed])
                    self._elements += self._gone_on(documents, feed)
                except CniError as error:
                    troubles.append(error)
                    if feed in names:
                        self._noticed.append(Noticed(place_of(feed)))
            self._follow_owners()
            if compares:
                self._forget(documents)
        troubles += self._hold()
        changed, failed = self._inside.look(all_of_it=compares)
        self.done += changed
        troubles += failed
        if troubles:
            raise troubles[0]

    def are_from_folders(self) -> bool:
        """Whether any is fed by a folder: of what its documents say of pods the cluster's store knows nothing."""
        return bool(self._following.folders)

    def _names(self) -> dict[str, list[str] | None]:
        """The files of each feed that were noticed; None where it is to be looked at as a whole."""
        found: dict[str, list[str] | None] = {}
        for folder, name in [self._noticed.popleft() for _ in range(len(self._noticed))]:
            known = found.setdefault(f"folder {folder}", [])
            if not name or name.startswith(".."):  # what all files are links into, as kubelet has them
                found[f"folder {folder}"] = None
            elif known is not None:
                known.append(name)
        return found

    def _gone_on(self, documents: Documents, feed: str) -> Iterator[Elements]:
        """Go on to what the feed's documents are by now: what sets are to hold then. Where it is not known what was done of it before, or
        that was refused halfway, begin with it.
        """
        book, now = self._books.get(feed), documents.feed(feed)
        if not now.whole or (book and book.revision == now.revision):
            return
        self._books.pop(feed, None)
        changed = documents.since(feed, book.revision) if book and book.revision < now.revision else None
        if book is None or changed is None:
            book = feeds.read_on(documents, feed, {})
            self._due |= dict.fromkeys(item for items in self._following.fed[feed].values() for item in items)
            yield Elements(self._folder)
        else:
            before = said(book.anew(), changed)
            book.heard(now.revision, changed, documents.faults(feed))
            effects = Effects(book, before, said(book, changed))
            self._due |= dict.fromkeys(self._concerned(feed, effects))
            if effects.pods:
                yield Elements(self._folder, effects)
        self._books[feed] = book

    def _put(self, found: Iterable[Elements]) -> None:
        """Count what came and went, and have those follow whose own sets may be to hold others."""
        for elements in found:
            self.done += elements.count
            self._have_follow(elements.inside)

    def _have_follow(self, places: Collection[str]) -> None:
        """Have those follow that have sets of their own in some namespaces."""
        self._inside.add([item for item in self._inside.known if item.netns_id in places])

    def _follow_owners(self) -> None:
        """Have pods' own sets know who came to this host and went, which calls tell the host's alone."""
        if not self._inside.known:
            self._owners = None
            return
        before, now = self._owners, feeds.owners()
        self._owners = now
        if before is None:  # who came while they were looked at first?
            self._inside.add(list(self._inside.known))
        if before is None or now is before:
            return
        others = (one for address in {*before, *now} for one in (before.get(address), now.get(address))
                  if before.get(address) != now.get(address))  # fmt: skip
        names = {(space, name) for space, _, name in (one.partition("/") for one in others if one)}
        for book in self._books.values():
            said = said_of_pods(book.anew(), names)
            self._have_follow(inside(self._folder, Effects(book, said, said)))

    def _forget(self, documents: Documents) -> None:
        """Know nothing more of folders that nobody was fed from for long: their networks are gone, and whose is not reads its again."""
        spaces = (space for space in self._following.fed.values())
        self._inside.keep(item for space in spaces for items in space.values() for item in items)
        now = time.monotonic()
        idle = [feed for feed in documents.folders() if feed not in self._following.fed]
        self._idle = {feed: self._idle.get(feed, now) for feed in idle}
        for feed in [feed for feed, since in self._idle.items() if now - since > _KEPT]:
            with documents.turn(feed), documents.transaction():
                documents.forget(feed)

    def _concerned(self, feed: str, effects: Effects) -> Iterator[Fed]:
        fed = self._following.fed[feed]
        for namespace in fed if effects.namespaces is None else effects.namespaces:
            for item in fed.get(namespace, ()):
                if effects.concerns_rules(namespace, item.pod.partition("/")[2]):
                    yield item

    def _hold(self) -> list[CniError]:
        """Have attachments' rules be those of now, those that are due in one transaction as far as there are not too many, and in it what
        sets are to hold; and why some cannot. One that a call is at comes again.
        """
        some = list(self._due)[:_TOGETHER]
        if not some and not self._elements:
            return []
        from cni import together  # of no use where nobody is fed

        found = together.follow(some, self._elements)
        self._put(self._elements)
        self._elements.clear()
        if found.besides:
            self._books.clear()
        for item in some:
            del self._due[item]
        self._due |= dict.fromkeys(found.again)
        self._inside.add(found.inside)
        self.done += len(found.changed)
        for item in found.failed:
            self._failed.failed(item)
        for item in set(some).difference(found.failed, found.again):
            self._failed.over(item)
        return [*found.failed.values(), *([found.besides] if found.besides else [])]


def _source(key: Key) -> str:
    """What a document of the cluster is called as a part of its feed."""
    return " ".join(key[1:])
