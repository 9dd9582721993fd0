"""Which attachments follow which feed: asked of the configurations that are recorded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cni.naming import CLUSTER, Attachment
from cni.state.layout import parsed
from cni.state.records import Records


class Fed(NamedTuple):
    """An attachment that follows a feed, by whose record, in which folder's state, its pod (``namespace/name``), and which namespace that has."""

    feed: str
    attachment: Attachment
    plugin: str
    pod: str
    folder: Path
    netns_id: str = ""


#: What tells of an attachment whether it follows a feed, and which.
Feedable = tuple[str, ...]


class Feeding(Records):
    """What is asked of one folder."""

    def fed(self, known: Mapping[Feedable, Fed | None] | None = None) -> dict[Feedable, Fed | None]:
        """Every attachment, and what it follows, if anything; what is `known` of one is not judged again."""
        rows = self._rows(
            "SELECT network, container, ifname, plugin, pod, netns_id, config FROM attachment WHERE complete"
        )
        said = known or {}
        return {row: said[row] if row in said else _fed(row, self.path.parent) for row in rows}


def _fed(row: Feedable, folder: Path) -> Fed | None:
    *key, plugin, pod, netns_id, config = row
    found = parsed(config)
    feed = feed_of(found) if isinstance(found, dict) else ""
    return Fed(feed, Attachment(*key), plugin, pod, folder, netns_id) if feed else None


def feed_of(netconf: Mapping[str, Any]) -> str:
    """Where a configuration's documents come from, ``folder /path`` or ``cluster``; nothing where it names no feed."""
    section = netconf.get("policy")
    said = section if isinstance(section, dict) else {}
    folder = said.get("policyDir")
    return CLUSTER if said.get("cluster") else f"folder {Path(folder)}" if folder and isinstance(folder, str) else ""
