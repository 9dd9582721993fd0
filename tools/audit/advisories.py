"""What is known to be vulnerable of the pinned packages: advisories.json, for machines that reach no database.

`.venv/bin/python3 tools/audit/advisories.py CHECKOUT` writes it anew from a checkout of pypa/advisory-database. Its
records are OSV's (https://ossf.github.io/osv-schema/), of which this keeps what decides whether a version is affected.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from packaging.utils import canonicalize_name
from packaging.version import Version
from pins import pins

KEPT = Path(__file__).parent / "advisories.json"

Advisory = dict[str, Any]


def faults(kept: Mapping[str, Any], pinned: Mapping[str, str]) -> list[str]:
    """What is wrong with pinned versions by a kept list: those that are affected, and those nobody has looked up."""
    found = [
        f"{name} {version}: nobody has looked it up for tools/audit/advisories.json"
        for name, version in pinned.items()
        if name not in kept["packages"]
    ]
    for name, version in pinned.items():
        known = (item for item in kept["packages"].get(name, ()) if affects(item, version))
        found += [f"{name} {version}: {item['id']} {' '.join(item['aliases'])}".rstrip() for item in known]
    return found


def affects(advisory: Advisory, version: str) -> bool:
    """Whether it is one of the versions that an advisory names, or in one of its ranges."""
    named = Version(version) in (Version(item) for item in advisory["versions"])
    return named or any(_within(Version(version), events) for events in advisory["ranges"])


def _within(version: Version, events: Iterable[Mapping[str, str]]) -> bool:
    """The last event that this version has come to decides, as OSV has it. `0` is before all versions."""
    inside = False
    for kind, at in sorted((next(iter(event.items())) for event in events), key=lambda event: Version(event[1])):
        if kind == "introduced":
            inside = inside or at == "0" or version >= Version(at)
        elif version > Version(at) or (kind == "fixed" and version == Version(at)):
            inside = False
    return inside


def read(database: Path, names: Iterable[str]) -> dict[str, Any]:
    """A list to keep: what a checkout of pypa/advisory-database has of packages, of which there may be nothing."""
    if not (folder := database / "vulns").is_dir():
        raise SystemExit(f"{database}: no checkout of pypa/advisory-database, which has a folder vulns")
    records = {
        name: [yaml.safe_load(file.read_text()) for file in sorted((folder / name).glob("*.yaml"))] for name in names
    }
    standing = {name: [item for item in found if not item.get("withdrawn")] for name, found in records.items()}
    return {
        "source": "pypa/advisory-database",
        "asked": datetime.now(UTC).date().isoformat(),
        "newest": max((str(item["modified"]) for found in standing.values() for item in found), default=""),
        "packages": {name: [_kept(item, name) for item in found] for name, found in sorted(standing.items())},
    }


def _kept(record: Mapping[str, Any], name: str) -> Advisory:
    """Its ranges of versions; the versions one by one only where it has no range of them."""
    affected = [part for part in record["affected"] if canonicalize_name(part["package"]["name"]) == name]
    ranges = [item["events"] for part in affected for item in part.get("ranges", ()) if item["type"] == "ECOSYSTEM"]
    versions = [] if ranges else [version for part in affected for version in part["versions"]]
    return {"id": record["id"], "aliases": record.get("aliases", []), "ranges": ranges, "versions": versions}


if __name__ == "__main__":
    KEPT.write_text(json.dumps(read(Path(sys.argv[1]), pins()), indent=1) + "\n")
