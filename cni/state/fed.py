"""Which attachments follow which feed: asked of the configurations that are recorded."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from cni.naming import CLUSTER, Attachment
from cni.state.records import Records


class Fed(NamedTuple):
    """An attachment that follows a feed, by whose record, in which folder's state, and its pod (``namespace/name``)."""

    feed: str
    attachment: Attachment
    plugin: str
    pod: str
    folder: Path


class Feeding(Records):
    """What is asked of one folder."""

    def fed(self) -> list[Fed]:
        """The attachments that follow a feed."""
        rows = self._rows(
            "SELECT network, container, ifname, plugin, pod, json_extract(config, '$.policy.policyDir') AS directory,"
            " json_extract(config, '$.policy.cluster') AS cluster"
            " FROM attachment WHERE complete AND json_valid(config) AND (directory > '' OR cluster)"
        )
        return [
            Fed(CLUSTER if cluster else f"folder {Path(directory)}", Attachment(*key), plugin, pod, self.path.parent)
            for *key, plugin, pod, directory, cluster in rows
        ]
