"""What a cluster consists of: frozen values, read from what others wrote with refusal by name.

Each is one item of the store, known there by its `key`; the key says what the value need not repeat.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from functools import cached_property
from sys import intern
from typing import Any, ClassVar, NamedTuple

from cni.cluster.document import Document
from cni.cluster.fields import address, mac, malformed, number, parsed, text, texts, typed
from cni.cluster.pools import Pool, span_of
from cni.naming import VXLAN_PORT, IPAddress
from cni.values import dataclass, field

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
#: By what an item is known in any store: its room, and the names in it.
Key = tuple[str, ...]

#: How a network is laid over the hosts: one stretched segment, or a subnet for each block with routes between them.
LAYER_2, LAYER_3 = "l2", "l3"
#: What may be: addresses of a block, where the subnet has so many; VNIs (RFC 7348), and none; UDP ports; seconds.
_BLOCKS, _VNIS, _PORTS, _YEARS = range(8, 4096 + 1), range(1 << 24), range(1, 1 << 16), 1 << 31


@dataclass(frozen=True)
class Node:
    """A host of the cluster, alive or not: what others must know to send to its pods.

    It stays when the host is gone, until somebody says so. `machine` is which machine lives under the name (machine-id(5)).
    Others send to `vtep`, and `mac` is that of its VXLAN devices. With encryption `vtep` is inside the tunnel: `wireguard` is the
    public key (base64), `underlay` the address and port it is reached at, as ``192.0.2.11:51820`` or ``[2001:db8::1]:51820``.
    After `fences` seconds without a word from it it has given up its addresses by itself; 0: it never does. It is a guest of
    networks it has a block of, to be reached by, and no pod. `uplinks` are the addresses by which it may be reached, where it has several.
    """

    name: str
    machine: str
    vtep: str
    mac: str
    wireguard: str = ""
    underlay: str = ""
    fences: int = 0
    guest_of: tuple[str, ...] = ()
    uplinks: tuple[str, ...] = ()

    room: ClassVar[str] = "nodes"

    @property
    def key(self) -> Key:
        """Where it is in the store."""
        return self.room, self.name

    @property
    def value(self) -> dict[str, Any]:
        """What the store holds of it, as JSON."""
        rest: dict[str, Any] = {"wireguard": self.wireguard, "underlay": self.underlay} if self.wireguard else {}
        rest |= {"fences": self.fences} if self.fences else {}
        rest |= {"guest_of": list(self.guest_of)} if self.guest_of else {}
        rest |= {"uplinks": list(self.uplinks)} if self.uplinks else {}
        return {"machine": self.machine, "vtep": self.vtep, "mac": self.mac} | rest

    @classmethod
    def read(cls, key: Key, raw: Mapping[str, Any]) -> Node:
        """What a store holds. Raises Malformed."""
        fields = {name: text(key, raw, name) for name in ("machine", "vtep", "mac")}
        optional: dict[str, Any] = {name: text(key, raw, name) for name in ("wireguard", "underlay") if name in raw}
        optional |= {"fences": number(key, raw, "fences", range(_YEARS))} if "fences" in raw else {}
        optional |= {"guest_of": texts(key, raw, "guest_of")} if "guest_of" in raw else {}
        uplinks = texts(key, raw, "uplinks") if "uplinks" in raw else ()
        optional |= {"uplinks": tuple(str(address(key, item)) for item in uplinks)} if uplinks else {}
        return cls(key[1], fields["machine"], str(address(key, fields["vtep"])), mac(key, fields["mac"]), **optional)


@dataclass(frozen=True)
class Alive:
    """That a host is heard of: it goes by itself when nothing is. `token` says which life of the host."""

    node: str
    token: str

    room: ClassVar[str] = "alive"

    @property
    def key(self) -> Key:
        """Where it is in the store."""
        return self.room, self.node

    @property
    def value(self) -> dict[str, Any]:
        """What the store holds of it, as JSON."""
        return {"token": self.token}

    @classmethod
    def read(cls, key: Key, raw: Mapping[str, Any]) -> Alive:
        """What a store holds. Raises Malformed."""
        return cls(key[1], text(key, raw, "token"))


@dataclass(frozen=True)
class Network:
    """What all hosts must say alike of a network they share. `block` is how many addresses a block has, a power of two;
    `vni` 0 says that it has no overlay, `port` is the overlay's UDP port, VXLAN's own where a record does not say it. `reserved` are spans of addresses that nobody gets, as
    ``10.1.0.5-10.1.0.9``. Where it is `direct` hosts on one link do without the overlay (l3). That pods have `names`, by which
    hosts are to know each other's, is no part of what all say alike: it may begin while there are pods.
    """

    name: str
    pools: tuple[Pool, ...]
    block: int
    mode: str = LAYER_2
    vni: int = 0
    reserved: tuple[str, ...] = ()
    port: int = VXLAN_PORT
    direct: bool = False
    names: bool = field(default=False, compare=False)

    room: ClassVar[str] = "networks"

    @property
    def key(self) -> Key:
        """Where it is in the store."""
        return self.room, self.name

    @property
    def value(self) -> dict[str, Any]:
        """What the store holds of it, as JSON."""
        pools = [vars(pool) for pool in self.pools]
        rest = {"mode": self.mode, "vni": self.vni, "reserved": list(self.reserved), "port": self.port}
        rest |= {"direct": True} if self.direct else {}
        rest |= {"names": True} if self.names else {}
        return {"pools": pools, "block": self.block} | rest

    @classmethod
    def read(cls, key: Key, raw: Mapping[str, Any]) -> Network:
        """What a store holds. Raises Malformed."""
        mode = text(key, raw, "mode")
        if mode not in (LAYER_2, LAYER_3):
            raise malformed(key, f"mode is {mode!r}")
        pools = tuple(Pool.read(key, item) for item in typed(key, raw, "pools", list))
        reserved = tuple(span_of(key, item) for item in typed(key, raw, "reserved", list))
        block = number(key, raw, "block", _BLOCKS)
        if block & (block - 1):
            raise malformed(key, f"block is {block}")
        port = number(key, raw, "port", _PORTS) if "port" in raw else VXLAN_PORT
        vni = number(key, raw, "vni", _VNIS)
        direct, names = (name in raw and typed(key, raw, name, bool) for name in ("direct", "names"))
        return cls(key[1], pools, block, mode, vni, reserved, port, direct, names)

    @cached_property
    def spelled(self) -> str:
        """The same as text, by which it is compared."""
        return json.dumps(self.value)

    @cached_property
    def withheld(self) -> tuple[tuple[int, int, int], ...]:
        """What is reserved: family, first and last address of each span."""
        ends = (tuple(map(ipaddress.ip_address, text.split("-"))) for text in self.reserved)
        return tuple((low.version, int(low), int(high)) for low, high in ends)

    def pool_of(self, address: IPAddress) -> Pool | None:
        """The pool an address is of."""
        return next((pool for pool in self.pools if address in ipaddress.ip_network(pool.subnet)), None)


@dataclass(frozen=True)
class Block:
    """A part of a network's subnet whose addresses only its owner gives: a machine under a name. `span` is a CIDR."""

    network: str
    span: str
    node: str
    machine: str

    room: ClassVar[str] = "blocks"

    @property
    def key(self) -> Key:
        """Where it is in the store."""
        return self.room, self.network, self.span

    @property
    def value(self) -> dict[str, Any]:
        """What the store holds of it, as JSON."""
        return {"node": self.node, "machine": self.machine}

    @classmethod
    def read(cls, key: Key, raw: Mapping[str, Any]) -> Block:
        """What a store holds. Raises Malformed."""
        span: IPNetwork = parsed(key, key[2], ipaddress.ip_network)
        if span.num_addresses >= _BLOCKS.stop:
            raise malformed(key, f"a block has no {span.num_addresses} addresses")
        return cls(key[1], str(span), text(key, raw, "node"), text(key, raw, "machine"))

    def is_of(self, node: Node) -> bool:
        """Whether it says that a host has it."""
        return (self.node, self.machine) == (node.name, node.machine)

    def has(self, endpoint: Endpoint) -> bool:
        """Whether it is of its addresses."""
        return endpoint.network == self.network and ipaddress.ip_address(endpoint.address) in self.addresses

    @cached_property
    def addresses(self) -> IPNetwork:
        """Its addresses."""
        return ipaddress.ip_network(self.span)


