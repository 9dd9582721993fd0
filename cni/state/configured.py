"""What networks say now: what of their resources follows the configuration, whichever attachment brought it.

A row is of one network and plugin and of one thing of the node that attachments mention, such as the tunnel of a bridge: those
attachments are served by it. It outlives them, as what is shared does, and is a fact until another ADD or a refresh says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cni.resources import Resource, Said
from cni.state.records import Record, Records, resources_of, spelled


class Place(NamedTuple):
    """Whose row it is, and about what."""

    network: str
    plugin: str
    place: str


def said_by(record: Record) -> list[tuple[Place, list[Resource]]]:
    """What of a record follows its network's configuration, with what of the node it is about."""
    found = [item for item in record.resources if item.configured]
    names = [name for item in found for name in item.mentions]
    return [(Place(record.attachment.network, record.plugin, name), found) for name in names]


def is_of_cluster(item: Resource) -> bool:
    """Whether it is a device that other hosts of a cluster know; its kind is asked for by name, so that nobody loads it for that."""
    return item.kind == "VxlanLink" and bool(vars(item)["mac"])


class Configured(Records):
    """What is asked of and done to what one folder's networks say."""

    _has_news = False

    def put_configured(self, place: Place, resources: Sequence[Resource]) -> None:
        """Say what a network makes of a place now; of a device that a cluster's hosts know the member hears."""
        self._has_news |= any(map(is_of_cluster, resources))
        self._db.execute("INSERT OR REPLACE INTO configured VALUES (?,?,?,?)", (*place, spelled(resources)))

    def is_configured(self, place: Place, resources: Sequence[Resource]) -> bool:
        """Whether a network says just that."""
        query = "SELECT 1 FROM configured WHERE (network, plugin, place, resources) = (?,?,?,?)"
        return bool(self._rows(query, *place, spelled(resources)))

    def configured(self, network: str, plugin: str) -> dict[Place, tuple[Resource, ...]]:
        """What a network says of each place."""
        rows = self._rows("SELECT * FROM configured WHERE (network, plugin) = (?,?)", network, plugin)
        return {Place(*key): resources_of(text) or () for *key, text in rows}

    def as_said(self, record: Record) -> Record:
        """A record; what of it follows the configuration is what its network says now."""
        known = said_by(record)
        now = self.configured(record.attachment.network, record.plugin) if known else {}
        there = self._here([item for place, items in known for item in now.get(place, items)])
        return record.having(resources=(*(item for item in record.resources if not item.configured), *there))

    def said(self, besides: Iterable[Place] = ()) -> dict[Place, Said]:
        """What every network says of each place, but of some places."""
        left_out = set(besides)
        query = (
            "SELECT network, plugin, place, resources, EXISTS (SELECT 1 FROM uses WHERE (uses.place, uses.network, uses.plugin)"
            " = (configured.place, configured.network, configured.plugin)) FROM configured"
        )
        rows = ((Place(*key), text, bool(used)) for *key, text, used in self._rows(query))
        return {
            place: Said(place.network, tuple(self._here(resources_of(text) or ())), used)
            for place, text, used in rows
            if place not in left_out
        }

    def _here(self, resources: Sequence[Resource]) -> Sequence[Resource]:
        """What a network says, where its cluster's hosts know this one by now."""
        return resources
