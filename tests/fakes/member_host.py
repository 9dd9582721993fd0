"""A host of a cluster without threads: what its member does, turn by turn, over a store in memory and a state file of its own."""

from __future__ import annotations

import ipaddress
from contextlib import closing
from pathlib import Path
from typing import Any

from cluster_memory import Memory, MemoryStore, is_rest, spared

from cni.cluster.blocks import host_address
from cni.cluster.config import ClusterConfig, EtcdConfig
from cni.cluster.model import Endpoint, Network
from cni.cluster.pools import Pool
from cni.cluster.store import Listing, Sparing
from cni.errors import Compacted
from cni.member.estate import Estate
from cni.member.inbox import Inbox
from cni.member.ledger import Ledger
from cni.member.publisher import Publisher
from cni.member.session import SessionKeeper
from cni.naming import Attachment, mac_of_address
from cni.state import Store
from cni.state.membership import HELD

PLUGIN = "bridge-vxlan"


class NoBell:
    """Nobody waits."""

    def ring(self) -> None: ...

    def wait(self, seconds: float) -> bool:
        raise AssertionError(f"{seconds} s are waited")


def network(name: str = "net", subnet: str = "10.10.0.0/24", block: int = 16, **more: Any) -> Network:
    """One of the cluster."""
    pools = []
    for text in subnet.split():
        net = ipaddress.ip_network(text)
        pools.append(Pool(text, str(net[2]), str(net[-2]), str(net[1])))
    return Network(name, tuple(pools), block, **({"vni": 100} | more))


class Host:
    """One host: its folder, and what its member knows; `again` is a new member on the same folder."""

    def __init__(self, name: str, memory: Memory, folder: Path, machine: str = "", **config: Any) -> None:
        self.name, self.folder, self.machine = name, folder, machine or f"{name}-machine"
        self.store: Any = MemoryStore(memory)
        number = sum(name.encode())
        self.config = ClusterConfig(name, EtcdConfig(("http://[::1]:1",)), f"192.0.2.{number % 250 + 1}", **config)
        self.idle = 3600.0
        #: Whether it is told of endpoints as where no network needs them.
        self.spares = False
        self.again()

    def again(self) -> None:
        """A new process of the member."""
        self.deaf = False
        self.wired(Ledger(self.name))

    def wired(self, ledger: Ledger) -> None:
        """A process with a ledger."""
        self._heard: tuple[int, int] | None = None
        self.ledger = ledger
        self.keeper = SessionKeeper(self.config, self.store, self.folder, self.machine, lambda: None)
        self.estate = Estate(self.store, self.ledger, self.idle)
        self.publisher = Publisher(self.keeper, self.estate, self.folder, NoBell(), Inbox())  # type: ignore[arg-type]

    def turn(self, times: int = 1) -> None:
        """What its threads do, one after the other; raises nothing that they would not."""
        for _ in range(times):
            self.keeper.step()
            self.hear()
            self.publisher.step()

    def hear(self) -> None:
        """Hear of all there is, if the store is reached and its watch does not hang."""
        if self.store.cut or self.deaf:
            return
        memory = self.store.memory
        try:
            news = (
                memory.since(*self._heard, is_rest if self.spares else lambda _: True)
                if self._heard
                else memory.listing()
            )
        except Compacted:
            news = memory.listing()
        if self.spares and isinstance(news, Listing):
            news = spared(news, Sparing(self.name, lambda _: False))
        self._heard = news.revision, memory.life
        self.ledger.heard(news)

    @property
    def state(self) -> Store:
        """Its state, opened anew."""
        return Store.open(self.folder)

    # --- what calls do

    def share(self, *networks: Network) -> None:
        """What a first ADD says of its networks."""
        with closing(self.state) as state, state.transaction():
            for one in networks:
                state.share(one)

    def add(self, container: str, network: Network, family: int = 4) -> str | None:
        """An ADD as far as addresses go: a free one of a held block, leased and said in one transaction, or none and a wish."""
        with closing(self.state) as state, state.transaction():
            member, attachment = state.member(), Attachment(network.name, container, "eth0")
            held = [one.block for one in state.blocks(network.name) if one.state == HELD]
            for block in [one for one in held if one.addresses.version == family]:
                for address in block.addresses:
                    if member and self._gives(state, network, block.span, address):
                        state.lease(attachment, PLUGIN, address)
                        mac = mac_of_address(address)
                        state.say([Endpoint(network.name, str(address), self.name, mac, container, "eth0")], PLUGIN)
                        return str(address)
            state.wish(network.name, family)
            return None

    @staticmethod
    def _gives(state: Store, network: Network, span: str, address: Any) -> bool:
        pool = network.pool_of(address)
        first, last = (ipaddress.ip_address(text) for text in (pool.first, pool.last)) if pool else (None, None)
        return bool(
            pool and first <= address <= last and str(address) != host_address(network, span)
            and state.holder(network.name, address) is None
        )  # fmt: skip

    def delete(self, container: str, network: Network) -> None:
        """A DEL as far as addresses go."""
        attachment = Attachment(network.name, container, "eth0")
        with closing(self.state) as state, state.transaction():
            for address in state.leases(attachment, PLUGIN):
                state.release(network.name, address)
            state.unsay(attachment, PLUGIN)
