"""The rows a host is to have, by table: lean, because there may be 100,000, and saying what became another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from cni.resources import PeerAddress, PeerNeighbour, PeerRefusal, PeerRoute, PeerRow
from cni.resources.remote import RemoteRow

#: A kind of row, and the link they are on.
Table = tuple[type[RemoteRow], str]
#: In which order tables are filled: nothing leaves by another way first, and a route's source is an address of this host.
ORDER: tuple[type[RemoteRow], ...] = (PeerRefusal, PeerAddress, PeerRow, PeerNeighbour, PeerRoute)


class Changed(NamedTuple):
    """What is to be there now, and what no more, each in the order of ORDER, which goes backwards: then nothing that stays is
    missing meanwhile.
    """

    there: list[RemoteRow]
    gone: list[RemoteRow]


class Rows:
    """Values by key, by table."""

    def __init__(self) -> None:
        self.tables: dict[Table, dict[str, Any]] = {}
        self._before: dict[tuple[Table, str], Any] | None = None

    def put(self, kind: type[RemoteRow], link: str, key: str, value: Any) -> None:
        """Have a row say something; None: have no such row."""
        table = (kind, link)
        rows = self.tables.setdefault(table, {})
        before = rows.get(key)
        if value == before:
            return
        if self._before is not None:
            self._before.setdefault((table, key), before)
        if value is None:
            del rows[key]
        else:
            rows[key] = value

    def changed(self) -> Changed:
        """What became another since this was asked last; nothing the first time, when all is new."""
        there, gone = [], []
        for ((kind, link), key), before in sorted((self._before or {}).items(), key=_order):
            now = self.tables[kind, link].get(key)
            if now is not None and now != before:
                there.append(kind.of(link, key, now))
            elif now is None and before is not None:
                gone.append(kind.of(link, key, before))
        self._before = {}
        return Changed(there, gone)

    def resources(self) -> Iterator[RemoteRow]:
        """Every row."""
        for kind in ORDER:
            for (of, link), rows in self.tables.items():
                if of is kind:
                    yield from (kind.of(link, key, value) for key, value in rows.items())


def _order(item: tuple[tuple[Table, str], Any]) -> int:
    return ORDER.index(item[0][0][0])
