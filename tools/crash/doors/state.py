"""The state's file as nobody left it: cut, flipped, of another layout, with rows of anything, or no file at all."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from cni.conflist.file import planned
from cni.kernel import kept
from cni.naming import Attachment
from cni.node import Record, Store
from cni.resources import uses_of
from crash.doors import calls
from crash.doors.door import Door, aside
from crash.doors.files import commanded
from crash.mutation import changed

_CONFS: dict[str, dict[str, Any]] = {
    "bridge-vxlan": {"cniVersion": "1.1.0", "name": "pods", "type": "bridge-vxlan", "bridge": "br9", "isDefaultGateway": True, "ipMasq": True,
                     "ipam": {"subnet": "10.9.0.0/24"}, "policy": {"ingress": []}, "vxlan": {"id": 42, "remotes": ["10.0.0.9"]}},
    "macvlan": {"cniVersion": "1.1.0", "name": "pods", "type": "macvlan", "master": "mv9", "ipam": {"subnet": "10.9.0.0/24"}},
    "agent-ipam": {"cniVersion": "1.1.0", "name": "pods", "type": "agent-ipam", "ipam": {"type": "agent-ipam", "subnet": "10.9.0.0/24"}},
}  # fmt: skip
_COMMANDS = (("show", "--json"), ("ipam", "--json"), ("doctor", "--json"), ("policy", "list", "--json"), ("metrics",), ("gc", "--json"), ("repair", "--all", "--dry-run"),
             ("refresh", "--json"), ("trace", "c1"))  # fmt: skip
_OF_THE_NODE = ("policy", "metrics", "trace")
_INSTEAD = (
    "folder",
    "pipe",
    "loop",
    "empty",
    "garbage",
    "other SQLite",
    "gone",
    "unreadable folder",
    "a file for the folder",
)


@cache
def _whole() -> bytes:
    """A state with an attachment of each plugin, and leases."""
    with tempfile.TemporaryDirectory() as place, aside(Path(place)):
        folder = Path(place) / "state"
        with closing(Store.open(folder)) as store:
            for plugin, conf in _CONFS.items():
                plan = planned(conf)
                assert plan
                record = Record(
                    Attachment("pods", "c1", "eth0"),
                    plugin,
                    "/nowhere/netns",
                    "default/web",
                    conf,
                    plan.resources,
                    plan.result.render(),
                    complete=True,
                )
                with store.transaction():
                    store.put(record)
                    store.put_uses(record, uses_of(record.resources, record.lasting))
        with closing(sqlite3.connect(folder / "state.db")) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            db.execute("PRAGMA journal_mode = DELETE")
        return (folder / "state.db").read_bytes()


@cache
def _rows() -> list[tuple[str, str, Any]]:
    """Every table and column, with a value it has."""
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(_whole())
        with closing(sqlite3.connect(file.name)) as db:
            tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return [(table, column, (db.execute(f"SELECT {column} FROM {table} LIMIT 1").fetchone() or [""])[0])
                    for table in tables for _, column, *_ in db.execute(f"PRAGMA table_info({table})").fetchall()]  # fmt: skip


def judged(data: bytes) -> str:
    """Put a state there, and have calls and commands go by it."""
    said = json.loads(data)
    folder = Path.cwd().parent / "state"
    folder.mkdir(mode=0o700)
    try:
        _put(folder, said)
        if said["verb"] not in calls.VERBS:
            more = () if said["verb"].split()[0] in _OF_THE_NODE else ("--data-dir", str(folder))
            return commanded(*said["verb"].split(), *more)
        conf = _CONFS[said["plugin"]] | {"cni.dev/valid-attachments": [], "prevResult": calls.RESULT}
        environ = calls.ENVIRON | {"CNI_COMMAND": said["verb"]}
        return calls.judged(calls.packed(said["plugin"], environ, json.dumps(conf).encode()))
    finally:
        kept.let_go()
        if folder.is_dir():
            folder.chmod(0o700)
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            folder.unlink()


def _put(folder: Path, said: dict[str, Any]) -> None:
    file = folder / "state.db"
    match said["how"]:
        case "cut":
            file.write_bytes(_whole()[: said["at"]])
        case "flipped":
            raw = bytearray(_whole())
            for at, byte in said["bytes"]:
                raw[at % len(raw)] ^= byte
            file.write_bytes(raw)
        case "row":
            file.write_bytes(_whole())
            with closing(sqlite3.connect(file)) as db, suppress(sqlite3.Error):
                value = said["value"].encode("utf-8", "surrogatepass") if said["blob"] else said["value"]
                db.execute("PRAGMA ignore_check_constraints = 1")
                db.execute(f"UPDATE OR IGNORE {said['table']} SET {said['column']} = ?", (value,))
                db.commit()
        case "layout":
            file.write_bytes(_whole())
            with closing(sqlite3.connect(file)) as db:
                db.execute(f"PRAGMA user_version = {said['version']}")
        case "instead":
            _instead(folder, file, said["what"])
    with suppress(OSError):
        file.chmod(0o600)


def _instead(folder: Path, file: Path, what: str) -> None:
    match what:
        case "folder":
            file.mkdir()
        case "pipe":
            os.mkfifo(file)
        case "loop":
            file.symlink_to(file)
        case "empty":
            file.touch()
        case "garbage":
            file.write_bytes(b"\xff" * 9000)
        case "other SQLite":
            with closing(sqlite3.connect(file)) as db:
                db.execute("CREATE TABLE attachment (a)")
                db.commit()
        case "unreadable folder":
            folder.chmod(0o777)
        case "a file for the folder":
            folder.rmdir()
            folder.touch()


def _made(random: Random) -> bytes:
    said: dict[str, Any] = {
        "verb": random.choice((*calls.VERBS, *map(" ".join, _COMMANDS))),
        "plugin": random.choice(list(_CONFS)),
    }
    size = len(_whole())
    match random.randrange(6):
        case 0:
            said |= {
                "how": "cut",
                "at": random.choice((random.randrange(size), 4096 * random.randrange(size // 4096 + 1))),
            }
        case 1:
            many = random.choice((1, 1, 4, 64))
            said |= {
                "how": "flipped",
                "bytes": [[random.randrange(size), random.randrange(1, 256)] for _ in range(many)],
            }
        case 2:
            version = random.choice(
                (0, 1, 2, 3, 4, 5, 6, 7, 8, 99, -1, (1 << 31) - 1, 7 << 16 | 9, 1 << 16, 99 << 16 | 99)
            )
            said |= {"how": "layout", "version": version}
        case 3 if random.random() < 0.3:
            said |= {"how": "instead", "what": random.choice(_INSTEAD)}
        case _:
            table, column, value = random.choice(_rows())
            is_json = isinstance(value, str) and value[:1] in ("{", "[")
            text = changed(random, json.loads(value)) if is_json and random.random() < 0.8 else random.choice(
                ("", "x", "{}", "[]", "null", "1", "[1]", '[{"kind": "Nothing"}]', "[" * 2000, '{"a":' * 500, "\0", str(value) + "x"))  # fmt: skip
            said |= {"how": "row", "table": table, "column": column, "value": text, "blob": random.random() < 0.2}
            said["value"] = (
                random.choice((said["value"], said["value"], None, 5, 1 << 62))
                if not said["blob"] and random.random() < 0.15
                else said["value"]
            )
    return json.dumps(said).encode()


DOORS = (Door("state", _made, judged, 2000, apart=True),)
