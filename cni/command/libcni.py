"""What libcni, with which runtimes call plugins, remembers of an attachment (libcni/api.go, cniCacheV1)."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from cni.naming import Attachment
from cni.protocol.config import version_of
from cni.protocol.result import Result
from cni.state import Record

#: Its CacheDir, where nobody names another.
CACHE = Path("/var/lib/cni")


def result_of(attachment: Attachment, cache: Path) -> dict[str, Any]:
    """The result of a whole list, plugins after ours included, or nothing where it is not remembered."""
    found = _cached(attachment, cache).get("result")
    return dict(found) if isinstance(found, dict) else {}


def ports_of(attachment: Attachment, cache: Path) -> list[str]:
    """The ports of the host that lead to an attachment, as its runtime asked a portmap for them: ``8080→80/tcp``."""
    asked = _cached(attachment, cache).get("capabilityArgs")
    found = asked.get("portMappings") if isinstance(asked, dict) else None
    items = [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
    known = [{str(key).lower(): value for key, value in item.items()} for item in items]
    return [f"{item.get('hostport')}→{item.get('containerport')}/{item.get('protocol') or 'tcp'}" for item in known]


def _cached(attachment: Attachment, cache: Path) -> dict[str, Any]:
    network, container, ifname = attachment
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads((cache / "results" / f"{network}-{container}-{ifname}").read_bytes())
        if isinstance(found, dict) and found.get("kind") == "cniCacheV1":
            return found
    return {}


def reported_of(record: Record, cache: Path) -> dict[str, Any]:
    """The result a CHECK would be given: the list's, else that of an ADD in its configuration's version, in which a delegate reads it; a
    chained one passed on what it got.
    """
    if found := result_of(record.attachment, cache):
        return found
    result = record.result or {}
    if not (result.get("interfaces") or result.get("ips")):
        return record.config.get("prevResult") or result
    return Result.read(result).render(version_of(record.config))
