"""Addresses that all hosts of a cluster give each once: out of blocks this host has, and no other.

A call never speaks to the cluster's store. It says in the state what it lacks, and waits for a moment for the member, who does.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from cni.cluster.blocks import block_of
from cni.cluster.model import LAYER_2, LAYER_3, Endpoint, Network
from cni.errors import (
    AddressTaken,
    Conflict,
    Degraded,
    RangeExhausted,
    TryAgainLater,
    Unavailable,
)
from cni.ipam.allocator import Allocator
from cni.ipam.config import IpamConfig
from cni.ipam.network import DEFAULT_BLOCK, pools_of, refuse_unshareable, spans_of, with_ways, within
from cni.ipam.own import Own
from cni.kernel.clock import boottime
from cni.naming import Attachment, IPAddress, interface_of
from cni.protocol.config import NetConf
from cni.protocol.result import IPConfig, Result
from cni.state import Record, Store
from cni.state.membership import LOST, SHUT, Member, Wish
from cni.values import dataclass, replace

#: How long a call waits for the member, and after what times it looks, in seconds: soon at first, and each time later, for many may wait.
PATIENCE, SOON, LATER = 1.0, 0.002, 0.064


class _Lacking(Exception):
    """Something must be had of the cluster first."""


@dataclass(frozen=True)
class Shared(Own):
    """A network over all hosts of the cluster; `network` is what each of them must say alike of it."""

    network: Network
    clustered: ClassVar[bool] = True

    @classmethod
    def read(cls, config: IpamConfig, netconf: NetConf, vni: int, mode: str, port: int) -> Shared:
        """Read a validated configuration. Raises InvalidConfig for what only one host could mean."""
        refuse_unshareable(config, netconf, mode)
        size = int(netconf["ipam"].get("blockSize") or DEFAULT_BLOCK)
        reserved = tuple(spans_of(config))
        network = Network(netconf["name"], pools_of(config, mode), size, mode or LAYER_2, vni, reserved, port)
        if (netconf.get("vxlan") or {}).get("direct"):
            network = replace(network, direct=True)
        if netconf.get("names") is not None:
            network = replace(network, names=True)
        return cls(with_ways(config) if mode == LAYER_3 else config, network)

    def preview(self) -> Result:
        """The first address of every range set, as if its block were this host's."""
        blocks = []
        for item in self.config.sets:
            asked = next((address for address in self.config.requested if address in item), None)
            blocks += [block_of(self.network, asked or item.ranges[0].first)]
        return within(self.config, self.network, list(filter(None, blocks))).first_addresses()

    @contextmanager
    def reserving(self, store: Store, record: Record) -> Iterator[Result]:
        """One transaction, as with addresses of one host; what is lacking is waited for before, outside of any.

        Raises TryAgainLater where it cannot be had now, Conflict where the cluster has another network of that name.
        """
        until = time.monotonic() + PATIENCE
        while True:
            try:
                with store.planning():
                    yield self._reserved(store, record)
                    return
            except _Lacking:
                wishes = self._wished(store)
            pause = SOON
            while True:  # what was had others may have taken meanwhile, and then it is wished for again
                if time.monotonic() > until:
                    raise self._late(store)
                if self._is_granted(store, wishes):
                    break
                time.sleep(pause)
                pause = min(2 * pause, LATER)

    def told(self, store: Store, record: Record, result: Result) -> None:
        """Have the cluster know where each address is, and by which MAC; where nobody said one there is nothing to know."""
        member = store.member()
        network, container, ifname = record.attachment
        if member:
            names, unhealthy = _known_by(record)
            found = (
                Endpoint(network, address, member.node, mac, container, ifname, record.pod, names, unhealthy)
                for address, mac in _macs(result)
            )
            store.say(found, record.plugin)

    def on_the_whole(self, lease: Result) -> Result:
        """An address of a block that is a subnet of its own is one of the network's all the same."""
        return replace(lease, ips=tuple(map(self._on_the_whole, lease.ips)))

    def _on_the_whole(self, ip: IPConfig) -> IPConfig:
        address = interface_of(ip.address).ip
        pool = self.network.pool_of(address)
        return replace(ip, address=f"{address}/{pool.subnet.split('/')[1]}") if pool else ip

    def here(self, store: Store) -> IpamConfig:
        """What this host gives addresses from: the blocks it has."""
        return within(self.config, self.network, store.held(self.network.name))

    def differences(self, store: Store, record: Record, given: Result) -> Iterator[str]:
        """Name each address whose lease is gone, that is another host's by now, or that others do not know of."""
        yield from super().differences(store, record, given)
        lost = [item.block.addresses for item in store.blocks(self.network.name) if item.state == LOST]
        said = store.said_by(record.attachment, record.plugin)
        for ip in given.ips:
            address = interface_of(ip.address).ip
            if any(address in block for block in lost):
                yield f"{address} in network {self.network.name!r} is in a block that is another host's by now"
        for text, _ in _macs(given):
            if text not in said:
                yield f"{text} in network {self.network.name!r} is not told to the cluster"

    def refuse_when_exhausted(self, store: Store | None, network: str) -> None:
        """Raise Unavailable (50) where nothing is free and nothing can be had, Degraded (51) where pods may be cut off."""
        member = store.member() if store else None
        if store is None or member is None:
            raise Unavailable(self._outside)
        lost = [item.block.span for item in store.blocks(network) if item.state == LOST]
        if lost:
            raise Degraded(
                f"network {network!r}: {', '.join(lost)}: given to another host by now, and pods here may use it"
            )
        if why := self._shut(member):
            raise Degraded(why)
        for _, refused in store.shared(network):
            if refused:
                raise Unavailable(self._not_so(refused))
        try:
            Allocator(self.here(store), store, Attachment(network, "", "")).refuse_exhausted()
        except RangeExhausted:
            if member.trouble:
                raise Unavailable(f"{self._exhausted}, and none can be had now: {member.trouble}") from None

    def _reserved(self, store: Store, record: Record) -> Result:
        """Write the leases. Raises _Lacking."""
        if not self._is_agreed(store) or store.is_older():
            raise _Lacking
        config = self.here(store)
        if any(self._elsewhere(config)):
            raise _Lacking
        try:
            given = Allocator(config, store, record.attachment, record.plugin, record.pod).allocate()
        except RangeExhausted:
            raise _Lacking from None
        store.count_given()
        return given

    def _is_agreed(self, store: Store) -> bool:
        """Whether the cluster is known to have the network as this host has it. Raises TryAgainLater outside of any cluster, and
        Conflict where it has another.
        """
        member = store.member()
        if member is None:
            raise TryAgainLater(self._outside)
        if why := self._shut(member):
            raise TryAgainLater(why)
        refused = store.refused(self.network)
        if any(refused):
            raise Conflict(self._not_so(refused[0] or ""))
        return refused == [""]

    def _elsewhere(self, config: IpamConfig) -> Iterator[IPAddress]:
        """The addresses asked for that are in no block of this host. Raises AddressTaken for one that no pod can have."""
        for address in self.config.requested:
            if not any(address in item for item in self.config.sets):
                continue  # the allocator says so
            whole = within(self.config, self.network, [block_of(self.network, address) or ""])
            never = whole.reserved_in(address.version, address, address)
            if not any(address in item for item in whole.sets) or any(
                low <= int(address) <= high for low, high in never
            ):
                raise AddressTaken(f"{address} is reserved or a gateway in network {self.network.name!r}")
            if not any(address in item for item in config.sets):
                yield address

    def _wished(self, store: Store) -> list[Wish]:
        """Say what is lacking. Raises Conflict where pods have addresses of before the cluster gave them: other hosts may."""
        if store.is_older():
            store.doubt_copy()
        with store.transaction():
            if early := store.outside_blocks(self.network.name):
                pods = f"pods have addresses of before it was the cluster's ({', '.join(early)})"
                raise Conflict(f"network {self.network.name!r}: {pods}, which other hosts may give: delete them first")
            store.share(self.network)
            config = self.here(store)
            elsewhere = list(self._elsewhere(config))
            wishes = [Wish(self.network.name, item.version, str(item)) for item in elsewhere]
            allocator = Allocator(config, store, Attachment(self.network.name, "", ""))
            for item, whole in zip(config.sets, self.config.sets, strict=True):
                if not any(address in whole for address in elsewhere) and allocator.is_exhausted(item):
                    wishes.append(Wish(self.network.name, whole.ranges[0].subnet.version))
            for wish in wishes:
                store.wish(wish.network, wish.family, wish.address)
        return wishes

    def _is_granted(self, store: Store, wishes: list[Wish]) -> bool:
        """Whether what was lacking is there. Raises what the member answered instead."""
        left = {wish[:3]: wish for wish in store.wishes()}
        mine = [left[wish[:3]] for wish in wishes if wish[:3] in left]
        answered = [wish for wish in mine if wish.answer]
        if answered:
            with store.transaction():
                for wish in answered:
                    store.answer(wish, "")
        agreed = self._is_agreed(store)
        for wish in answered:
            raise (AddressTaken if wish.address else RangeExhausted)(f"network {wish.network!r}: {wish.answer}")
        return agreed and not mine

    def _late(self, store: Store) -> TryAgainLater:
        member = store.member()
        trouble = member.trouble if member else self._outside
        return TryAgainLater(f"{self._exhausted}: {trouble or f'its member gave none within {PATIENCE:g} s'}")

    @property
    def _outside(self) -> str:
        return f"network {self.network.name!r} is the cluster's, and this host is in none: agent-cni join"

    def _shut(self, member: Member) -> str:
        """Why nobody is attached, whatever is free."""
        if member.leaving:
            return f"network {self.network.name!r}: {member.trouble}"
        if member.fenced_at and boottime() >= member.fenced_at:
            late = "the cluster has not heard of this host for too long (freeAfter)"
            return f"network {self.network.name!r}: {member.trouble if member.fenced_at == SHUT else late}"
        return ""

    @property
    def _exhausted(self) -> str:
        return f"network {self.network.name!r}: no address is free in this host's blocks"

    def _not_so(self, refused: str) -> str:
        return f"network {self.network.name!r} is another one in the cluster: {refused}"


def _known_by(record: Record) -> tuple[str, bool]:
    """The names of an attachment, and whether it is to be probed before anybody is told of it."""
    found = (vars(item) for item in record.resources if item.kind == "PodNames")
    return next(((" ".join(item["names"]), bool(item["health"])) for item in found), ("", False))


def _macs(result: Result) -> Iterator[tuple[str, str]]:
    """The addresses of a result, each with the MAC of its interface."""
    for ip in result.ips:
        if ip.interface is not None and (mac := result.interfaces[ip.interface].mac):
            yield ip.address.split("/")[0], mac
