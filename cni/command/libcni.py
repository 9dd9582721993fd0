"""What libcni, with which runtimes call plugins, remembers of an attachment (libcni/api.go, cniCacheV1)."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from cni.naming import Attachment

#: Its CacheDir, where nobody names another.
CACHE = Path("/var/lib/cni")


def result_of(attachment: Attachment, cache: Path) -> dict[str, Any]:
    """The result of a whole list, plugins after ours included, or nothing where it is not remembered."""
    network, container, ifname = attachment
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads((cache / "results" / f"{network}-{container}-{ifname}").read_bytes())
        if isinstance(found, dict) and found.get("kind") == "cniCacheV1" and isinstance(found.get("result"), dict):
            return dict(found["result"])
    return {}
