"""One row per attachment and plugin: what an ADD planned and answered."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from cni.naming import Attachment, digest_of
from cni.resources import Resource, decoded, encoded
from cni.resources.base import Unknown
from cni.state.file import StateFile
from cni.state.layout import parsed
from cni.values import dataclass, field, replace

_KEY = "network, container, ifname, plugin"
_REST = ("netns", "pod", "complete", "config", "resources", "result", "netns_id", "home")
_COLUMNS = f"{_KEY}, {', '.join(_REST)}"


@cache
def _put(kept: tuple[str, ...]) -> str:
    """A row, new or changed but for the columns that are kept. No REPLACE, which would delete the row and what it uses with it."""
    changed = ", ".join(f"{name} = excluded.{name}" for name in _REST if name not in kept)
    values = ",".join("?" * (4 + len(_REST)))
    return f"INSERT INTO attachment ({_COLUMNS}) VALUES ({values}) ON CONFLICT ({_KEY}) DO UPDATE SET {changed}"


@dataclass(frozen=True)
class Record:
    """One attachment by one plugin. `config` is what the ADD ran with, `resources` what its plan
    held, `result` what it answered; `complete` once it has. `netns_id` says which namespace the path
    `netns` meant (`Netns.identity`), `home` from where that was seen (`whereabouts`); `unreadable` names the columns that are no
    JSON of ours: they are empty here, and stay in the file as they are; of resources the text is one that is Unknown. `folder` is where it was read, which is where it is to be changed.
    """

    attachment: Attachment
    plugin: str
    netns: str
    pod: str
    config: dict[str, Any]
    resources: tuple[Resource, ...] = ()
    result: dict[str, Any] | None = None
    complete: bool = False
    netns_id: str = ""
    home: str = ""
    unreadable: tuple[str, ...] = ()
    folder: Path | None = field(default=None, compare=False)

    def having(self, **changes: Any) -> Record:
        """This record with some fields changed."""
        return replace(self, **changes)

    def configured(self, netconf: dict[str, Any], pod: str) -> Record:
        """This record as of a call with another configuration."""
        unreadable = tuple(name for name in self.unreadable if name != "config")
        return self.having(config=netconf, pod=pod, unreadable=unreadable)

    def lasting(self, value: object) -> str:
        """A value by what stays true of it: a path may be one of several to a namespace, and lead to another one later."""
        return self.netns_id if self.netns_id and value == self.netns else str(value)


class Records(StateFile):
    """What is asked of and done to them."""

    def put(self, record: Record) -> None:
        """Write a record, new or changed; what of it could not be read stays as it is."""
        values = (
            *record.attachment, record.plugin, record.netns, record.pod, record.complete, json.dumps(record.config),
            spelled(record.resources), json.dumps(record.result), record.netns_id, record.home,
        )  # fmt: skip
        self._db.execute(_put(tuple(name for name in record.unreadable if name != "resources")), values)

    def forget(self, attachment: Attachment, plugin: str) -> None:
        """Delete a record and with it what it used, and give back its leases; absent ones are forgotten already."""
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

    def inside(self) -> list[Record]:
        """The complete records of attachments that have something in their pod's namespace which says so; the others are not read."""
        return self._records("complete AND resources LIKE ?", '%"netns": "/%')

    def digests(self) -> dict[tuple[Attachment, str], str]:
        """Of each complete record what tells it from what it was."""
        rows = self._rows(f"SELECT {_COLUMNS} FROM attachment WHERE complete")
        return {(Attachment(*row[:3]), row[3]): _digest(row) for row in rows}

    def digest(self, attachment: Attachment, plugin: str) -> str:
        """The same of one, which is there."""
        query = f"SELECT {_COLUMNS} FROM attachment WHERE (network, container, ifname, plugin) = (?,?,?,?)"
        return _digest(self._rows(query, *attachment, plugin)[0])

    def _records(self, where: str, *values: object) -> list[Record]:
        query = f"SELECT {_COLUMNS} FROM attachment WHERE {where} ORDER BY network, container, ifname"
        return [_read(row, self.path.parent) for row in self._rows(query, *values)]


def _digest(row: tuple[Any, ...]) -> str:
    return digest_of("\0".join(map(str, row)))


def spelled(resources: Sequence[Resource]) -> str:
    """Resources as a column holds them."""
    return json.dumps(encoded(resources))


def resources_of(column: object) -> tuple[Resource, ...] | None:
    """The resources of a column, or None for what is not ours."""
    found = parsed(column)
    if isinstance(found, list) and all(isinstance(item, dict) for item in found):
        return decoded(found)
    return None


def _text(column: object) -> str:
    """What a column says that is to be a text: a byte that fell over makes another sort of it."""
    if isinstance(column, bytes):
        return column.decode(errors="replace")
    return "" if column is None else str(column)


def _unreadable(text: object) -> Unknown:
    return Unknown("its resources", raw=json.dumps({"kind": "unreadable", "text": str(text)}))


def _read(row: tuple[Any, ...], folder: Path) -> Record:
    network, container, ifname, plugin, netns, pod = map(_text, row[:6])
    complete, *texts = row[6:-2]
    netns_id, home = map(_text, row[-2:])
    config, result = parsed(texts[0]), parsed(texts[2])
    resources = resources_of(texts[1])
    sound = {
        "config": isinstance(config, dict),
        "resources": resources is not None,
        "result": result is None or isinstance(result, dict),
    }
    return Record(
        Attachment(network, container, ifname), plugin, netns, pod,
        config if sound["config"] else {"name": network, "type": plugin, "dataDir": str(folder)},
        (_unreadable(texts[1]),) if resources is None else resources,
        result if sound["result"] else None,
        bool(complete), netns_id, home, tuple(name for name, is_so in sound.items() if not is_so), folder,
    )  # fmt: skip
