"""What a cluster consists of: frozen values, read from what others wrote with refusal by name.

Each is one item of the store, known there by its `key`; the key says what the value need not repeat.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Mapping
from functools import cached_property
from sys import intern
from typing import Any, ClassVar, TypeVar

from cni.naming import IPAddress, is_mac
from cni.values import dataclass

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
#: By what an item is known in any store: its room, and the names in it.
Key = tuple[str, ...]

#: How a network is laid over the hosts: one stretched segment, or a subnet for each block with routes between them.
LAYER_2, LAYER_3 = "l2", "l3"


class Malformed(Exception):
    """An item of the store that is not what its key says; `str` names it and what is wrong."""


@dataclass(frozen=True)
class Node:
    """A host of the cluster, alive or not: what others must know to send to its pods.

    It stays when the host is gone, until somebody says so. `machine` is which machine lives under the name (machine-id(5)).
    Others send to `vtep`, and `mac` is that of its VXLAN devices. With encryption `vtep` is inside the tunnel: `wireguard` is the
    public key (base64), `underlay` the address and port it is reached at, as ``192.0.2.11:51820`` or ``[2001:db8::1]:51820``.
    After `fences` seconds without a word from it it has given up its addresses by itself; 0: it never does.
    """

    name: str
    machine: str
    vtep: str
    mac: str
    wireguard: str = ""
    underlay: str = ""
    fences: int = 0

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
        return {"machine": self.machine, "vtep": self.vtep, "mac": self.mac} | rest

    @classmethod
    def read(cls, key: Key, raw: Mapping[str, Any]) -> Node:
        """What a store holds. Raises Malformed."""
        fields = {name: _text(key, raw, name) for name in ("machine", "vtep", "mac")}
        optional: dict[str, Any] = {name: _text(key, raw, name) for name in ("wireguard", "underlay") if name in raw}
        optional |= {"fences": _of(key, raw, "fences", int)} if "fences" in raw else {}
        return cls(key[1], fields["machine"], str(_address(key, fields["vtep"])), _mac(key, fields["mac"]), **optional)


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
        return cls(key[1], _text(key, raw, "token"))


@dataclass(frozen=True)
class Pool:
    """A subnet of a network, and what of it pods get; `gateway` empty where it has none."""

    subnet: str
    first: str
    last: str
    gateway: str


@dataclass(frozen=True)
class Network:
    """What all hosts must say alike of a network they share. `block` is how many addresses a block has, a power of two;
    `vni` 0 says that it has no overlay. `reserved` are spans of addresses that nobody gets, as ``10.1.0.5-10.1.0.9``.
    """

    name: str
    pools: tuple[Pool, ...]
    block: int
    mode: str = LAYER_2
    vni: int = 0
    reserved: tuple[str, ...] = ()

    room: ClassVar[str] = "networks"

    @property
    def key(self) -> Key:
        """Where it is in the store."""
        return self.room, self.name

    @property
    def value(self) -> dict[str, Any]:
        """What the store holds of it, as JSON."""
        pools = [vars(pool) for pool in self.pools]
        rest = {"mode": self.mode, "vni": self.vni, "reserved": list(self.reserved)}
        return {"pools": pools, "block": self.block} | rest

    @classmethod
    def read(cls, key: Key, raw: Mapping[str, Any]) -> Network:
        """What a store holds. Raises Malformed."""
        mode = _text(key, raw, "mode")
        if mode not in (LAYER_2, LAYER_3):
            raise _malformed(key, f"mode is {mode!r}")
        pools = tuple(_pool(key, item) for item in _of(key, raw, "pools", list))
        reserved = tuple(_reserved(key, item) for item in _of(key, raw, "reserved", list))
        return cls(key[1], pools, _of(key, raw, "block", int), mode, _of(key, raw, "vni", int), reserved)

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
        span = str(_parsed(key, key[2], ipaddress.ip_network))
        return cls(key[1], span, _text(key, raw, "node"), _text(key, raw, "machine"))

    @cached_property
    def addresses(self) -> IPNetwork:
        """Its addresses."""
        return ipaddress.ip_network(self.span)


@dataclass(frozen=True)
class Endpoint:
    """An address of a network that somebody has: a pod's interface, or a host itself, which has no `container`."""

    network: str
    address: str
    node: str
    mac: str
    container: str = ""
    ifname: str = ""
    pod: str = ""

    room: ClassVar[str] = "endpoints"

    @property
    def key(self) -> Key:
        """Where it is in the store."""
        return self.room, self.network, self.address

    @property
    def value(self) -> dict[str, Any]:
        """What the store holds of it, as JSON."""
        whose = {"container": self.container, "ifname": self.ifname, "pod": self.pod}
        return {"node": self.node, "mac": self.mac} | {name: text for name, text in whose.items() if text}

    @classmethod
    def read(cls, key: Key, raw: Mapping[str, Any]) -> Endpoint:
        """What a store holds. Raises Malformed."""
        whose = {name: _text(key, raw, name) for name in ("container", "ifname", "pod") if name in raw}
        address = str(_address(key, key[2]))
        node = intern(_text(key, raw, "node"))  # there may be 50,000, of few hosts and networks
        return cls(intern(key[1]), address, node, _mac(key, _text(key, raw, "mac")), **whose)


