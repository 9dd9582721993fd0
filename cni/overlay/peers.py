"""What this host must have in its kernel to reach what is on other hosts of a network: from a snapshot, as resources by place. Pure.

l2: the network is one segment, so each endpoint elsewhere is a row behind its host's VTEP and a neighbour that nobody asks for.
l3: a block is a subnet, so each block elsewhere is a route to its host, which is one row and one neighbour more.
What the store says of this host itself is its own business; what is not believed is in `refused`, and nothing is made of it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from cni.cluster.blocks import first_block, host_address
from cni.cluster.model import LAYER_2, LAYER_3, Alive, Block, Endpoint, Key, Network, Node
from cni.cluster.pools import Pool
from cni.cluster.snapshot import Place, Snapshot
from cni.naming import link_local, mac_of_address
from cni.overlay.acceptance import Acceptance
from cni.overlay.rows import Changed, Rows
from cni.resources import PeerAddress, PeerNeighbour, PeerRefusal, PeerRoute, PeerRow
from cni.resources.remote import RemoteRow

#: The link of rows that are on none.
LOOPBACK = "lo"


def goes_by_endpoints(network: Network) -> bool:
    """Whether hosts are to know each other's endpoints in it: routes go by blocks."""
    return network.mode == LAYER_2 and network.vni > 0


class Overlay(NamedTuple):
    """This host's part of a network: its VXLAN device, and in l2 the bridge that is a port of, if there are pods. Without a device
    the network is refused as a whole.
    """

    network: Network
    device: str
    bridge: str


class Uplink(NamedTuple):
    """The link that has this host's VTEP, and who is on it (a CIDR): they hear each other without a router. Empty where nobody is to."""

    link: str
    span: str

    def reaches(self, vtep: str, block: str) -> bool:
        """Whether a block of a host is behind a neighbour on the link; one of another family is not."""
        at = ipaddress.ip_address(vtep)
        near = ipaddress.ip_network(self.span) if self.span else None
        return near is not None and at.version == near.version and at in near and (":" in vtep) == (":" in block)


#: Of hosts that are encrypted, and before anything is known.
NO_UPLINK = Uplink("", "")


class Peers:
    """The rows of one network, kept up with a snapshot."""

    def __init__(self, me: Node, snapshot: Snapshot, overlay: Overlay, uplink: Uplink = NO_UPLINK) -> None:
        self._me, self._snapshot, self.overlay, self._uplink = me, snapshot, overlay, uplink
        self._network = overlay.network
        self._accepted = Acceptance(me, snapshot, overlay.network)
        self._rows = Rows()
        self._refuse_the_rest()
        self._bring_up()
        self._rows.changed()

    @property
    def refused(self) -> dict[Key, str]:
        """What is not believed, and why."""
        return self._accepted.refused

    @property
    def vteps(self) -> set[str]:
        """Those of the other hosts that are believed."""
        return {node.vtep for name, node in self._accepted.nodes.items() if name != self._me.name}

    @property
    def tables(self) -> dict[tuple[type[RemoteRow], str], dict[str, object]]:
        """The rows that are to be, by kind and link, then by key."""
        return self._rows.tables

    def link_of(self, kind: type[RemoteRow]) -> str:
        """The link on which rows of a kind are."""
        if kind is PeerRefusal:
            return LOOPBACK
        return self.overlay.bridge if kind is not PeerRow and self.overlay.bridge else self.overlay.device

    def links_of(self, kind: type[RemoteRow]) -> tuple[str, ...]:
        """All links on which rows of a kind may be."""
        return tuple(filter(None, [self.link_of(kind)]))

    def resources(self) -> Iterator[RemoteRow]:
        """All that is to be."""
        return self._rows.resources()

    def are_hosts_judged(self, rooms: set[str]) -> bool:
        """Whether other hosts may be believed by what is new in some rooms: who is alive counts only where two contest something."""
        return Node.room in rooms or (Alive.room in rooms and self._accepted.is_contested)

    def touched(self, keys: Iterable[Key]) -> Changed:
        """Be as the snapshot is, where some of its keys are others by now."""
        of_network = [key for key in keys if key[1] == self._network.name or key[0] in ("nodes", "alive")]
        hosts = self.are_hosts_judged({key[0] for key in of_network})
        nodes = self._accepted.look_at_nodes() if hosts else set()
        spans = [key[2] for key in of_network if key[0] == Block.room]
        for span in spans:
            nodes_of_block = self._accepted.look_at_block(span)
            nodes |= set(nodes_of_block) if self._network.mode == LAYER_3 else set()
        self._follow(nodes, spans, [key[2] for key in of_network if key[0] == Endpoint.room])
        if spans:
            self._put_own()
        if self._network.key in of_network:
            self._refuse_the_rest()
        return self._rows.changed()

    def _bring_up(self) -> None:
        """Have the rows of what there is."""

    def _follow(self, nodes: set[str], spans: list[str], addresses: list[str]) -> None:
        """Have rows of hosts that are others, of blocks, and of endpoints."""

    def _put_own(self) -> None:
        """Have the addresses by which this host speaks."""

    def _refuse_the_rest(self) -> None:
        """Have no address of the network sought elsewhere, as long as the cluster has it."""
        known = self._network.name in self._snapshot.networks
        self._put_all(PeerRefusal, {pool.subnet: True for pool in self._network.pools} if known else {})

    def _put(self, kind: type[RemoteRow], key: str, value: object) -> None:
        self._rows.put(kind, self.link_of(kind), key, value)

    def _put_all(self, kind: type[RemoteRow], wanted: dict[str, object]) -> None:
        """Have these rows of a kind and no others."""
        for key in self._rows.tables.get((kind, self.link_of(kind)), {}).keys() - wanted.keys():
            self._put(kind, key, None)
        for key, value in wanted.items():
            self._put(kind, key, value)

    def _own_addresses(self) -> Iterator[tuple[Pool, str]]:
        """This host's own address in each pool it has a block of. It stays when a block is had later, which may have been another
        host's: pods that spoke to that one remember its MAC for a while.
        """
        blocks = self._snapshot.blocks.get(self._network.name, {}).values()
        me = self._me.name, self._me.machine
        own = [block for block in blocks if (block.node, block.machine) == me and self._accepted.is_block(block.span)]
        for pool in self._network.pools:
            mine = [block.span for block in own if self._network.pool_of(block.addresses[0]) == pool]
            if first := first_block(self._network, pool, self._me.name, mine):
                yield pool, host_address(self._network, first)


