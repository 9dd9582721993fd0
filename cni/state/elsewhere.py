"""Where pods of other hosts are, as the cluster's endpoints say: kept beside the documents, whose labels say who they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from cni.state.file import StateFile

TABLE = """
CREATE TABLE IF NOT EXISTS elsewhere (
    address TEXT, network TEXT,               -- of the cluster
    namespace TEXT NOT NULL, name TEXT NOT NULL,  -- whose it is
    subnet TEXT NOT NULL,                     -- the network's that it is of, or nothing
    PRIMARY KEY (address, network)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS elsewhere_named ON elsewhere (namespace, name);
CREATE TABLE IF NOT EXISTS elsewhere_revision (revision INTEGER NOT NULL);  -- counts what changed of it
INSERT INTO elsewhere_revision VALUES (0);
"""
#: An address and its network.
Spot = tuple[str, str]


class Far(NamedTuple):
    """Whose an address of the cluster is, and its subnet there, empty where that is not known."""

    namespace: str
    name: str
    subnet: str


class Elsewhere(StateFile):
    """What is asked of and done to it."""

    def far(self, spots: Iterable[Spot] | None = None) -> dict[Spot, Far]:
        """What is known of some addresses, or of all."""
        query = "SELECT address, network, namespace, name, subnet FROM elsewhere"
        if spots is None:
            rows = self._rows(query)
        else:
            rows = [row for spot in spots for row in self._rows(f"{query} WHERE (address, network) = (?,?)", *spot)]
        return {(address, network): Far(*rest) for address, network, *rest in rows}

    def far_pods(self, names: Iterable[tuple[str, str]] | None, addresses: Iterable[str]) -> list[tuple[str, Far]]:
        """The addresses of pods by namespace and name, or of all, and whose some addresses are."""
        query = "SELECT address, namespace, name, subnet FROM elsewhere WHERE"
        if not self._rows("SELECT 1 FROM elsewhere LIMIT 1"):
            return []
        if names is None:
            return [(address, far) for (address, _), far in self.far().items()]
        rows = [row for name in names for row in self._rows(f"{query} (namespace, name) = (?,?)", *name)]
        rows += [row for address in addresses for row in self._rows(f"{query} address = ?", address)]
        return [(address, Far(*rest)) for address, *rest in dict.fromkeys(map(tuple, rows))]

    def put_far(self, there: Mapping[Spot, Far], gone: Iterable[Spot]) -> None:
        """Know these, and those that are gone no more. In a transaction of the caller's."""
        self._db.executemany(
            "REPLACE INTO elsewhere VALUES (?,?,?,?,?)", [(*spot, *far) for spot, far in there.items()]
        )
        self._db.executemany("DELETE FROM elsewhere WHERE (address, network) = (?,?)", list(gone))
        self._db.execute("UPDATE elsewhere_revision SET revision = revision + 1")

    def far_revision(self) -> int:
        """What is another when any of it is."""
        return int(self._rows("SELECT revision FROM elsewhere_revision")[0][0])
