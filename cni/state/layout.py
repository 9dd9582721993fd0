"""How the state file is laid out, and how one of an earlier release becomes one of this."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from typing import Any

from cni.errors import CniError
from cni.kernel.netns import Netns, whereabouts

#: The layout this release reads and writes, kept as SQLite's `user_version`.
VERSION = 5
#: The earliest one whose releases can write such a file, too: what is later has only tables besides. The upper half of what the file says.
EARLIEST = 5
SAID = VERSION if EARLIEST == VERSION else EARLIEST << 16 | VERSION

#: Of all tables the one with a rowid: a key beside whole plans is slow to find, for SQLite compares overflowing rows whole.
_ATTACHMENT = """
CREATE TABLE attachment (
    network TEXT NOT NULL,                    -- the configuration's name
    container TEXT NOT NULL,                  -- CNI_CONTAINERID
    ifname TEXT NOT NULL,                     -- CNI_IFNAME
    plugin TEXT NOT NULL,                     -- whose record it is: a chain's plugins have one each
    netns TEXT NOT NULL,                      -- the path the runtime gave
    pod TEXT NOT NULL,                        -- Kubernetes' namespace/name, or nothing
    complete INTEGER NOT NULL,                -- whether its ADD was answered
    config TEXT NOT NULL,                     -- JSON: what the ADD ran with
    resources TEXT NOT NULL,                  -- JSON: its plan
    result TEXT NOT NULL,                     -- JSON: what it answered, or null
    created TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,  -- UTC, for people
    netns_id TEXT NOT NULL DEFAULT '',        -- which namespace that path meant (Netns.identity); nothing where it is not known
    home TEXT NOT NULL DEFAULT '',            -- from where that was seen (whereabouts), likewise
    PRIMARY KEY (network, container, ifname, plugin)
);
"""

_LEASES = """
CREATE TABLE lease (                          -- no foreign key: one that nobody has is told and kept, a pod may use it
    network TEXT,                             -- in which the address is given once
    family INTEGER,                           -- 4 or 6
    address BLOB,                             -- packed, so that they sort
    container TEXT NOT NULL,                  -- whose it is, with network:
    ifname TEXT NOT NULL,                     -- the attachment,
    plugin TEXT NOT NULL,                     -- and the plugin with whose record it goes
    PRIMARY KEY (network, family, address)
) WITHOUT ROWID;
CREATE INDEX lease_holder ON lease (network, container, ifname, plugin);
CREATE TABLE last_given (
    network TEXT,
    range_set TEXT,                           -- as it is spelled in the configuration
    address TEXT,                             -- the one it gave last: the next comes after it
    PRIMARY KEY (network, range_set)
) WITHOUT ROWID;
"""

_STICKY = """
CREATE TABLE sticky (
    network TEXT,
    pod TEXT,                                 -- Kubernetes' namespace/name
    ifname TEXT,                              -- CNI_IFNAME: a pod may have several in one network
    range_set TEXT,                           -- as in last_given
    family INTEGER,                           -- 4 or 6
    address BLOB,                             -- packed: kept for this interface of this pod if it comes back
    PRIMARY KEY (network, pod, ifname, range_set)
) WITHOUT ROWID;
"""

_USES = """
CREATE TABLE uses (
    place TEXT,                               -- a shared resource (Resource.key), an address, a namespace, a link
    network TEXT, container TEXT, ifname TEXT, plugin TEXT,  -- who has it
    PRIMARY KEY (place, network, container, ifname, plugin),
    FOREIGN KEY (network, container, ifname, plugin) REFERENCES attachment ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX user ON uses (network, container, ifname, plugin);
"""

_STICKY_ONCE = "CREATE UNIQUE INDEX sticky_once ON sticky (network, range_set, family, address);"

_CONFIGURED = """
CREATE TABLE configured (
    network TEXT,                             -- whose configuration says it,
    plugin TEXT,                              -- in which plugin's section,
    place TEXT,                               -- about what of the node, as in uses
    resources TEXT NOT NULL,                  -- JSON: what follows it (Resource.configured), whatever older plans say
    PRIMARY KEY (network, plugin, place)
) WITHOUT ROWID;
"""

_BOOT = (
    "CREATE TABLE boot (id TEXT NOT NULL);  -- the one that what is recorded is of: one row, none where nobody knows"
)

_MEMBERSHIP = """
CREATE TABLE member (
    value TEXT NOT NULL                       -- JSON: this host in its cluster (membership.Member); one row, none outside of one
);
CREATE TABLE shared (
    network TEXT,                             -- a network whose addresses all hosts of the cluster share
    value TEXT NOT NULL,                      -- JSON: as this host's configuration says it (cluster.model.Network)
    refused TEXT,                             -- why the cluster does not take it so, or nothing; null: it was not asked yet
    PRIMARY KEY (network)
) WITHOUT ROWID;
CREATE TABLE block (
    network TEXT,                             -- whose addresses they are
    family INTEGER,                           -- 4 or 6
    first BLOB,                               -- packed, so that they sort
    last BLOB NOT NULL,                       -- likewise
    value TEXT NOT NULL,                      -- JSON: its owner, which is this host
    state TEXT NOT NULL,                      -- held, leaving, lost, or unsure
    PRIMARY KEY (network, family, first)
) WITHOUT ROWID;
CREATE TABLE endpoint (
    network TEXT,                             -- of which
    family INTEGER,                           -- 4 or 6
    address BLOB,                             -- packed: somebody has this one
    container TEXT NOT NULL,                  -- who, with network; empty is the host itself
    ifname TEXT NOT NULL,                     -- with which interface,
    plugin TEXT NOT NULL,                     -- and with whose record it goes
    wanted TEXT,                              -- JSON: what the cluster is to know of it, null: nothing any more
    published TEXT,                           -- JSON: what the cluster was told last, null: nothing
    PRIMARY KEY (network, family, address)
) WITHOUT ROWID;
CREATE INDEX endpoint_holder ON endpoint (network, container, ifname, plugin);
CREATE INDEX endpoint_unsaid ON endpoint (network) WHERE wanted IS NOT published;
CREATE TABLE wish (
    network TEXT,                             -- in which a call waits for one more block
    family INTEGER,                           -- of 4 or 6
    address TEXT,                             -- for that of this address, or nothing
    answer TEXT NOT NULL,                     -- why it cannot be had, or nothing yet
    PRIMARY KEY (network, family, address)
) WITHOUT ROWID;
CREATE TABLE away (
    node TEXT PRIMARY KEY,                    -- a host of the cluster that is not heard of
    since TEXT NOT NULL                       -- UTC, for people, as it was seen from here; nothing: it was so before
) WITHOUT ROWID;
"""

#: What a new file gets.
SCHEMA = f"{_ATTACHMENT} {_LEASES} {_STICKY} {_STICKY_ONCE} {_USES} {_CONFIGURED} {_BOOT} {_MEMBERSHIP}\nPRAGMA user_version = {SAID};"

TABLES = tuple(re.findall(r"CREATE TABLE (\w+)", SCHEMA))
INDICES = tuple(re.findall(r"CREATE (?:UNIQUE )?INDEX (\w+)", SCHEMA))
#: Whether all of that is there.
IS_WHOLE = f"SELECT count(*) = {len(TABLES + INDICES)} FROM sqlite_schema WHERE name IN {TABLES + INDICES}"

#: What an earlier table did not say: an interface whose pod is gone was the only one that most pods have.
_UNSAID = {
    "sticky": {
        "ifname": "COALESCE((SELECT ifname FROM lease WHERE (lease.network, lease.family, lease.address)"
        " = (one.network, one.family, one.address)), 'eth0')"
    }
}
#: Which rows: of several pods with one address the last in the alphabet keeps it, and what nobody has is used by nobody.
_WHICH = {
    "sticky": "ORDER BY pod DESC",
    "uses": "WHERE EXISTS (SELECT 1 FROM attachment AS other WHERE (other.network, other.container, other.ifname, other.plugin)"
    " = (one.network, one.container, one.ifname, one.plugin))",
}

#: What layout 1 found by searching its JSON: the resources that go with their last user, by what tells them apart,
#: and the fields that others asked for.
_SHARED_IN_1: dict[str, tuple[str, ...]] = {
    "GuardTable": (),
    "PolicyTable": ("netns",),
    "MasqueradeRules": ("backend", "family"),
    "Masquerade": ("backend", "family", "address"),
    "WayBack": ("netns", "family"),
    "PodRules": ("netns", "backend", "family"),
    "HostShim": ("name",),
    "BridgeFilter": ("bridge",),
}
_ASKED_IN_1 = {"PodPolicy": "addresses", "PodAddress": "address", "PodRules": "netns", "Macvlan": "master"}


def upgrade(db: sqlite3.Connection) -> None:
    """Bring a file to this layout by what it has, in a transaction of the caller's. Raises DatabaseError where it lacks what all have.

    Its number is not asked: layouts that came about had the number of what they were to be.
    """
    before = {table: found for table in TABLES if (found := _columns(db, table))}
    is_first = "netns_id" not in before.get("attachment", ())
    if not before.keys() >= {"attachment", "lease"} or not (is_first or "uses" in before):
        raise sqlite3.DatabaseError(f"of its tables there are {', '.join(before) or 'none'}")
    for name in INDICES:
        db.execute(f"DROP INDEX IF EXISTS {name}")
    for table in reversed(before):  # who refers to another goes before it
        db.execute(f"ALTER TABLE {table} RENAME TO {table}_before")
    _run(db, SCHEMA)
    for table, columns in before.items():
        said = _UNSAID.get(table, {}) | {name: name for name in _columns(db, table) if name in columns}
        rows = f"SELECT {', '.join(said.values())} FROM {table}_before AS one {_WHICH.get(table, '')}"
        db.execute(f"INSERT OR IGNORE INTO {table} ({', '.join(said)}) {rows}")
    for table in reversed(before):
        db.execute(f"DROP TABLE {table}_before")
    if is_first:
        _know_users(db)
    if "configured" not in before:
        _know_configured(db)


def _columns(db: sqlite3.Connection, table: str) -> list[str]:
    """The names of a table's columns; none of one that is not there."""
    return [name for (name,) in db.execute("SELECT name FROM pragma_table_info(?)", (table,))]


def _know_users(db: sqlite3.Connection) -> None:
    """What layout 1 did not say. What a recorded path means now is taken for what it meant then: that release never looked."""
    known: dict[object, str] = {}
    home = _home()
    rows = db.execute("SELECT network, container, ifname, plugin, netns, resources FROM attachment").fetchall()
    for *key, path, resources in rows:
        if path not in known:
            known[path] = _identity(path)
        where = "(network, container, ifname, plugin) = (?,?,?,?)"
        seen = (known[path], home if known[path] else "")
        db.execute(f"UPDATE attachment SET (netns_id, home) = (?,?) WHERE {where}", (*seen, *key))
        for place in _places_in_1(resources, partial(_lasting, path, known[path])):
            db.execute("INSERT OR IGNORE INTO uses VALUES (?,?,?,?,?)", (place, *key))


def _know_configured(db: sqlite3.Connection) -> None:
    """What layouts before 4 did not say: a network says what its latest attachment recorded of its overlay."""
    query = "SELECT network, container, ifname, plugin, resources FROM attachment ORDER BY created, rowid"
    for *key, resources in db.execute(query).fetchall():
        found = [item for item in _items(resources) if item.get("kind") in ("VxlanLink", "FloodList")]
        for place in {f"overlay {bridge}" for item in found if (bridge := _text(item.get("bridge")))}:
            db.execute("INSERT OR IGNORE INTO uses VALUES (?,?,?,?,?)", (place, *key))
            said = (key[0], key[3], place, json.dumps(found))
            db.execute("INSERT OR REPLACE INTO configured VALUES (?,?,?,?)", said)


def _run(db: sqlite3.Connection, script: str) -> None:
    """Run statements that end with their line; `executescript` would end the transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            db.execute(statement)
            statement = ""


def _identity(path: object) -> str:
    """Which namespace a path means; nothing where that cannot be told."""
    netns = Netns.if_there(path) if isinstance(path, str) else None
    if netns is None:
        return ""
    with closing(netns), suppress(CniError):
        return netns.identity
    return ""


def _home() -> str:
    """From where the identities are read, as a record keeps it."""
    with suppress(CniError):
        return whereabouts()
    return ""


def _lasting(path: object, identity: str, value: object) -> str:
    return identity if identity and value == path else str(value)


def _places_in_1(resources: object, lasting: Callable[[object], str]) -> Iterator[str]:
    """What the resources of a record share, as `key_of` and `mentions` spell it today."""
    for item in _items(resources):
        kind, address, link = (_text(item.get(name)) for name in ("kind", "address", "link"))
        if kind in _SHARED_IN_1:
            yield " ".join([kind, *(lasting(item.get(name, "")) for name in _SHARED_IN_1[kind])])
        if kind == "GatewayAddress" and address and link and not address.endswith(("/32", "/128")):
            yield f"gateway {address} {link}"
        asked = item.get(_ASKED_IN_1[kind], "") if kind in _ASKED_IN_1 else []
        for value in filter(_text, asked if isinstance(asked, list) else [asked]):
            yield lasting(value.split("/")[0] if kind == "PodAddress" else value)


def _items(resources: object) -> list[dict[str, Any]]:
    """The resources of a row, whatever somebody wrote into it: one odd row is not the whole node's."""
    found = parsed(resources)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def parsed(text: object) -> Any:
    """What JSON says; a text for what is none, which no column may be."""
    try:
        return json.loads(text)  # type: ignore[arg-type]
    except (ValueError, TypeError, RecursionError):
        return str(text)
