"""The state file, open: one connection, one transaction at a time.

The file lives in /run by default and dies with the boot, as the pods do. A call writes the record and
the lease in one transaction before the first kernel change and forgets them last, so whatever a call
that was killed has left can be found without its netns, its result or today's configuration.
"""

from __future__ import annotations

import sqlite3
from _thread import get_ident
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cni.errors import Busy, TryAgainLater, Unavailable
from cni.kernel.kept import Spare
from cni.kernel.signals import uninterrupted
from cni.state import layout

#: The connections this process used last, by the file's device and inode, and by thread: one finds its own and its prepared statements
#: again, where another's would be in use. A warm worker has one thread and some folders, a member one folder, documents and some threads.
_spare = Spare[sqlite3.Connection](6)


class StateFile:
    """A file of this layout. Every wait is bounded by `patience`, in seconds, and ends in TryAgainLater."""

    def __init__(self, path: Path, patience: float) -> None:
        self.path = path
        self.patience = patience
        self._place = _place(path)
        self._db = _connected(path, self._place, patience)

    @property
    def place(self) -> object:
        """What tells this file from another that takes its path later; None for a copy."""
        return self._place

    @property
    def changes(self) -> int:
        """Counts the rows that were changed by this connection."""
        return self._db.total_changes

    @property
    def version(self) -> tuple[object, ...]:
        """What is another as soon as anybody changed anything. Through another connection it is another, too."""
        return self._db, self._rows("PRAGMA data_version")[0][0], self._db.total_changes

    def close(self) -> None:
        """Keep the file for who opens it next in this process."""
        if self._place and not self._db.in_transaction:
            _spare.give_back((self._place, get_ident()), self._db)
        else:
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; one writer at a time, readers never wait. A signal waits until it is over; one inside is part of it."""
        if self._db.in_transaction:
            yield
            return
        with uninterrupted(), busy(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # else SQLite took it back itself (sqlite.org/lang_transaction.html)
                    self._db.execute("ROLLBACK")
                raise

    def copy(self) -> None:
        """Go on with a copy in memory: nobody else sees what is changed from now on."""
        copied = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        with busy(self.path):
            self._db.backup(copied)
        StateFile.close(self)
        self._db, self._place = copied, None

    @contextmanager
    def closed_if_it_fails(self) -> Iterator[None]:
        """Close it when what follows does not work out."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def layout(self) -> int:
        """The file's layout, 0 for a new one; ours for a later release's that says it can be written by us, and an earlier one for ours
        that lacks some of it. Raises Unavailable for another's.
        """
        version = self._written_by(layout.VERSION)
        if version == layout.VERSION:
            return version if self._rows(layout.IS_WHOLE)[0][0] else version - 1
        if not 0 <= version <= layout.VERSION:
            raise Unavailable(
                f"{self.path} was written by another release (layout {version}, ours is up to {layout.VERSION}): "
                "install that one again, or drain this node and boot it"
            )
        return version

    def prepare(self) -> None:
        """Lay out a new file, or bring one of an earlier release up to this one; the caller holds the node's byte."""
        version = self.layout()
        if version == layout.VERSION:
            return
        if version:
            with self.transaction():
                if self.layout() != layout.VERSION:
                    layout.upgrade(self._db)
            return
        self.path.chmod(0o600)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.executescript(f"BEGIN; {layout.SCHEMA} COMMIT;")

    def _written_by(self, ours: int) -> int:
        """The layout that the file says it has, or ours, where it says that those of ours can write it, too."""
        earliest, version = divmod(int(self._rows("PRAGMA user_version")[0][0]), 1 << 16)
        return min(version, ours) if 0 < earliest <= ours else version

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with busy(self.path):
            return self._db.execute(query, values).fetchall()


def _place(path: Path) -> tuple[int, int] | None:
    with suppress(OSError):
        status = path.stat()
        return status.st_dev, status.st_ino
    return None


def _connected(path: Path, place: tuple[int, int] | None, patience: float) -> sqlite3.Connection:
    """A connection of nobody else's. A file that was replaced has another place, whatever its path."""
    with busy(path):
        db = _spare.take((place, get_ident())) if place else None
        if db is None:
            db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            db.executescript("PRAGMA synchronous = FULL; PRAGMA cache_size = -256; PRAGMA foreign_keys = ON;")  # KiB
        db.execute(f"PRAGMA busy_timeout = {int(patience * 1000)}")
        return db


@contextmanager
def busy(path: Path) -> Iterator[None]:
    """Say what SQLite says of a file in our own terms."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # its own words name a thing of the file
        wrong = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)  # a text that is none has no code
        if isinstance(error, sqlite3.OperationalError) and wrong != sqlite3.SQLITE_ERROR:
            kind = Busy if wrong & 0xFF == sqlite3.SQLITE_BUSY else TryAgainLater
            raise kind(f"the state in {path} cannot be used now: {error}") from None
        raise Unavailable(f"the state in {path} is damaged: {error}") from None
