"""Addresses of our own ranges and leases, and none at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from cni.errors import Conflict, RangeExhausted, Unavailable
from cni.ipam.allocator import Allocator
from cni.ipam.config import IpamConfig
from cni.naming import Attachment, interface_of
from cni.protocol.result import Result
from cni.state import Record, Store
from cni.values import dataclass


@dataclass(frozen=True)
class Nothing:
    """A layer 2 attachment."""

    delegated: ClassVar[bool] = False
    clustered: ClassVar[bool] = False

    @property
    def speaks_on_link(self) -> bool:
        """There is nobody to tell."""
        return False

    def refuse_missing(self) -> None:
        """There is nobody to look for."""

    @contextmanager
    def reserving(self, store: Store, record: Record) -> Iterator[Result]:
        """One transaction: the record is written when all of it is known."""
        with store.planning():
            yield self._reserved(store, record)

    def _reserved(self, store: Store, record: Record) -> Result:
        """There are no addresses."""
        return Result()

    def told(self, store: Store, record: Record, result: Result) -> None:
        """Nobody else is to know."""

    def on_the_whole(self, lease: Result) -> Result:
        """An address says its subnet."""
        return lease

    def release(self) -> None:
        """There is nobody to tell: leases go with the record."""

    def preview(self) -> Result:
        """There are no addresses."""
        return Result()

    def differences(self, store: Store, record: Record, given: Result) -> Iterator[str]:
        """There is nothing to lose."""
        yield from ()

    def restore(self, store: Store, record: Record, given: Result) -> None:
        """There is nothing to lose."""

    def refuse_when_exhausted(self, store: Store | None, network: str) -> None:
        """There is nothing to run out of."""

    def sweep(self) -> None:
        """There is nobody to tell."""


@dataclass(frozen=True)
class Own(Nothing):
    """The suite's IPAM; the record's deletion releases its leases."""

    config: IpamConfig

    def preview(self) -> Result:
        """The first address of every range set."""
        return self.config.first_addresses()

    def _reserved(self, store: Store, record: Record) -> Result:
        """Write the leases. Raises AddressTaken, RangeExhausted, and Conflict where a cluster's hosts give the same addresses."""
        network = record.attachment.network
        if store.has_blocks(network):
            raise Conflict(
                f"network {network!r} is the cluster's, whose hosts give its addresses; here ipam.cluster is not set"
            )
        who = (record.attachment, record.plugin, record.pod)
        return Allocator(self.config, store, *who).allocate()

    def here(self, store: Store) -> IpamConfig:
        """What this host gives addresses from."""
        return self.config

    def differences(self, store: Store, record: Record, given: Result) -> Iterator[str]:
        """Name each address whose lease is gone."""
        held = {str(address) for address in store.leases(record.attachment, record.plugin)}
        for ip in given.ips:
            if ip.address.split("/")[0] not in held:
                yield f"lease of {ip.address} in network {record.attachment.network!r} is missing"

    def restore(self, store: Store, record: Record, given: Result) -> None:
        """Lease again what is not leased any more. Raises Conflict where it is another's by now."""
        network, held = record.attachment.network, store.leases(record.attachment, record.plugin)
        with store.transaction():
            for address in (interface_of(ip.address).ip for ip in given.ips):
                if address not in held and (holder := store.holder(network, address)):
                    raise Conflict(f"{address} is leased to {holder} by now")
                if address not in held:
                    store.lease(record.attachment, record.plugin, address)

    def refuse_when_exhausted(self, store: Store | None, network: str) -> None:
        """Raise Unavailable (50) naming the exhausted range set."""
        if store is None:
            return
        try:
            Allocator(self.config, store, Attachment(network, "", "")).refuse_exhausted()
        except RangeExhausted as error:
            raise Unavailable(error.msg) from None
