"""Feeds followed: what of one is otherwise than when it was read last is read, and what cannot be read stays as it was then.

A document changes for all networks and calls of a node at once, in one transaction of `documents.db`. Nobody is let in by half
of a feed: before all of it could be read at one time, it is no feed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

from cni.errors import InvalidConfig, TryAgainLater
from cni.naming import CLUSTER, digest_of
from cni.policy import folder
from cni.policy.known import KnownBook, object_of
from cni.policy.manifest import Item, refuse_two_meanings
from cni.state import Owners
from cni.state.documents import Document, Documents, Feed, Source


class _Opened(NamedTuple):
    """The books that were opened within `reading_once`, by feed, or why there is none."""

    keep: bool
    books: dict[str, KnownBook | InvalidConfig]


#: The books this process read, which go on with their feeds.
_kept: dict[str, KnownBook] = {}
_MOST_BOOKS = 4
_owners = Owners()
#: None where every `book_of` looks again.
_opened: ContextVar[_Opened | None] = ContextVar("_opened", default=None)
#: Whether `book_of` says what is known, without a look.
_going_by: ContextVar[bool] = ContextVar("_going_by", default=False)


@contextmanager
def reading_once(*, keep: bool = False) -> Iterator[None]:
    """Within it each feed is looked at once; with `keep` it is known from now on, else nothing is changed."""
    token = _opened.set(_Opened(keep, {}))
    try:
        yield
    finally:
        _opened.reset(token)


@contextmanager
def going_by_what_is_known() -> Iterator[None]:
    """Within it nobody looks at a feed that could ever be read: what is known of it by now counts."""
    token = _going_by.set(True)
    try:
        yield
    finally:
        _going_by.reset(token)


def book_of(feed: str, *, keep: bool = True) -> KnownBook:
    """What a feed says now; with `keep` it is known from now on, else nothing is changed.

    Raises InvalidConfig naming what is at fault where never all of it could be read.
    """
    keep = keep or _going_by.get()
    keep, books = _opened.get() or _Opened(keep, {})
    if feed not in books:
        try:
            books[feed] = _looked_at(feed, keep=keep)
        except InvalidConfig as error:
            books[feed] = error
    found = books[feed]
    if isinstance(found, InvalidConfig):
        raise InvalidConfig(found.msg)
    return found


def owners() -> Mapping[str, str]:
    """Whose each address of this node is; the very same answer as before while that would be equal."""
    return _owners()


def latest(feed: str) -> KnownBook:
    """What a feed says and whose each address is at this moment, whatever was read once; where nothing is to be changed, what
    `book_of` says. Raises InvalidConfig as that does.
    """
    opened = _opened.get()
    return book_of(feed).anew() if opened and not opened.keep else _looked_at(feed, keep=True)


def _looked_at(feed: str, *, keep: bool) -> KnownBook:
    with closing(Documents.open() if keep else Documents.reading()) as documents:
        if not (_going_by.get() and documents.feed(feed).whole):
            follow(documents, feed)
        return read_on(documents, feed, _kept if keep else {})


def read_on(documents: Documents, feed: str, books: dict[str, KnownBook]) -> KnownBook:
    """The book of a feed as its documents are now; one of `books` goes on, of which there are a few. Raises InvalidConfig as `book_of`."""
    with documents.transaction():
        now, unread = documents.feed(feed), documents.faults(feed)
        if not now.whole and feed == CLUSTER and not unread:
            raise TryAgainLater(
                "nobody told this host yet what policies its cluster has: agent-cni-member.service does"
            )
        if not now.whole:
            raise InvalidConfig(unread[0])
        book = books.pop(feed, None)
        changed = documents.since(feed, book.revision) if book and book.revision <= now.revision else None
        if book is None or changed is None:
            book, changed = KnownBook(feed, _owners), documents.everything(feed)
    books[feed] = book.heard(now.revision, changed, unread).anew()
    for oldest in list(books)[:-_MOST_BOOKS]:
        del books[oldest]
    return book


def follow(documents: Documents, feed: str, names: Collection[str] | None = None) -> int:
    """Have what a feed says now: how many documents became others or went. With `names` of files nothing else became another.

    Raises TryAgainLater.
    """
    if feed == CLUSTER:
        return 0  # its member tells this host
    place = Path(feed.removeprefix("folder "))
    if names is None and _is_known(documents, feed, place):
        return 0
    with documents.turn(feed):
        return 0 if names is None and _is_known(documents, feed, place) else _read(documents, feed, place, names)


def _is_known(documents: Documents, feed: str, place: Path) -> bool:
    """Whether a folder is as it was read last."""
    try:
        return documents.feed(feed).seen == _fingerprint(folder.listing(place))
    except InvalidConfig:
        return False


def _fingerprint(seen: Mapping[str, str]) -> str:
    """Of one by which nobody knows a file again there is no other."""
    return digest_of("\0".join(f"{name} {how}" for name, how in sorted(seen.items())))


def _read(documents: Documents, feed: str, place: Path, names: Collection[str] | None) -> int:
    before = documents.feed(feed)
    if not (before.whole and before.seen) or folder.identity(place) != before.origin:
        names = None  # nothing is known of the other files, or not any more
    known_sources = documents.sources(feed, names)
    try:
        found = folder.read(place, {name: item.seen for name, item in known_sources.items()}, names, before.origin)
    except InvalidConfig as error:
        with documents.transaction():
            documents.put(feed, before._replace(seen="", fault=plain(error.msg)), {})
        return 0
    if names is not None and found.place != before.origin:
        return _read(documents, feed, place, None)
    gone = known_sources.keys() - found.seen.keys()
    faults = {name: plain(line) for name, line in found.faults.items()}
    conflicts = _conflicts(documents, feed, found.items, gone)
    fresh = {name: items for name, items in found.items.items() if name not in conflicts}
    sources = {name: Source(found.seen[name], faults.get(name, "")) for name in (*fresh, *faults)}
    sources |= {name: Source("", plain(line)) for name, line in conflicts.items()}
    now = {**known_sources, **sources}
    unread = any(now[name].fault for name in found.seen)
    with documents.transaction():
        documents.put(feed, Feed(before.revision, before.whole or not unread, "", "", found.place), sources, gone)
        documents.see(feed, _fingerprint(documents.seen(feed)))
        there = {
            name: [document_of(name, nth, item) for nth, item in enumerate(items)] for name, items in fresh.items()
        }
        return documents.replace(feed, there | {name: [] for name in gone})


def _conflicts(
    documents: Documents, feed: str, items: Mapping[str, list[Item]], gone: Collection[str]
) -> dict[str, str]:
    """Which of the sources that were read say of an object something else than another one, and what."""
    found: dict[str, str] = {}
    while True:
        fresh = {name: read for name, read in items.items() if name not in found}
        try:
            _refuse_conflict(documents, feed, fresh, gone)
        except _Conflict as conflict:
            found[conflict.source] = conflict.msg
        else:
            return found


class _Conflict(Exception):
    def __init__(self, source: str, msg: str) -> None:
        super().__init__(msg)
        self.source, self.msg = source, msg


def _refuse_conflict(documents: Documents, feed: str, fresh: Mapping[str, list[Item]], gone: Collection[str]) -> None:
    seen: dict[tuple[str, str, str], Item] = {}
    for source, items in fresh.items():
        for item in items:
            if not item.name:
                continue
            first = seen.setdefault((item.kind, item.namespace, item.name), item)
            try:
                refuse_two_meanings(item, first.read, first.where)
                for other in documents.named(feed, item.kind, item.namespace, item.name):
                    if other.source not in fresh and other.source not in gone:
                        refuse_two_meanings(item, object_of(other), other.place)
            except InvalidConfig as error:
                raise _Conflict(source, error.msg) from None


def document_of(source: str, nth: int, item: Item) -> Document:
    """What is kept of an object, the `nth` of its source."""
    said = "" if item.name else str(nth)
    return Document(item.kind, item.namespace, item.name, source, said, item.where, 0, spelled(item.value))


def spelled(value: Any) -> str:
    """As JSON, from which is read again what was read first: what JSON cannot hold becomes something that is as wrong there."""
    try:
        text = json.dumps(value, sort_keys=True)
        return text if json.loads(text) == value else json.dumps(_sturdy(value), sort_keys=True)
    except TypeError:
        return json.dumps(_sturdy(value), sort_keys=True)


def _sturdy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key if isinstance(key, str) else f"\0{key}": _sturdy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_sturdy(item) for item in value]
    return value if isinstance(value, str | int | float | None) else {"\0": str(value)}


def plain(text: str) -> str:
    """A line as it can be printed anywhere."""
    return "".join(char if char.isprintable() else "?" for char in text)
