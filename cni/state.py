"""What this node remembers: attachments and leases, in one SQLite file.

The file lives in /run by default and dies with the boot, as the pods do. A call writes the record and
the lease in one transaction before the first kernel change and forgets them last, so whatever a call
that was killed has left can be found without its netns, its result or today's configuration.
"""

from __future__ import annotations

import ipaddress
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cni.errors import TryAgainLater, Unavailable
from cni.kernel.files import PATIENCE, LockFile, private_folder
from cni.kernel.signals import uninterrupted
from cni.naming import Attachment, IPAddress

#: The connection this process used last, by the file's device and inode: a warm one keeps it and its prepared statements.
_kept: dict[tuple[int, int], sqlite3.Connection] = {}

DEFAULT_FOLDER = Path("/run/agent-cni")
FILE = "state.db"

_VERSION = 1
_SCHEMA = """
CREATE TABLE attachment (
    network TEXT, container TEXT, ifname TEXT, plugin TEXT,
    netns TEXT NOT NULL, pod TEXT NOT NULL, complete INTEGER NOT NULL,
    config TEXT NOT NULL, resources TEXT NOT NULL, result TEXT NOT NULL,
    created TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
    PRIMARY KEY (network, container, ifname, plugin)
) WITHOUT ROWID;
CREATE TABLE lease (
    network TEXT, family INTEGER, address BLOB,
    container TEXT NOT NULL, ifname TEXT NOT NULL, plugin TEXT NOT NULL,
    PRIMARY KEY (network, family, address)
) WITHOUT ROWID;
CREATE INDEX lease_holder ON lease (network, container, ifname, plugin);
CREATE TABLE last_given (network TEXT, range_set TEXT, address TEXT, PRIMARY KEY (network, range_set)) WITHOUT ROWID;
CREATE TABLE sticky (
    network TEXT, pod TEXT, range_set TEXT, family INTEGER, address BLOB,
    PRIMARY KEY (network, pod, range_set)
) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Record:
    """One attachment by one plugin. `config` is what the ADD ran with, `resources` what its plan
    held, `result` what it answered; `complete` once it has.
    """

    attachment: Attachment
    plugin: str
    netns: str
    pod: str
    config: dict[str, Any]
    resources: tuple[dict[str, Any], ...] = ()
    result: dict[str, Any] | None = None
    complete: bool = False

    def having(self, **changes: Any) -> Record:
        """This record with some fields changed."""
        return replace(self, **changes)


class Store:
    """The state file, open. Every wait is bounded and ends in TryAgainLater."""

    def __init__(self, path: Path, patience: float) -> None:
        self.path = path
        self._place = _place(path)
        self._db = _connected(path, self._place, patience)
        self.lock = LockFile(path.parent / "lock")

    @classmethod
    def open(cls, folder: Path, patience: float = PATIENCE) -> Store:
        """Open the state file of a folder, making both where they are missing."""
        path = _writable(folder) / FILE
        store = cls(path, patience)
        with store._closed_if_it_fails():
            if not store._layout():
                with store.lock.exclusive("0", str(path), patience), _busy(path):
                    store._prepare()
        return store

    @classmethod
    def reading(cls, folder: Path) -> Store | None:
        """Open without locks and without making anything; None where there is no state yet."""
        if not (folder / FILE).exists():
            return None
        store = cls(folder / FILE, patience=1)
        with store._closed_if_it_fails():
            if store._layout():
                return store
        store.close()
        return None

    def close(self) -> None:
        """Give up every lock, and keep the file for who opens it next in this process."""
        self.lock.close()
        while _kept:
            _kept.popitem()[1].close()
        if self._place and not self._db.in_transaction:
            _kept[self._place] = self._db
        else:
            self._db.close()

    @contextmanager
    def _closed_if_it_fails(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; one writer at a time, readers never wait. A signal waits until it is over; one inside is part of it."""
        if self._db.in_transaction:
            yield
            return
        with uninterrupted(), _busy(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def put(self, record: Record) -> None:
        """Write a record, new or changed."""
        values = (
            *record.attachment, record.plugin, record.netns, record.pod, record.complete,
            json.dumps(record.config), json.dumps(record.resources), json.dumps(record.result),
        )  # fmt: skip
        columns = "network, container, ifname, plugin, netns, pod, complete, config, resources, result"
        self._db.execute(f"REPLACE INTO attachment ({columns}) VALUES (?,?,?,?,?,?,?,?,?,?)", values)

    def forget(self, attachment: Attachment, plugin: str) -> None:
        """Delete a record and give back its leases; absent ones are forgotten already."""
        key = (*attachment, plugin)
        for table in ("attachment", "lease"):
            self._db.execute(f"DELETE FROM {table} WHERE (network, container, ifname, plugin) = (?,?,?,?)", key)

    def record(self, attachment: Attachment, plugin: str) -> Record | None:
        """One record, or None."""
        found = self._records("(network, container, ifname, plugin) = (?,?,?,?)", *attachment, plugin)
        return found[0] if found else None

    def records(self, network: str = "", plugin: str = "") -> list[Record]:
        """The records of a network and plugin; empty means any."""
        given = {"network": network, "plugin": plugin}
        where = " AND ".join(f"{column} = ?" for column, value in given.items() if value)
        return self._records(where or "TRUE", *filter(None, given.values()))

    def mentioning(self, values: Sequence[str]) -> list[Record]:
        """The records whose plan has one of these values in some resource."""
        where = " OR ".join(["instr(resources, ?)"] * len(values))
        return self._records(where, *map(json.dumps, values))

    def mentions(self, resource: dict[str, Any]) -> bool:
        """Whether any record's plan holds this very resource."""
        return bool(self._rows("SELECT 1 FROM attachment WHERE instr(resources, ?) LIMIT 1", json.dumps(resource)))

    # --- leases; addresses are kept as bytes, so that they sort

    def lease(self, attachment: Attachment, plugin: str, address: IPAddress) -> None:
        """Lease an address. sqlite3.IntegrityError if somebody holds it."""
        network, container, ifname = attachment
        row = (network, address.version, address.packed, container, ifname, plugin)
        self._db.execute("INSERT INTO lease VALUES (?,?,?,?,?,?)", row)

    def release(self, network: str, address: IPAddress) -> None:
        """Give back one address, whoever holds it."""
        key = (network, address.version, address.packed)
        self._db.execute("DELETE FROM lease WHERE (network, family, address) = (?,?,?)", key)

    def leases(self, attachment: Attachment, plugin: str) -> list[IPAddress]:
        """The addresses an attachment holds."""
        where = "(network, container, ifname, plugin) = (?,?,?,?)"
        query = f"SELECT address FROM lease WHERE {where} ORDER BY family, address"
        return [ipaddress.ip_address(packed) for (packed,) in self._rows(query, *attachment, plugin)]

    def all_leases(self) -> list[tuple[IPAddress, Attachment, str]]:
        """Every lease: address, attachment and the plugin that holds it."""
        rows = self._rows("SELECT address, network, container, ifname, plugin FROM lease ORDER BY 2, family, 1")
        return [(ipaddress.ip_address(packed), Attachment(*key), plugin) for packed, *key, plugin in rows]

    def holder(self, network: str, address: IPAddress) -> Attachment | None:
        """Who holds an address, or None."""
        query = "SELECT network, container, ifname FROM lease WHERE (network, family, address) = (?,?,?)"
        rows = self._rows(query, network, address.version, address.packed)
        return Attachment(*rows[0]) if rows else None

    def leased(self, network: str, first: IPAddress, last: IPAddress) -> Iterator[int]:
        """The leased addresses between two, ascending, as integers, read as they are asked for."""
        query = (
            "SELECT address FROM lease WHERE network = ? AND family = ? AND address BETWEEN ? AND ? ORDER BY address"
        )
        with _busy(self.path):
            for (packed,) in self._db.execute(query, (network, first.version, first.packed, last.packed)):
                yield int.from_bytes(packed)

    def last_given(self, network: str, range_set: str) -> IPAddress | None:
        """The address a range set gave last, or None."""
        query = "SELECT address FROM last_given WHERE (network, range_set) = (?,?)"
        rows = self._rows(query, network, range_set)
        return ipaddress.ip_address(rows[0][0]) if rows else None

    def set_last_given(self, network: str, range_set: str, address: IPAddress) -> None:
        """Remember what a range set gave last."""
        self._db.execute("REPLACE INTO last_given VALUES (?,?,?)", (network, range_set, str(address)))

    def sticky(self, network: str, range_set: str) -> dict[str, IPAddress]:
        """The addresses kept for pods (``namespace/name``) that may come back."""
        query = "SELECT pod, address FROM sticky WHERE (network, range_set) = (?,?)"
        return {pod: ipaddress.ip_address(packed) for pod, packed in self._rows(query, network, range_set)}

    def set_sticky(self, network: str, range_set: str, pod: str, address: IPAddress) -> None:
        """Keep an address for a pod, and for no other."""
        key = (network, range_set, address.version, address.packed)
        self._db.execute("DELETE FROM sticky WHERE (network, range_set, family, address) = (?,?,?,?)", key)
        row = (network, pod, range_set, address.version, address.packed)
        self._db.execute("REPLACE INTO sticky VALUES (?,?,?,?,?)", row)

    def _records(self, where: str, *values: str) -> list[Record]:
        columns = "network, container, ifname, plugin, netns, pod, config, resources, result, complete"
        query = f"SELECT {columns} FROM attachment WHERE {where} ORDER BY network, container, ifname"
        return [_read(row) for row in self._rows(query, *values)]

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with _busy(self.path):
            return self._db.execute(query, values).fetchall()

    def _layout(self) -> int:
        """The file's layout, 0 for a new one. Raises Unavailable for another release's."""
        version = int(self._rows("PRAGMA user_version")[0][0])
        if version not in (0, _VERSION):
            raise Unavailable(f"{self.path} was written by another release (layout {version}, ours {_VERSION})")
        return version

    def _prepare(self) -> None:
        if self._layout():
            return
        self.path.chmod(0o600)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")


def _read(row: tuple[Any, ...]) -> Record:
    config, resources, result = (json.loads(text) for text in row[6:9])
    network, container, ifname, plugin, netns, pod = row[:6]
    attachment = Attachment(network, container, ifname)
    return Record(attachment, plugin, netns, pod, config, tuple(resources), result, bool(row[9]))


def _writable(folder: Path) -> Path:
    try:
        return private_folder(folder)
    except OSError as error:
        raise Unavailable(f"the state folder {folder} cannot be used: {error.strerror}") from None


def _place(path: Path) -> tuple[int, int] | None:
    with suppress(OSError):
        status = path.stat()
        return status.st_dev, status.st_ino
    return None


def _connected(path: Path, place: tuple[int, int] | None, patience: float) -> sqlite3.Connection:
    """A connection of nobody else's. A file that was replaced has another place, whatever its path."""
    with _busy(path):
        db = _kept.pop(place, None) if place else None
        if db is None:
            db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            db.executescript("PRAGMA synchronous = FULL; PRAGMA cache_size = -256;")  # KiB
        db.execute(f"PRAGMA busy_timeout = {int(patience * 1000)}")
        return db


@contextmanager
def _busy(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise TryAgainLater(f"the state in {path} cannot be used now: {error}") from None
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.IntegrityError):
            raise
        raise Unavailable(f"the state in {path} is damaged: {error}") from None
