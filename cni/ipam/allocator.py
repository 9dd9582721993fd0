"""Which address an attachment gets: the requested one, its old one, or the next free one."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from cni.errors import AddressTaken, RangeExhausted
from cni.ipam.config import IpamConfig
from cni.ipam.ranges import RangeSet, Span, first_gap
from cni.naming import Attachment, IPAddress
from cni.protocol.result import IPConfig, Result
from cni.state import Store
from cni.values import dataclass


@dataclass(frozen=True)
class Allocator:
    """Gives addresses within a transaction of the caller's; `pod` is ``namespace/name`` or empty."""

    config: IpamConfig
    store: Store
    attachment: Attachment
    plugin: str = ""
    pod: str = ""

    def allocate(self) -> Result:
        """One address of every range set. Raises AddressTaken or RangeExhausted."""
        wanted = list(self.config.requested)
        given = []
        for range_set in self.config.sets:
            request = next((address for address in wanted if address in range_set), None)
            if request:
                wanted.remove(request)
            given.append(self._lease(range_set, request))
        if wanted:
            raise AddressTaken(f"requested {', '.join(map(str, wanted))}: in no range of {self.attachment.network!r}")
        return Result(ips=tuple(given), routes=self.config.routes, dns=self.config.dns)

    def refuse_exhausted(self) -> None:
        """Raise RangeExhausted for the first range set without a free address; nothing is written.

        A set from which one certain address is asked for is not looked at: that it is given is no news.
        """
        asked = [item for item in self.config.sets if any(address in item for address in self.config.requested)]
        for range_set in (item for item in self.config.sets if item not in asked):
            if self.is_exhausted(range_set):
                raise RangeExhausted(self._exhausted(range_set))

    def is_exhausted(self, range_set: RangeSet) -> bool:
        """Whether a set has no free address."""
        return not any(self._free_in(span, set()) for span in range_set.spans_after(None))

    def _lease(self, range_set: RangeSet, request: IPAddress | None) -> IPConfig:
        address = self._checked(request) if request else self._next(range_set)
        self.store.lease(self.attachment, self.plugin, address)
        if not request:
            self.store.set_last_given(self.attachment.network, range_set.key, address)
        if self.config.sticky and self.pod:
            self.store.set_sticky(self.attachment.network, range_set.key, self.pod, self.attachment.ifname, address)
        part = range_set.of(address)
        return IPConfig(f"{address}/{part.subnet.prefixlen}", str(part.gateway or ""))

    def _checked(self, address: IPAddress) -> IPAddress:
        holder = self.store.holder(self.attachment.network, address)
        if holder:
            raise AddressTaken(f"{address} is leased to {holder.ifname} of container {holder.container}")
        if any(low <= int(address) <= high for low, high in self._never(address, address)):
            raise AddressTaken(f"{address} is reserved or a gateway in network {self.attachment.network!r}")
        return address

    def _next(self, range_set: RangeSet) -> IPAddress:
        kept = self.store.sticky(self.attachment.network, range_set.key) if self.config.sticky else {}
        mine = kept.pop((self.pod, self.attachment.ifname), None)
        if mine and mine in range_set and self._is_free(mine):
            return mine
        after = self.store.last_given(self.attachment.network, range_set.key)
        # what others come back to is given when nothing else is free
        for avoided in ({int(address) for address in kept.values()}, set[int]()):
            for span in range_set.spans_after(after):
                address = self._free_in(span, avoided)
                if address:
                    return address
        raise RangeExhausted(self._exhausted(range_set))

    def _exhausted(self, range_set: RangeSet) -> str:
        return f"network {self.attachment.network!r}: no free address in {range_set}"

    def _is_free(self, address: IPAddress) -> bool:
        return self._free_in((address, address), set()) is not None

    def _free_in(self, span: Span, avoided: set[int]) -> IPAddress | None:
        leased = ((value, value) for value in self.store.leased(self.attachment.network, *span))
        kept = ((value, value) for value in avoided)
        return first_gap(span, heapq.merge(leased, sorted([*kept, *self._never(*span)])))

    def _never(self, first: IPAddress, last: IPAddress) -> Iterator[tuple[int, int]]:
        return self.config.reserved_in(first.version, first, last)
