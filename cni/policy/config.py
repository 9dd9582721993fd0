"""The `policy` section of a configuration."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

from cni.errors import InvalidConfig
from cni.policy.model import Allowance, Peers, Policy, Port, merged, without
from cni.protocol.config import Config


def section_of(conf: Config) -> Policy | None:
    """The policy a validated configuration asks for, or None.

    Raises InvalidConfig naming the entry that is impossible.
    """
    section = conf.get("policy")
    return None if section is None else read(section, "$.policy")


def read(section: Config, where: str) -> Policy:
    """Read a `policy` section."""
    deny = bool(section.get("defaultDeny"))
    closed = {"ingress": deny, "egress": deny or bool(section.get("egressDrop"))}
    rules = {name: _direction(section.get(name), name, closed[name], f"{where}.{name}") for name in closed}
    return Policy(
        ingress=rules["ingress"],
        egress=rules["egress"],
        established=bool(section.get("allowEstablished", True)),
        dns=bool(section.get("allowDNS")),
        anti_spoof=bool(section.get("antiSpoof", True)),
        host_access=bool(section.get("hostAccess", True)),
        log=bool(section.get("log")),
    )


def _direction(raw: list[Any] | None, name: str, closed: bool, where: str) -> tuple[Allowance, ...] | None:
    if raw is None:
        return () if closed else None
    side = "from" if name == "ingress" else "to"
    cidrs = [{"ipBlock": {"cidr": item}} for item in raw if isinstance(item, str)]
    rules = [(item, f"{where}[{at}]") for at, item in enumerate(raw) if not isinstance(item, str)]
    if cidrs:
        rules.insert(0, ({side: cidrs}, where))
    return tuple(_allowance(rule, side, at) for rule, at in rules)


def _allowance(rule: dict[str, Any], side: str, where: str) -> Allowance:
    wrong = "to" if side == "from" else "from"
    if wrong in rule:
        raise InvalidConfig(f"{where}.{wrong}: a rule of this direction has {side!r}")
    blocks = [item["ipBlock"] for item in rule.get(side) or ()]
    ports = tuple(_port(item, f"{where}.ports[{at}]") for at, item in enumerate(rule.get("ports") or ()))
    return Allowance(tuple(_peers(blocks, where)) if blocks else None, ports or None)


def _peers(blocks: list[dict[str, Any]], where: str) -> Iterator[Peers]:
    spans: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
    for block in blocks:
        network = ipaddress.ip_network(block["cidr"])
        holes = [ipaddress.ip_network(text) for text in block.get("except") or ()]
        for hole in holes:
            if hole.version != network.version or not hole.subnet_of(network):  # type: ignore[arg-type]
                raise InvalidConfig(f"{where}: except {hole} is not within {network}")
        spans[network.version] += without(_span(network), [_span(hole) for hole in holes])
    return (Peers(family, merged(found)) for family, found in spans.items() if found)


def _span(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> tuple[int, int]:
    return int(network.network_address), int(network.broadcast_address)


def _port(raw: dict[str, Any], where: str) -> Port:
    protocol, first = str(raw.get("protocol") or "TCP").lower(), int(raw.get("port") or 0)
    last = int(raw.get("endPort") or first)
    if protocol in ("icmp", "icmpv6"):
        if first:
            raise InvalidConfig(f"{where}.port: {protocol.upper()} has no ports")
        return Port("icmp")
    if last < first or (raw.get("endPort") and not first):
        raise InvalidConfig(f"{where}.endPort: {last} is less than port {first}")
    return Port(protocol, first, last)
