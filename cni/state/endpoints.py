"""Which addresses of this host the cluster is to know of, and what it was told: the difference is what is to be said."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cni.naming import Attachment, IPAddress
from cni.state.file import StateFile

if TYPE_CHECKING:
    from cni.cluster.model import Block, Endpoint
    from cni.state.membership import Unsaid


class Endpoints(StateFile):
    """What is asked of and done to them. Changes are within a transaction of the caller's. Of what a call waits for the member hears
    after the commit; of pods when the state is closed or the call answered: its work would only be in the way of that.
    """

    #: Whether there is something for the member now, and whether there is later.
    _has_news = _has_more = False

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, as of any state; then the bell is rung."""
        outermost = not self._db.in_transaction
        with super().transaction():
            yield
        if outermost and self._has_news:
            from cni.kernel.bell import ring  # who is in no cluster never does

            self._has_news = False
            ring(self.path.parent)

    def close(self) -> None:
        """As of any state; and the bell is rung for what can wait for that."""
        super().close()
        if self._has_more:
            from cni.kernel.bell import ring_later

            self._has_more = False
            ring_later(self.path.parent)

    def say(self, endpoints: Iterable[Endpoint], plugin: str = "") -> None:
        """Have the cluster know of addresses: of pods by what plugin's record they go, or of the host itself."""
        rows = [
            (item.network, *_packed(item.address), item.container, item.ifname, plugin, json.dumps(item.value))
            for item in endpoints
        ]
        self._db.executemany(
            "INSERT INTO endpoint VALUES (?,?,?,?,?,?,?,NULL) ON CONFLICT (network, family, address) DO UPDATE SET"
            " (container, ifname, plugin, wanted) = (excluded.container, excluded.ifname, excluded.plugin, excluded.wanted)",
            rows,
        )
        self._has_more = True

    def say_health(self, network: str, addresses: Iterable[str], *, unhealthy: bool) -> None:
        """Have the cluster know whether a pod that has addresses is well, as far as it is to know of them. It is told at once."""
        for address in addresses:
            key = (network, *_packed(address))
            where = "(network, family, address) = (?,?,?)"
            for (wanted,) in self._rows(f"SELECT wanted FROM endpoint WHERE {where} AND wanted NOT NULL", *key):
                value = json.dumps(_known(network, address, wanted)._replace(unhealthy=unhealthy).value)
                if value != wanted:
                    self._db.execute(f"UPDATE endpoint SET wanted = ? WHERE {where}", (value, *key))
                    self._has_news = True

    def unsay(self, attachment: Attachment, plugin: str) -> None:
        """Have the cluster know of an attachment no more."""
        self._unsay("(network, container, ifname, plugin) = (?,?,?,?)", *attachment, plugin)

    def unsay_address(self, network: str, address: IPAddress) -> None:
        """Have the cluster know of an address no more."""
        self._unsay("(network, family, address) = (?,?,?)", network, address.version, address.packed)

    def _unsay(self, where: str, *values: object) -> None:
        self._db.execute(f"DELETE FROM endpoint WHERE {where} AND published IS NULL", values)
        changed = self._db.execute(f"UPDATE endpoint SET wanted = NULL WHERE {where}", values)
        self._has_more |= changed.rowcount > 0

    def said_by(self, attachment: Attachment, plugin: str) -> set[str]:
        """The addresses of an attachment the cluster is to know of."""
        where = "(network, container, ifname, plugin) = (?,?,?,?) AND wanted NOT NULL"
        rows = self._rows(f"SELECT address FROM endpoint WHERE {where}", *attachment, plugin)
        return {str(ipaddress.ip_address(packed)) for (packed,) in rows}

    def unsaid(self, most: int = 1000) -> list[Unsaid]:
        """What the cluster is to be told, some of it; of a lost block it is told nothing."""
        rows = self._rows(f"{_ENDPOINTS} WHERE wanted IS NOT published AND NOT {_IS_LOST} LIMIT ?", most)
        return [_unsaid(*row) for row in rows]

    def unsaid_of(self, block: Block, most: int) -> list[Unsaid]:
        """What the cluster is to be told of a block's addresses, some of it."""
        rows = self._rows(f"{_ENDPOINTS} WHERE wanted IS NOT published AND {_WITHIN} LIMIT ?", *_key(block), most)
        return [_unsaid(*row) for row in rows]

    def said_of(self, network: str = "") -> list[Unsaid]:
        """Every address of a network, or of all, the cluster knows of this host, or is to know."""
        return [_unsaid(*row) for row in self._rows(f"{_ENDPOINTS} WHERE ? IN ('', network)", network)]

    def told(self, network: str, address: str, known: Endpoint | None) -> None:
        """Keep what the cluster knows of an address of ours by now."""
        value = json.dumps(known.value) if known else None
        key = (network, *_packed(address))
        row = (*key, value)
        if known:  # one that no call has said: a state that was lost, or is an older copy; it is to be withdrawn
            self._db.execute("INSERT OR IGNORE INTO endpoint VALUES (?,?,?,'','','',NULL,?)", row)
        where = "(network, family, address) = (?,?,?)"
        self._db.execute(f"UPDATE endpoint SET published = ? WHERE {where}", (value, *key))
        self._db.execute(f"DELETE FROM endpoint WHERE {where} AND wanted IS NULL AND published IS NULL", key)

    def silence(self, block: Block) -> None:
        """Have nothing to say of a block's addresses any more, and have said nothing: it is not this host's."""
        self._db.execute(f"DELETE FROM endpoint WHERE {_WITHIN}", _key(block))

    def unlearn(self, block: Block) -> None:
        """Have said nothing of a block's addresses: of who has one of them here there is something to say again if it comes back."""
        gone = "(wanted IS NULL OR container = '')"
        self._db.execute(f"DELETE FROM endpoint WHERE {_WITHIN} AND {gone}", _key(block))
        self._db.execute(f"UPDATE endpoint SET published = NULL WHERE {_WITHIN}", _key(block))


_IS_LOST = (
    "EXISTS (SELECT 1 FROM block WHERE (block.network, block.family) = (endpoint.network, endpoint.family)"
    " AND endpoint.address BETWEEN block.first AND block.last AND block.state = 'lost')"
)
#: In a block, by its key.
_WITHIN = "(network, family) = (?,?) AND address BETWEEN ? AND ?"
_ENDPOINTS = "SELECT network, address, wanted, published FROM endpoint"


def _unsaid(network: str, packed: bytes, wanted: str | None, published: str | None) -> Unsaid:
    from cni.state.membership import Unsaid

    address = str(ipaddress.ip_address(packed))
    return Unsaid(network, address, _endpoint(network, address, wanted), _endpoint(network, address, published))


def _endpoint(network: str, address: str, value: str | None) -> Endpoint | None:
    return _known(network, address, value) if value else None


def _known(network: str, address: str, value: str) -> Endpoint:
    from cni.cluster.model import Endpoint

    return Endpoint.read((Endpoint.room, network, address), json.loads(value))


def _key(block: Block) -> tuple[str, int, bytes, bytes]:
    span = block.addresses
    return block.network, span.version, span[0].packed, span[-1].packed


def _packed(address: str) -> tuple[int, bytes]:
    parsed: IPAddress = ipaddress.ip_address(address)
    return parsed.version, parsed.packed