class Stretched(Peers):
    """l2."""

    def _bring_up(self) -> None:
        self._known: dict[str, Place] = {}
        self._claims: dict[str, str | tuple[str, ...]] = {}  # mostly one address has a MAC
        self._follow(set(), [], list(self._snapshot.endpoints.get(self._network.name, {})))
        self._put_own()

    def _follow(self, nodes: set[str], spans: list[str], addresses: list[str]) -> None:
        touched = {*addresses, *(address for span in spans for address in self._accepted.addresses_of(span))}
        if nodes:  # who was refused may have been so for a host that is another by now
            touched |= {address for address, place in self._known.items() if place.node in nodes}
            touched |= {key[2] for key in self.refused if key[0] == Endpoint.room}
            touched |= {self._snapshot.nodes[name].vtep for name in nodes if name in self._snapshot.nodes}
        there = self._snapshot.endpoints.get(self._network.name, {})
        macs = set()
        for address in touched:
            before, now = self._known.pop(address, None), there.get(address)
            if before:
                macs.add(before.mac)
                self._claim(before.mac, address, claimed=False)
            if now:
                macs.add(now.mac)
                self._claim(now.mac, address, claimed=True)
                self._known[address] = now
            else:
                self._put(PeerNeighbour, address, None)
                self.refused.pop((Endpoint.room, self._network.name, address), None)
        for mac in macs:
            self._decide(mac)

    def _claim(self, mac: str, address: str, *, claimed: bool) -> None:
        others = [other for other in self._claimants(mac) if other != address]
        now = [*others, address] if claimed else others
        if now:
            self._claims[mac] = now[0] if len(now) == 1 else tuple(now)
        else:
            self._claims.pop(mac, None)

    def _claimants(self, mac: str) -> tuple[str, ...]:
        found = self._claims.get(mac, ())
        return (found,) if isinstance(found, str) else found

    def _decide(self, mac: str) -> None:
        """Of several hosts that say they have a MAC one has it; each of its endpoints with it is a neighbour then."""
        claims = [(address, self._known[address]) for address in self._claimants(mac)]
        standing = [(address, place) for address, place in claims if not self._accepted.endpoint(address, place)]
        holder = min(standing, key=self._rank)[1].node if standing else ""
        far = self._accepted.nodes.get(holder) if holder != self._me.name else None
        self._put(PeerRow, mac, far.vtep if far else None)
        for address, place in claims:
            is_holders = (address, place) in standing and place.node == holder
            self._put(PeerNeighbour, address, mac if far and is_holders else None)
            if (address, place) in standing and not is_holders:
                key = (Endpoint.room, self._network.name, address)
                self.refused[key] = f"{holder} has its MAC {mac}"

    def _rank(self, claim: tuple[str, Place]) -> tuple[bool, bool, int]:
        """This host's own pods first, then who has the MAC that is made of its address, then the lowest address."""
        address = ipaddress.ip_address(claim[0])
        place = claim[1]
        return place.node != self._me.name, mac_of_address(address) != place.mac, int(address)

    def _put_own(self) -> None:
        """An address on the bridge, and ways to the pool's halves by it: the connected route's source is every host's gateway."""
        addresses: dict[str, object] = {}
        routes: dict[str, object] = {}
        for pool, own in self._own_addresses():
            subnet = ipaddress.ip_network(pool.subnet)
            addresses[f"{own}/{subnet.max_prefixlen}"] = True
            halves = subnet.subnets() if subnet.prefixlen < subnet.max_prefixlen else ()
            routes |= {str(half): ("", own) for half in halves}
        self._put_all(PeerAddress, addresses)
        self._put_all(PeerRoute, routes)


