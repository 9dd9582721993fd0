"""What a refresh found of attachments that needed nothing: by what each is known again, so that the next one need not ask it all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from cni.state.file import StateFile

TABLE = """
CREATE TABLE IF NOT EXISTS standing (
    folder TEXT, network TEXT, container TEXT, ifname TEXT, plugin TEXT,
    value TEXT NOT NULL,                      -- JSON: see Stood; for nobody: as of when all the others stood
    PRIMARY KEY (folder, network, container, ifname, plugin)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS judged (
    feed TEXT PRIMARY KEY,
    value TEXT NOT NULL                       -- JSON: see Judged
) WITHOUT ROWID;
"""
#: An attachment's folder, network, container, interface and plugin.
Key = tuple[str, str, str, str, str]
_NOBODY: Key = ("", "", "", "", "")


class Stood(NamedTuple):
    """An attachment that needed nothing: what told its record, and its rules by the `names` they go by, from others; the `revision` of
    the feed it follows; its namespace by path and identity; the `links` of the host that its gates hang on, by index; and what is asked
    besides, as a record spells it: what is its `own`, what is `shared`, and what of that goes `by_rules`.
    """

    record: str
    rules: str
    names: list[str]
    feed: str
    revision: int
    netns: str
    netns_id: str
    links: dict[str, int]
    own: str
    shared: str
    by_rules: str


class Judged(NamedTuple):
    """What a `release` found wrong with the policies of a feed at a `revision`."""

    release: str
    revision: int
    faults: list[str]


class Stands(StateFile):
    """What is asked of and done to it."""

    def stood(self) -> tuple[dict[Key, Stood], str]:
        """What is known of each, and as of when all of it was so."""
        found = {tuple(key): value for *key, value in self._rows("SELECT * FROM standing")}
        as_of = found.pop(_NOBODY, "")
        return {key: Stood(*json.loads(value)) for key, value in found.items()}, as_of

    def judged(self) -> dict[str, Judged]:
        """What is known to be wrong with the policies of feeds."""
        return {feed: Judged(*json.loads(value)) for feed, value in self._rows("SELECT * FROM judged")}

    def judge(self, found: Mapping[str, Judged]) -> None:
        """Know this of feeds."""
        with self.transaction():
            rows = [(feed, json.dumps(item)) for feed, item in found.items()]
            self._db.executemany("REPLACE INTO judged VALUES (?,?)", rows)

    def stand(self, known: Mapping[Key, Stood], gone: Iterable[Key], as_of: str) -> None:
        """Know these, and those `gone` no more."""
        with self.transaction():
            rows = [(*_NOBODY, as_of), *((*key, json.dumps(item)) for key, item in known.items())]
            self._db.executemany("REPLACE INTO standing VALUES (?,?,?,?,?,?)", rows)
            where = "(folder, network, container, ifname, plugin) = (?,?,?,?,?)"
            self._db.executemany(f"DELETE FROM standing WHERE {where}", list(gone))
