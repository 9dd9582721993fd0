"""What feeds of policies said last that could be read: their documents, parsed and judged, for all networks of this node.

It stands beside the state, whatever a network's `dataDir`, and is no part of it: whoever finds it gone, damaged or of another
release reads the feeds again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from cni.errors import Unavailable
from cni.kernel.files import private_folder, refuse_strangers
from cni.kernel.locks import PATIENCE, LockFile
from cni.naming import digest_of
from cni.state import elsewhere, uses
from cni.state.file import busy
from cni.state.standing import TABLE, Stands

FILE = "documents.db"
#: A later one that only has tables besides says so as a state does, `5 << 16 | 6`: of a member and calls of two releases each would begin the other's anew.
_VERSION = 5
#: Of how many revisions it is known what went; who was away for longer begins anew.
_REMEMBERED = 1000
#: The feed that is none: its sources are what was begun.
_BEGUN = "begun"

_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS feed (
    name TEXT PRIMARY KEY,                    -- `folder /path`, `cluster`
    revision INTEGER NOT NULL,                -- counts what changed of its documents
    whole INTEGER NOT NULL,                   -- whether all of it could be read at one time
    seen TEXT NOT NULL,                       -- by what it is known again as it was read; nothing: it is to be looked at
    fault TEXT NOT NULL,                      -- why it cannot be read now, or nothing
    origin TEXT NOT NULL                      -- what was read: which folder, by device and inode
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS source (
    feed TEXT,                                -- whose
    name TEXT,                                -- a file, or what else a feed consists of
    seen TEXT NOT NULL,                       -- by what it is known again; nothing: it is to be read again in any case
    fault TEXT NOT NULL,                      -- why what it holds now cannot be read, or nothing: its documents are those of before
    PRIMARY KEY (feed, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS document (
    feed TEXT, source TEXT, kind TEXT, namespace TEXT, name TEXT,
    nth TEXT,                                 -- tells those apart that have no name
    place TEXT NOT NULL,                      -- where it stands, for people
    revision INTEGER NOT NULL,                -- of the feed, when it became what it is
    value TEXT,                               -- JSON: what is used of the object; null: it is gone
    PRIMARY KEY (feed, source, kind, namespace, name, nth)
);
CREATE INDEX IF NOT EXISTS document_named ON document (feed, kind, namespace, name);
CREATE INDEX IF NOT EXISTS document_since ON document (feed, revision);
{TABLE}{elsewhere.TABLE}
PRAGMA user_version = {_VERSION};
COMMIT;
"""
_COLUMNS = "kind, namespace, name, source, nth, place, revision, value"


class Feed(NamedTuple):
    """What is known of a feed: see the columns."""

    revision: int = 0
    whole: bool = False
    seen: str = ""
    fault: str = ""
    origin: str = ""


class Source(NamedTuple):
    """A part of a feed that is read as one: see the columns."""

    seen: str
    fault: str = ""


class Document(NamedTuple):
    """One object of a feed; `nth` tells those apart that have no name, `value` is JSON, None when it is gone."""

    kind: str
    namespace: str
    name: str
    source: str
    nth: str
    place: str
    revision: int
    value: str | None

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """What tells it from every other one of its feed."""
        return self[:5]


