"""ipBlocks and ports of a rule, in NetworkPolicy's terms, as addresses and ports of the model."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

from cni.errors import InvalidConfig
from cni.policy.model import Peers, Port, merged, without


def spans_of(blocks: Iterable[Mapping[str, Any]], where: str) -> tuple[Peers, ...]:
    """Peers of NetworkPolicy's ipBlocks. Raises InvalidConfig naming the entry."""
    spans: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
    for block in blocks:
        network = ipaddress.ip_network(block["cidr"])
        holes = [ipaddress.ip_network(text) for text in block.get("except") or ()]
        for hole in holes:
            if hole.version != network.version or not hole.subnet_of(network):  # type: ignore[arg-type]
                raise InvalidConfig(f"{where}: except {hole} is not within {network}")
        spans[network.version] += without(_span(network), [_span(hole) for hole in holes])
    return tuple(Peers(family, merged(found)) for family, found in spans.items() if found)


def ports_of(raw: Iterable[Mapping[str, Any]], where: str) -> tuple[Port, ...] | None:
    """Ports of NetworkPolicy's list; None, every port, where it is empty. Raises InvalidConfig naming the entry."""
    return tuple(_port(item, f"{where}.ports[{at}]") for at, item in enumerate(raw)) or None


def _span(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> tuple[int, int]:
    return int(network.network_address), int(network.broadcast_address)


def _port(raw: Mapping[str, Any], where: str) -> Port:
    if isinstance(raw.get("port"), str):
        raise InvalidConfig(f"{where}.port: the named port {raw['port']!r} cannot be resolved here")
    protocol, first = str(raw.get("protocol") or "TCP").lower(), int(raw.get("port") or 0)
    last = int(raw.get("endPort") or first)
    if protocol in ("icmp", "icmpv6"):
        if first:
            raise InvalidConfig(f"{where}.port: {protocol.upper()} has no ports")
        return Port("icmp")
    if last < first or (raw.get("endPort") and not first):
        raise InvalidConfig(f"{where}.endPort: {last} is less than port {first}")
    return Port(protocol, first, last)