T = TypeVar("T")
Item = Node | Alive | Network | Block | Endpoint
_ROOMS: dict[str, tuple[int, type[Item]]] = {
    Node.room: (2, Node), Alive.room: (2, Alive), Network.room: (2, Network), Block.room: (3, Block), Endpoint.room: (3, Endpoint),
}  # fmt: skip


def read(key: Key, raw: object) -> Item | None:
    """The item under a key; None in a room of a later release. Raises Malformed."""
    length, kind = _ROOMS.get(key[0], (0, Node))
    if not length:
        return None
    if len(key) != length:
        raise _malformed(key, "it has another depth")
    if not isinstance(raw, Mapping):
        raise _malformed(key, "it is no JSON object")
    return kind.read(key, raw)


def _pool(key: Key, raw: object) -> Pool:
    if not isinstance(raw, Mapping):
        raise _malformed(key, "a pool is no JSON object")
    subnet = str(_parsed(key, _text(key, raw, "subnet"), ipaddress.ip_network))
    first, last = (str(_address(key, _text(key, raw, name))) for name in ("first", "last"))
    gateway = _text(key, raw, "gateway")
    return Pool(subnet, first, last, str(_address(key, gateway)) if gateway else "")


def _reserved(key: Key, raw: object) -> str:
    low, dash, high = raw.partition("-") if isinstance(raw, str) else ("", "", "")
    ends = [_address(key, text) for text in (low, high)]
    if not dash or ends[0].version != ends[1].version:
        raise _malformed(key, f"{raw!r} is no span of addresses")
    return f"{ends[0]}-{ends[1]}"


def _text(key: Key, raw: Mapping[str, Any], name: str) -> str:
    return str(_of(key, raw, name, str))


def _of(key: Key, raw: Mapping[str, Any], name: str, kind: type) -> Any:
    value = raw.get(name)
    if type(value) is not kind:
        raise _malformed(key, f"{name} is {value!r}")
    return value


def _mac(key: Key, text: str) -> str:
    if not is_mac(text):
        raise _malformed(key, f"{text!r} is no MAC")
    return text.lower()


def _address(key: Key, text: str) -> IPAddress:
    return _parsed(key, text, ipaddress.ip_address)


def _parsed(key: Key, text: str, parse: Callable[[str], T]) -> T:
    """An address or a network. A scope is of one host's own, and may be any text (RFC 4007): it would come into scripts."""
    if "%" in text:
        raise _malformed(key, f"{text!r} has a scope")
    try:
        return parse(text)
    except ValueError as error:
        raise _malformed(key, str(error)) from None


def _malformed(key: Key, why: str) -> Malformed:
    return Malformed(f"{'/'.join(key)} in the store: {why}")
