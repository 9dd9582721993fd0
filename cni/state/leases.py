"""Leases: which address belongs to whom, which was given last, and which are kept for pods that may come back.

Addresses are kept as bytes, so that they sort.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from cni.naming import Attachment, IPAddress
from cni.state.file import StateFile, busy

#: Who holds, instead of a plugin, the address of a pod that another network made; its link stands for its container.
ANOTHER_NETWORK = "another network"


class Leases(StateFile):
    """What is asked of and done to them."""

    def lease(self, attachment: Attachment, plugin: str, address: IPAddress) -> None:
        """Lease an address. sqlite3.IntegrityError if somebody holds it."""
        network, container, ifname = attachment
        row = (network, address.version, address.packed, container, ifname, plugin)
        self._db.execute("INSERT INTO lease VALUES (?,?,?,?,?,?)", row)

    def release(self, network: str, address: IPAddress) -> None:
        """Give back one address, whoever holds it."""
        key = (network, address.version, address.packed)
        self._db.execute("DELETE FROM lease WHERE (network, family, address) = (?,?,?)", key)

    def leases(self, attachment: Attachment, plugin: str) -> list[IPAddress]:
        """The addresses an attachment holds."""
        where = "(network, container, ifname, plugin) = (?,?,?,?)"
        query = f"SELECT address FROM lease WHERE {where} ORDER BY family, address"
        return [ipaddress.ip_address(packed) for (packed,) in self._rows(query, *attachment, plugin)]

    def all_leases(self) -> list[tuple[IPAddress, Attachment, str]]:
        """Every lease: address, attachment and the plugin that holds it."""
        rows = self._rows("SELECT address, network, container, ifname, plugin FROM lease ORDER BY 2, family, 1")
        return [(ipaddress.ip_address(packed), Attachment(*key), plugin) for packed, *key, plugin in rows]

    def leases_by(self, plugin: str) -> list[tuple[str, IPAddress]]:
        """The network and the address of every lease that a plugin holds."""
        rows = self._rows("SELECT network, address FROM lease WHERE plugin = ?", plugin)
        return [(network, ipaddress.ip_address(packed)) for network, packed in rows]

    def leases_between(self, network: str, first: IPAddress, last: IPAddress) -> list[tuple[IPAddress, Attachment]]:
        """The leases of addresses between two, ascending, and whose each is."""
        query = (
            "SELECT address, network, container, ifname FROM lease"
            " WHERE network = ? AND family = ? AND address BETWEEN ? AND ? ORDER BY address"
        )
        rows = self._rows(query, network, first.version, first.packed, last.packed)
        return [(ipaddress.ip_address(packed), Attachment(*key)) for packed, *key in rows]

    def holder(self, network: str, address: IPAddress) -> Attachment | None:
        """Who holds an address, or None."""
        query = "SELECT network, container, ifname FROM lease WHERE (network, family, address) = (?,?,?)"
        rows = self._rows(query, network, address.version, address.packed)
        return Attachment(*rows[0]) if rows else None

    def leased(self, network: str, first: IPAddress, last: IPAddress) -> Iterator[int]:
        """The leased addresses between two, ascending, as integers, read as they are asked for."""
        query = (
            "SELECT address FROM lease WHERE network = ? AND family = ? AND address BETWEEN ? AND ? ORDER BY address"
        )
        with busy(self.path):
            for (packed,) in self._db.execute(query, (network, first.version, first.packed, last.packed)):
                yield int.from_bytes(packed)

    def last_given(self, network: str, range_set: str) -> IPAddress | None:
        """The address a range set gave last, or None."""
        query = "SELECT address FROM last_given WHERE (network, range_set) = (?,?)"
        rows = self._rows(query, network, range_set)
        return ipaddress.ip_address(rows[0][0]) if rows else None

    def set_last_given(self, network: str, range_set: str, address: IPAddress) -> None:
        """Remember what a range set gave last."""
        self._db.execute("REPLACE INTO last_given VALUES (?,?,?)", (network, range_set, str(address)))

    def sticky(self, network: str, range_set: str) -> dict[tuple[str, str], IPAddress]:
        """The addresses kept for pods (``namespace/name``) that may come back, by pod and interface."""
        query = "SELECT pod, ifname, address FROM sticky WHERE (network, range_set) = (?,?)"
        return {tuple(whose): ipaddress.ip_address(packed) for *whose, packed in self._rows(query, network, range_set)}

    def set_sticky(self, network: str, range_set: str, pod: str, ifname: str, address: IPAddress) -> None:
        """Keep an address for an interface of a pod, and for no other."""
        key = (network, range_set, address.version, address.packed)
        self._db.execute("DELETE FROM sticky WHERE (network, range_set, family, address) = (?,?,?,?)", key)
        row = (network, pod, ifname, range_set, address.version, address.packed)
        self._db.execute("REPLACE INTO sticky VALUES (?,?,?,?,?,?)", row)
