"""Which of what other hosts say of a network is to be believed: who refuses nothing sends its own traffic to whoever asks for it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from functools import lru_cache

from cni.cluster.model import Block, Endpoint, Key, Network, Node
from cni.cluster.snapshot import Place, Snapshot
from cni.naming import IPAddress, mac_of_address

#: Why an endpoint is no row yet: what it stands on is not known so far.
WAITS = "waits"


class Acceptance:
    """What of a snapshot is believed about one network, with why the rest is not: `refused`, by key."""

    def __init__(self, me: Node, snapshot: Snapshot, network: Network) -> None:
        self._me, self._snapshot, self._network = me, snapshot, network
        self._pools = [_Grid(pool.subnet, pool.gateway, network.block) for pool in network.pools]
        self._reserved = {mac_of_address(ipaddress.ip_address(pool.gateway)) for pool in network.pools if pool.gateway}
        self._macs: dict[str, str] = {}
        self._vteps: set[str] = set()
        #: The hosts that are believed, by name, and who has a block, by where it begins.
        self.nodes: dict[str, Node] = {}
        self.owners: dict[int, str] = {}
        self.refused: dict[Key, str] = {}
        self.look_at_nodes()
        for span in snapshot.blocks.get(network.name, {}):
            self.look_at_block(span)

    def look_at_nodes(self) -> set[str]:
        """Judge the hosts anew: which are others by now. Of two with one VTEP or MAC, the one that is alive is believed."""
        known, before = self._snapshot.nodes, self.nodes
        self.nodes = {self._me.name: self._me}
        vteps, macs = {self._me.vtep: self._me.name}, {self._me.mac: self._me.name}
        for name in sorted(known, key=lambda name: (name not in self._snapshot.alive, name)):
            node = known[name]
            holder = (vteps.setdefault(node.vtep, name), macs.setdefault(node.mac, name))
            if name != self._me.name and self._judged(node.key, self._against(node, *holder)):
                self.nodes[name] = node
        self._macs, self._vteps = macs, set(vteps)
        for key in [key for key in self.refused if key[0] == Node.room and key[1] not in known]:
            del self.refused[key]
        every = before.keys() | self.nodes.keys()
        return {name for name in every if before.get(name) != self.nodes.get(name)}

    @property
    def is_contested(self) -> bool:
        """Whether a host is refused, so that it counts who is alive."""
        return any(key[0] == Node.room for key in self.refused)

    def look_at_block(self, span: str) -> list[str]:
        """Judge a block anew: the hosts who had it, and have it."""
        block = self._snapshot.blocks.get(self._network.name, {}).get(span)
        grid, begins = self._begins(span)
        key = (Block.room, self._network.name, span)
        if grid is None:
            self._judged(key, "it is no block of the network" if block else "")
            return []
        self._judged(key, "")
        before = self.owners.pop(begins, "")
        if block:
            self.owners[begins] = block.node
        return [node for node in (before, block.node if block else "") if node]

    def is_block(self, span: str) -> bool:
        """Whether it is a block of the network."""
        return self._begins(span)[0] is not None

    def addresses_of(self, span: str) -> Iterator[str]:
        """The addresses of a block of the network."""
        if self.is_block(span):
            yield from map(str, ipaddress.ip_network(span))

    def endpoint(self, address: str, place: Place) -> str:
        """Why an endpoint is no row: empty where it is believed."""
        why = self._against_endpoint(address, place)
        self._judged((Endpoint.room, self._network.name, address), "" if why == WAITS else why)
        return why

    def _against(self, node: Node, vtep_of: str, mac_of: str) -> str:
        if vtep_of != node.name or mac_of != node.name:
            return f"{vtep_of if vtep_of != node.name else mac_of} has its VTEP {node.vtep} or its MAC {node.mac}"
        vtep = ipaddress.ip_address(node.vtep)
        if (":" in node.vtep) != (":" in self._me.vtep):
            return f"its VTEP {node.vtep} is of another IP version than this host's"
        if node.mac in self._reserved or any(grid.has(vtep) for grid in self._pools):
            return f"its VTEP {node.vtep} or its MAC {node.mac} is of the network itself"
        return _absurd(node.vtep)

    def _against_endpoint(self, address: str, place: Place) -> str:
        parsed = ipaddress.ip_address(address)
        grid = next((item for item in self._pools if item.has(parsed)), None)
        if grid is None:
            return _absurd(address) or "it is of no pool of the network"
        if parsed in grid.never or address in self._vteps:
            return "it is a VTEP's, the gateway's or the subnet's own address"
        if place.mac in self._reserved or self._macs.get(place.mac, place.node) != place.node:
            return f"its MAC {place.mac} is the gateway's or another host's"
        owner = self.owners.get(grid.begins(parsed))
        if owner and owner != place.node:
            return f"{place.node} says it has it, and it is in a block of {owner}"
        return "" if owner and place.node in self.nodes else WAITS

    def _begins(self, span: str) -> tuple[_Grid | None, int]:
        network = ipaddress.ip_network(span)
        grid = next((item for item in self._pools if item.has(network[0])), None)
        if grid is None or (network.num_addresses, grid.begins(network[0])) != (grid.size, _code(network[0])):
            return None, 0
        return grid, _code(network[0])

    def _judged(self, key: Key, why: str) -> bool:
        if why:
            self.refused[key] = why
        else:
            self.refused.pop(key, None)
        return not why


class _Grid:
    """A pool, and the blocks it is made of: a subnet smaller than a block is one."""

    def __init__(self, subnet: str, gateway: str, block: int) -> None:
        whole = ipaddress.ip_network(subnet)
        self._version, self._first, self._last = whole.version, int(whole[0]), int(whole[-1])
        self.size = min(block, whole.num_addresses)
        ends = {whole[0], whole[-1 if whole.version == 4 else 0]} if whole.num_addresses > 2 else set()
        self.never = ends | ({ipaddress.ip_address(gateway)} if gateway else set())

    def has(self, address: IPAddress) -> bool:
        return address.version == self._version and self._first <= int(address) <= self._last

    def begins(self, address: IPAddress) -> int:
        return _code(address) & ~(self.size - 1)


def _code(address: IPAddress) -> int:
    """A number that no address of the other version has."""
    return address.version << 128 | int(address)


@lru_cache(maxsize=8192)
def _absurd(text: str) -> str:
    address = ipaddress.ip_address(text)
    strange = address.is_loopback or address.is_multicast or address.is_unspecified or address.is_link_local
    return f"{text} is no host's address" if strange or text == "255.255.255.255" else ""
