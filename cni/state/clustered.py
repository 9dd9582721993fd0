"""What this host has of a cluster, where calls and the member meet: who it is there, the networks it shares, its blocks of their
addresses, what others are to know of its pods, and what calls wait for.

Calls write what is wanted, the member what is; there is no queue and no log: the difference is what is to be done. Who is in no
cluster loads nothing of one.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Collection
from functools import lru_cache
from typing import TYPE_CHECKING

from cni.naming import Attachment
from cni.state.endpoints import Endpoints
from cni.values import fields, replace

if TYPE_CHECKING:
    from cni.cluster.model import Block, Network
    from cni.state.membership import Holding, Member, Wish


class Clustered(Endpoints):
    """What is asked of and done to it. Changes are within a transaction of the caller's."""

    def member(self) -> Member | None:
        """This host's membership, None where it is in no cluster."""
        rows = self._rows("SELECT value FROM member")
        return _member(rows[0][0]) if rows else None

    def put_member(self, member: Member) -> None:
        """Say who this host is, and how it is."""
        self._db.execute("DELETE FROM member")
        self._db.execute("INSERT INTO member VALUES (?)", (json.dumps(vars(member)),))

    def say_tunnels(self, trouble: str) -> None:
        """Say why there are no tunnels; empty: there are."""
        if (member := self.member()) and member.no_tunnel != trouble:
            self.put_member(replace(member, no_tunnel=trouble))

    def forget_member(self) -> None:
        """Be in no cluster: nothing of it stays, but for the addresses that pods have."""
        for table in ("member", "shared", "block", "endpoint", "wish", "away"):
            self._db.execute(f"DELETE FROM {table}")

    def begin_anew(self) -> None:
        """Forget what only the member can say after a boot: who this host is, and which blocks are still its own. What the cluster
        was told is withdrawn, but for what is recorded.
        """
        for table in ("member", "block", "wish", "away"):
            self._db.execute(f"DELETE FROM {table}")
        self._db.execute("UPDATE shared SET refused = NULL")
        same = " AND ".join(f"one.{name} = endpoint.{name}" for name in ("network", "container", "ifname", "plugin"))
        self._unsay(f"NOT EXISTS (SELECT 1 FROM attachment AS one WHERE {same})")

    def keep_away(self, nodes: Collection[str], since: str) -> None:
        """Have just these hosts be away: those that were not, since then."""
        for node in self.away().keys() - {*nodes}:
            self._db.execute("DELETE FROM away WHERE node = ?", (node,))
        self._db.executemany("INSERT OR IGNORE INTO away VALUES (?,?)", [(node, since) for node in nodes])

    def away(self) -> dict[str, str]:
        """The hosts that are away, and since when, for people; nothing where that was not seen from here."""
        return dict(self._rows("SELECT node, since FROM away"))

    # --- networks

    def share(self, network: Network) -> None:
        """Say what this host's configuration says of a network it shares; of what is said anew the cluster is to be asked again."""
        row = (network.name, network.spelled)
        self._db.execute(
            "INSERT INTO shared VALUES (?,?,NULL) ON CONFLICT (network) DO UPDATE SET (value, refused) = (excluded.value, NULL)"
            " WHERE value IS NOT excluded.value",
            row,
        )
        self._has_news = True

    def refuse_network(self, network: str, why: str) -> None:
        """Say why the cluster does not take a network as this host has it; empty: it does."""
        self._db.execute("UPDATE shared SET refused = ? WHERE network = ?", (why, network))

    def shared(self, name: str = "") -> list[tuple[Network, str | None]]:
        """The networks this host shares, or one of them, each with why the cluster does not take it so: empty where it does, None
        where it was not asked yet.
        """
        rows = self._rows("SELECT network, value, refused FROM shared WHERE ? IN ('', network) ORDER BY 1", name)
        return [(_network(key, value), refused) for key, value, refused in rows]

    def refused(self, network: Network) -> list[str | None]:
        """The same of a network as it is said, without reading it: nothing where it is shared otherwise, or not at all."""
        query = "SELECT refused FROM shared WHERE (network, value) = (?,?)"
        return [refused for (refused,) in self._rows(query, network.name, network.spelled)]

    # --- blocks

    def put_block(self, block: Block, state: str = "held") -> None:
        """Have a block, in a state."""
        span = block.addresses
        row = (block.network, span.version, span[0].packed, span[-1].packed, json.dumps(block.value), state)
        self._db.execute("REPLACE INTO block VALUES (?,?,?,?,?,?)", row)

    def doubt_blocks(self) -> None:
        """Give nothing of those that are held before the member has looked at each."""
        self._db.execute("UPDATE block SET state = 'unsure' WHERE state = 'held'")
        self._has_news = True

    def drop_block(self, block: Block) -> None:
        """Have a block no more."""
        span = block.addresses
        key = (block.network, span.version, span[0].packed)
        self._db.execute("DELETE FROM block WHERE (network, family, first) = (?,?,?)", key)

    def blocks(self, network: str = "") -> list[Holding]:
        """This host's blocks of a network, or of all, in the order of their addresses."""
        from cni.cluster.model import Block
        from cni.state.membership import Holding

        query = (
            "SELECT network, first, last, value, state, (SELECT count(*) FROM lease WHERE lease.network = block.network"
            " AND lease.family = block.family AND lease.address BETWEEN block.first AND block.last)"
            " FROM block WHERE ? IN ('', network) ORDER BY network, family, first"
        )
        return [
            Holding(Block(name, _span(first, last), **json.loads(value)), state, leased)
            for name, first, last, value, state, leased in self._rows(query, network)
        ]

    def stranded(self) -> list[Attachment]:
        """The attachments that have an address of a block that is another host's by now: they are cut off."""
        query = (
            "SELECT DISTINCT lease.network, container, ifname FROM lease JOIN block ON lease.network = block.network"
            " AND lease.family = block.family AND lease.address BETWEEN block.first AND block.last WHERE block.state = 'lost'"
        )
        return [Attachment(*row) for row in self._rows(query)]

    def held(self, network: str) -> list[str]:
        """The blocks of a network this host gives addresses from, as CIDR."""
        query = "SELECT first, last FROM block WHERE network = ? AND state = 'held' ORDER BY family, first"
        return [_span(*row) for row in self._rows(query, network)]

    def has_blocks(self, network: str) -> bool:
        """Whether this host has, or had, a part of a network the cluster shares."""
        return bool(self._rows("SELECT 1 FROM block WHERE network = ? LIMIT 1", network))

    def guest_of(self) -> list[str]:
        """The networks this host has a block of, and no pod."""
        rows = self._rows(
            "SELECT DISTINCT network FROM block WHERE network NOT IN (SELECT network FROM shared)"
            " AND network NOT IN (SELECT network FROM lease) ORDER BY 1"
        )
        return [name for (name,) in rows]

    def outside_blocks(self, network: str) -> list[str]:
        """Leased addresses of a network that are in no block of this host, the first few."""
        rows = self._rows(
            "SELECT address FROM lease WHERE network = ? AND NOT EXISTS (SELECT 1 FROM block WHERE block.network = lease.network"
            " AND block.family = lease.family AND lease.address BETWEEN block.first AND block.last) LIMIT 3",
            network,
        )
        return [str(ipaddress.ip_address(packed)) for (packed,) in rows]

    # --- what calls wait for

    def wish(self, network: str, family: int, address: str = "") -> None:
        """Wait for one more block of a family, or for that of an address."""
        self._db.execute("REPLACE INTO wish VALUES (?,?,?,'')", (network, family, address))
        self._has_news = True

    def wishes(self) -> list[Wish]:
        """What calls wait for, answered or not."""
        from cni.state.membership import Wish

        return [Wish(*row) for row in self._rows("SELECT * FROM wish ORDER BY 1, 2, 3")]

    def answer(self, wish: Wish, why: str) -> None:
        """Say why what a call waits for cannot be had; empty: it can, and is there."""
        key = (wish.network, wish.family, wish.address)
        if why:
            self._db.execute("UPDATE wish SET answer = ? WHERE (network, family, address) = (?,?,?)", (why, *key))
        else:
            self._db.execute("DELETE FROM wish WHERE (network, family, address) = (?,?,?)", key)


@lru_cache(maxsize=2)
def _member(text: str) -> Member:
    from cni.state.membership import Member

    known = {field.name for field in fields(Member)}  # another release may have written what this one does not know
    return Member(**{name: value for name, value in json.loads(text).items() if name in known})


@lru_cache(maxsize=64)
def _network(name: str, text: str) -> Network:
    from cni.cluster.model import Network

    return Network.read((Network.room, name), json.loads(text))


@lru_cache(maxsize=1024)
def _span(first: bytes, last: bytes) -> str:
    (network,) = ipaddress.summarize_address_range(ipaddress.ip_address(first), ipaddress.ip_address(last))
    return str(network)
