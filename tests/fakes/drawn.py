"""Namespaces for `reach`, drawn by hand: links, addresses and routes of a node and the pods on its bridge."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cni.kernel.netlink.lookups import Asked, Way
from cni.kernel.netlink.neighbours import Row
from cni.kernel.view import Link
from cni.reach.place import Map
from cni.reach.rules import Rules

_PLAIN: dict[str, Any] = {
    "kind": "veth", "mac": "", "mtu": 1500, "up": True, "state": "UP", "bridge": 0, "promiscuous": False, "hairpin": False,
    "isolated": False, "neigh_suppress": False, "vxlan": None,
}  # fmt: skip


def link(index: int, name: str, **said: Any) -> Link:
    """A link that is up, a veth unless it says otherwise."""
    return Link(index=index, name=name, **_PLAIN | {"mac": f"02:00:00:00:00:{index:02x}"} | said)


LO = link(1, "lo", kind="", loopback=True)


@dataclass
class Drawn:
    """A namespace. `routes` are (destination, link, gateway), the longest first; it forwards if it is the node."""

    name: str
    links: dict[int, Link]
    addresses: dict[int, list[str]]
    routes: list[tuple[str, int, str]]
    is_node: bool = False
    rules: Rules = field(default_factory=Rules)
    rows: list[Row] = field(default_factory=list)
    known: dict[str, Row] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    served: set[tuple[str, int]] = field(default_factory=set)
    refused: dict[str, int] = field(default_factory=dict)

    def way(self, asked: Asked) -> Way:
        """The kernel's answer, as far as these tests need it."""
        if asked.into and asked.source in self.refused:
            return Way("refused", refused=self.refused[asked.source])
        if any(asked.target in held for held in self.addresses.values()):
            return Way("local", 1, source=asked.target)
        for dst, index, gateway in self.routes:
            if ipaddress.ip_address(asked.target) in ipaddress.ip_network(dst):
                return Way("unicast", index, gateway, self.addresses[index][0] if self.addresses[index] else "")
        return Way("refused", refused=101)

    def neighbour(self, link: Link, address: str) -> Row | None:
        """Whom it knows, by whatever link."""
        return self.known.get(address)

    def setting(self, key: str) -> str:
        """A sysctl; the node forwards."""
        forwards = "1" if self.is_node and key.endswith("forwarding") else ""
        return self.settings.get(key, forwards)

    def listens(self, protocol: str, port: int, address: str) -> bool:
        """What is served."""
        return (protocol, port) in self.served


def pod(number: int, **said: Any) -> Drawn:
    """A pod on the bridge, 10.1.0.NUMBER."""
    eth0 = link(2, "eth0", mac=f"0a:00:00:00:00:{number:02x}", parent=10 + number, parent_elsewhere=True)
    routes = [("10.1.0.0/24", 2, ""), ("0.0.0.0/0", 2, "10.1.0.1")]
    return Drawn(f"pod{number}", {1: LO, 2: eth0}, {2: [f"10.1.0.{number}"]}, routes, **said)


def node(*numbers: int, **said: Any) -> Drawn:
    """The node, 192.0.2.11 and the bridge's gateway, with the other ends of these pods."""
    links = {1: LO, 2: link(2, "eth0"), 3: link(3, "br0", kind="bridge")}
    links |= {10 + it: link(10 + it, f"veth{it}", bridge=3, parent=2, parent_elsewhere=True) for it in numbers}
    addresses = {2: ["192.0.2.11"], 3: ["10.1.0.1"]}
    routes = [("10.1.0.0/24", 3, ""), ("192.0.2.0/24", 2, ""), ("0.0.0.0/0", 2, "192.0.2.1")]
    return Drawn("node", links, addresses, routes, is_node=True, **said)


def drawn(*places: Drawn) -> Map:
    """All of it."""
    return Map(places)