class Routed(Peers):
    """l3. In a network that is direct a host on this one's uplink is the gateway to its blocks."""

    def links_of(self, kind: type[RemoteRow]) -> tuple[str, ...]:
        """Of routes the uplink too, so that those of a network that was direct go."""
        more = [self._uplink.link] if kind is PeerRoute else []
        return tuple(filter(None, [self.link_of(kind), *more]))

    def _bring_up(self) -> None:
        self._made: dict[str, list[tuple[type[RemoteRow], str, str]]] = {}
        self._sources: dict[int, str] = {}
        self._put_own()
        self._follow(set(self._accepted.owners.values()), [], [])

    def _follow(self, nodes: set[str], spans: list[str], addresses: list[str]) -> None:
        """A host's rows before are taken away and those of now put, of which most are the same."""
        for kind, link, key in [place for name in nodes for place in self._made.pop(name, [])]:
            self._rows.put(kind, link, key, None)
        spans_of: dict[str, list[str]] = {}
        for span, block in self._snapshot.blocks.get(self._network.name, {}).items() if nodes else ():
            if block.node in nodes and self._accepted.is_block(span):
                spans_of.setdefault(block.node, []).append(span)
        for name in sorted(spans_of):
            if name != self._me.name and (node := self._accepted.nodes.get(name)):
                self._put_node(node, spans_of[name])

    def _put_node(self, node: Node, spans: list[str]) -> None:
        """Without an address of its own this host would speak by one that is answered past the tunnel, for anybody to read."""
        device = self.overlay.device
        made: dict[tuple[type[RemoteRow], str, str], object] = {(PeerRow, device, node.mac): node.vtep}
        for span in spans:
            source = self._sources.get(6 if ":" in span else 4, "")
            if not source:
                continue
            if self._network.direct and self._uplink.reaches(node.vtep, span):
                made[PeerRoute, self._uplink.link, span] = (node.vtep, source)
                continue
            gateway = str(link_local(node.mac)) if ":" in span + node.vtep else node.vtep
            made[PeerNeighbour, device, gateway] = node.mac
            made[PeerRoute, device, span] = (gateway, source)
        for (kind, link, key), value in made.items():
            self._rows.put(kind, link, key, value)
        self._made[node.name] = list(made)

    def _put_own(self) -> None:
        """The gateway of a block of ours is what this host speaks by: on the device, because the bridge may not be there yet."""
        own = [address for _, address in self._own_addresses()]
        sources = {6 if ":" in address else 4: address for address in reversed(own)}
        self._put_all(PeerAddress, {f"{ip}/{128 if ':' in ip else 32}": True for ip in own})
        if sources != self._sources:
            self._sources = sources
            self._follow(set(self._made), [], [])


def peers_of(me: Node, snapshot: Snapshot, overlay: Overlay, uplink: Uplink = NO_UPLINK) -> Peers:
    """The rows of a network, whatever its mode."""
    if not overlay.device:
        return Peers(me, snapshot, overlay)
    return (Routed if overlay.network.mode == LAYER_3 else Stretched)(me, snapshot, overlay, uplink)