class Documents(Stands, elsewhere.Elsewhere):
    """The file, open."""

    @classmethod
    def open(cls, patience: float = PATIENCE) -> Documents:
        """Open it, making it where it is missing, and anew where it is none of ours. Raises Unavailable and TryAgainLater."""
        try:
            path = private_folder(uses.DEFAULT_FOLDER) / FILE
        except OSError as error:
            raise Unavailable(f"the state folder {uses.DEFAULT_FOLDER} cannot be used: {error.strerror}") from None
        with suppress(Unavailable):
            return cls._prepared(path, patience)
        with closing(LockFile(uses.node_lock())) as lock, lock.exclusive(digest_of(FILE), str(path), patience):
            for name in (FILE, f"{FILE}-wal", f"{FILE}-shm"):
                path.with_name(name).unlink(missing_ok=True)
        return cls._prepared(path, patience)

    @classmethod
    def reading(cls) -> Documents:
        """What there is, to be changed in memory only: nobody else sees that."""
        folder = uses.DEFAULT_FOLDER
        with suppress(Unavailable, OSError):
            (folder / FILE).stat()
            refuse_strangers(folder)
            found = cls(folder / FILE, patience=1)
            with found.closed_if_it_fails():
                if found._version() == _VERSION:
                    found.copy()
                    return found
            found.close()
        found = cls(Path(":memory:"), patience=1)
        found.prepare()
        return found

    def prepare(self) -> None:
        """Lay out a new file. Raises Unavailable for one of another release."""
        if (version := self._version()) not in (0, _VERSION):
            raise Unavailable(f"{self.path} is of another release (layout {version})")
        if version == 0:
            with busy(self.path):
                self._db.executescript(_SCHEMA)

    @contextmanager
    def turn(self, feed: str) -> Iterator[None]:
        """Be the only one who reads a feed anew. Raises TryAgainLater."""
        if self.place is None:
            yield
            return
        with (
            closing(LockFile(uses.node_lock())) as lock,
            lock.exclusive(digest_of(f"feed {feed}"), feed, self.patience),
        ):
            yield

    # --- what is known

    def feed(self, name: str) -> Feed:
        """What is known of a feed; nothing of one that was never read."""
        rows = self._rows("SELECT revision, whole, seen, fault, origin FROM feed WHERE name = ?", name)
        return Feed(rows[0][0], bool(rows[0][1]), *rows[0][2:]) if rows else Feed()

    def folders(self) -> list[str]:
        """The feeds of which anything is known that are folders."""
        return [name for (name,) in self._rows("SELECT name FROM feed WHERE name GLOB 'folder *'")]

    def sources(self, feed: str, names: Iterable[str] | None = None) -> dict[str, Source]:
        """What a feed consists of; with `names` of these alone, and of what is to be read again in any case."""
        some = " AND (seen = '' OR name IN (SELECT value FROM json_each(?)))" if names is not None else ""
        given = (feed,) if names is None else (feed, json.dumps(list(names)))
        rows = self._rows(f"SELECT name, seen, fault FROM source WHERE feed = ?{some}", *given)
        return {name: Source(*rest) for name, *rest in rows}

    def seen(self, feed: str) -> dict[str, str]:
        """By what each part of a feed is known again."""
        return dict(self._rows("SELECT name, seen FROM source WHERE feed = ?", feed))

    def faults(self, feed: str) -> list[str]:
        """Why what a feed says now cannot be read: a line for each part."""
        found = self._rows("SELECT fault FROM source WHERE feed = ? AND fault != '' ORDER BY name", feed)
        return list(filter(None, [self.feed(feed).fault, *(fault for (fault,) in found)]))

    def faults_counted(self) -> dict[str, int]:
        """Of each feed, how much of what it says now cannot be read."""
        query = (
            "SELECT name, (fault != '') + (SELECT count(*) FROM source WHERE feed = feed.name AND source.fault != '')"
            " FROM feed WHERE name != ?"
        )
        return dict(self._rows(query, _BEGUN))

    def everything(self, feed: str) -> list[Document]:
        """The documents of a feed; one that stands in several sources comes several times."""
        return self._documents("feed = ? AND value NOT NULL", feed)

    def named(self, feed: str, kind: str, namespace: str, name: str) -> list[Document]:
        """The documents of one name."""
        return self._documents(
            "(feed, kind, namespace, name) = (?,?,?,?) AND value NOT NULL", feed, kind, namespace, name
        )

    def since(self, feed: str, revision: int) -> list[Document] | None:
        """What became another after a revision, or went; None where nobody knows any more what went."""
        if revision < self.feed(feed).revision - _REMEMBERED:
            return None
        return self._documents("feed = ? AND revision > ?", feed, revision)

    # --- what was read

    def put(self, feed: str, known: Feed, sources: Mapping[str, Source], gone: Iterable[str] = ()) -> None:
        """Say how a feed and parts of it were seen; `known.revision` is kept as it is. In a transaction of the caller's."""
        # it begins at a time nobody had before: who read a file that is gone by now goes on with none of it
        row = (feed, time.time_ns() // 1000, *known[1:])
        self._db.execute(
            "INSERT INTO feed VALUES (?1,?2,?3,?4,?5,?6) ON CONFLICT (name)"
            " DO UPDATE SET (whole, seen, fault, origin) = (?3,?4,?5,?6)",
            row,
        )
        self._db.executemany(
            "REPLACE INTO source VALUES (?,?,?,?)", [(feed, name, *item) for name, item in sources.items()]
        )
        self._db.executemany("DELETE FROM source WHERE (feed, name) = (?,?)", [(feed, name) for name in gone])

    def see(self, feed: str, seen: str) -> None:
        """Say by what a feed is known again."""
        self._db.execute("UPDATE feed SET seen = ? WHERE name = ?", (seen, feed))

    def replace(self, feed: str, there: Mapping[str, Iterable[Document]]) -> int:
        """Have sources consist of these documents: how many became others or went, at one new revision. In a transaction of the
        caller's, after `put`.
        """
        revision = self.feed(feed).revision + 1
        changed = 0
        for source, documents in there.items():
            wanted = {item.key: item for item in documents}
            known = {
                item.key: item for item in self._documents("feed = ? AND source = ? AND value NOT NULL", feed, source)
            }
            new = [item for key, item in wanted.items() if key not in known or known[key].value != item.value]
            self._write(feed, revision, new)
            self._bury(feed, revision, known.keys() - wanted.keys())
            changed += len(new) + len(known.keys() - wanted.keys())
        if changed:
            self._db.execute("UPDATE feed SET revision = ? WHERE name = ?", (revision, feed))
            forgotten = (feed, revision - _REMEMBERED)
            self._db.execute("DELETE FROM document WHERE feed = ? AND revision < ? AND value IS NULL", forgotten)
        return changed

    # --- what is done by them

    def unfinished(self) -> set[str]:
        """What was begun, and not done."""
        return set(self.sources(_BEGUN))

    def begin(self, what: Iterable[str]) -> None:
        """Say that things are to be done, until `end` says that they are."""
        with self.transaction():
            self.put(_BEGUN, Feed(), dict.fromkeys(what, Source("begun")))

    def end(self, what: Iterable[str]) -> None:
        """Say that they are done."""
        with self.transaction():
            self.put(_BEGUN, Feed(), {}, what)

    def forget(self, feed: str) -> None:
        """Know nothing of a feed any more."""
        for table, column in (("feed", "name"), ("source", "feed"), ("document", "feed")):
            self._db.execute(f"DELETE FROM {table} WHERE {column} = ?", (feed,))

    def _write(self, feed: str, revision: int, documents: Iterable[Document]) -> None:
        rows = [(feed, *item._replace(revision=revision)) for item in documents]
        self._db.executemany(f"REPLACE INTO document (feed, {_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?)", rows)

    def _bury(self, feed: str, revision: int, keys: Collection[tuple[str, ...]]) -> None:
        query = "UPDATE document SET (revision, value) = (?, NULL) WHERE (feed, kind, namespace, name, source, nth) = (?,?,?,?,?,?)"
        self._db.executemany(query, [(revision, feed, *key) for key in keys])

    def _documents(self, where: str, *values: object) -> list[Document]:
        return [Document(*row) for row in self._rows(f"SELECT {_COLUMNS} FROM document WHERE {where}", *values)]

    def _version(self) -> int:
        return self._written_by(_VERSION)

    @classmethod
    def _prepared(cls, path: Path, patience: float) -> Documents:
        if not path.exists():
            path.touch(0o600)
        found = cls(path, patience)
        with found.closed_if_it_fails():
            if found._version() == _VERSION:
                return found
            with closing(LockFile(uses.node_lock())) as lock, lock.exclusive(digest_of(FILE), str(path), patience):
                path.chmod(0o600)
                found._rows("PRAGMA journal_mode = WAL")
                found.prepare()
        return found