#: What may be said of whose an endpoint is.
_WHOSE = ("container", "ifname", "pod", "names")


class _Endpoint(NamedTuple):
    network: str
    address: str
    node: str
    mac: str
    container: str = ""
    ifname: str = ""
    pod: str = ""
    names: str = ""
    unhealthy: bool = False


class Endpoint(_Endpoint):
    """An address of a network that somebody has: a pod's interface, or a host itself, which has no `container`. `names` are those it
    is answered under, as hosts(5) has them, while it is not `unhealthy`. A tuple, because there may be 50,000 of them at once.
    """

    __slots__ = ()
    room: ClassVar[str] = "addresses"

    @property
    def key(self) -> Key:
        """Where it is in the store."""
        return self.room, self.network, self.address

    @property
    def value(self) -> dict[str, Any]:
        """What the store holds of it, as JSON."""
        whose = {"container": self.container, "ifname": self.ifname, "pod": self.pod, "names": self.names}
        rest: dict[str, Any] = {name: text for name, text in whose.items() if text}
        rest |= {"unhealthy": True} if self.unhealthy else {}
        return {"node": self.node, "mac": self.mac} | rest

    @property
    def heard(self) -> Endpoint:
        """What another host needs of it: not by which container."""
        return self._replace(container="", ifname="") if self.container else self

    @classmethod
    def read(cls, key: Key, raw: Mapping[str, Any]) -> Endpoint:
        """What a store holds. Raises Malformed."""
        whose: dict[str, Any] = {name: text(key, raw, name) for name in _WHOSE if name in raw}
        whose |= {"unhealthy": typed(key, raw, "unhealthy", bool)} if "unhealthy" in raw else {}
        place = str(address(key, key[2]))
        node = intern(text(key, raw, "node"))  # there may be 50,000, of few hosts and networks
        return cls(intern(key[1]), place, node, mac(key, text(key, raw, "mac")), **whose)


Item = Node | Alive | Network | Block | Endpoint | Document
_ROOMS: dict[str, tuple[int, type[Item]]] = {
    Node.room: (2, Node), Alive.room: (2, Alive), Network.room: (2, Network), Block.room: (3, Block), Endpoint.room: (3, Endpoint),
    Document.room: (4, Document),
}  # fmt: skip


def read(key: Key, raw: object) -> Item | None:
    """The item under a key; None in a room of a later release. Raises Malformed."""
    length, kind = _ROOMS.get(key[0], (0, Node))
    if not length:
        return None
    if len(key) != length:
        raise malformed(key, "it has another depth")
    if not all(part.isprintable() for part in key):
        raise malformed(tuple(map(ascii, key)), "nobody has such a name")
    if kind is Document:
        return Document.read(key, raw)  # one that is wrong is there all the same, and not deleted
    if not isinstance(raw, Mapping):
        raise malformed(key, "it is no JSON object")
    for name, value in raw.items():  # any of them may come into a file of lines, or a row
        if isinstance(value, str) and not value.isprintable():
            raise malformed(key, f"{name} is {value!r}")
    return kind.read(key, raw)
