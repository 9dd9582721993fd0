"""What a node has and its daemons hold, counted from outside: processes by /proc, tables by SQLite, the rest by the kernel."""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from lab import Host, eventually, sh

_TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")
_MOST = {"kib": max, "descriptors": max, "processes": sum}


def family(pid: int) -> list[int]:
    """A process and all that came of it."""
    found = [pid]
    for each in found:
        with suppress(OSError):
            for task in Path(f"/proc/{each}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def milliseconds(pids: Iterable[int]) -> float:
    """What processes, and children of theirs that ended, took of processors."""
    taken = 0
    for pid in pids:
        with suppress(OSError):
            taken += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]))
    return taken * _TICK_MS


def processes(pid: int) -> dict[str, int]:
    """The largest of a daemon's processes, by what is its own, and how many there are; KiB."""
    found: dict[str, list[int]] = {what: [] for what in _MOST}
    for each in family(pid):
        with suppress(OSError):
            rollup = Path(f"/proc/{each}/smaps_rollup").read_text()
            found["kib"].append(sum(int(line.split()[1]) for line in rollup.splitlines() if "Private_" in line))
            found["descriptors"].append(len(list(Path(f"/proc/{each}/fd").iterdir())))
            found["processes"].append(1)
    return {what: most(found[what]) for what, most in _MOST.items() if found[what]}


def rows(file: Path) -> dict[str, int]:
    """How many rows each table of a database has, and how many bytes it and its log."""
    if not file.exists():
        return {}
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=60)) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        count = "SELECT count(*) FROM {}".format
        found = {f"rows of {name}": db.execute(count(name)).fetchone()[0] for name in tables}
    return found | {f"bytes of {it.name}": it.stat().st_size for it in file.parent.glob(f"{file.name}*")}


def _listed(host: Host) -> list[dict[str, Any]]:
    """What nft lists; nothing where it says half of it, as of rules that change meanwhile."""
    try:
        return list(json.loads(host.run("nft", "-j", "list", "ruleset").stdout)["nftables"])
    except json.JSONDecodeError:
        return []


def kernel(host: Host) -> dict[str, int]:
    """What the node's namespace has of each kind. What the kernel ages by itself is left out."""
    listed: list[dict[str, Any]] = eventually(lambda: _listed(host))
    kinds = Counter(f"nft {kind}s" for item in listed for kind in item if kind != "metainfo")
    elements = sum(len(item.get("elem", ())) for entry in listed for item in entry.values() if isinstance(item, dict))
    found = dict(kinds) | {"nft elements": elements}
    found["links"] = len(host.ip("link", "show"))
    found["addresses"] = sum(map(len, host.all_addresses().values()))
    for version in (4, 6):
        found[f"routes of IPv{version}"] = len(host.routes(version, "all"))
        found[f"neighbours of IPv{version}"] = len(host.ip("neigh", "show", "nud", "permanent", family=version))
        found[f"policy rules of IPv{version}"] = len(host.ip("rule", "show", family=version))
    fdb = sh("bridge", "-n", host.name, "fdb", "show").stdout.splitlines()
    found["rows of FDBs"] = len([row for row in fdb if " dst " in row])
    return found


def files(*folders: Path) -> dict[str, int]:
    """How many files there are below each folder."""
    return {f"files in {folder.name}": sum(1 for item in folder.rglob("*") if item.is_file()) for folder in folders}
