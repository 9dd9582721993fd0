"""ipBlocks and ports of a rule, in NetworkPolicy's terms, as addresses and ports of the model."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Any

from cni.errors import InvalidConfig
from cni.policy.fields import shown
from cni.policy.model import PROTOCOLS, Peers, Port, merged, without

_PORT_NAME = re.compile(r"(?=.*[a-z])(?!.*--)[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?")
_CIDR = re.compile(r"[0-9A-Fa-f.:]+/[0-9]{1,3}")


def block(cidr: Any, excepted: Iterable[Any], where: str) -> tuple[Peers, ...]:
    """Peers of one ipBlock; host bits say nothing. Raises InvalidConfig naming what is wrong."""
    network = _network(cidr, f"{where}.cidr")
    holes = [_network(item, f"{where}.except[{at}]") for at, item in enumerate(excepted)]
    for hole in holes:
        if hole.version != network.version or not hole.subnet_of(network):  # type: ignore[arg-type]
            raise InvalidConfig(f"{where}: except {hole} is not within {network}")
    left = without(_span(network), [_span(hole) for hole in holes])
    return (Peers(network.version, merged(left)),) if left else ()


def spans_of(blocks: Iterable[Mapping[str, Any]], where: str) -> tuple[Peers, ...]:
    """Peers of the ipBlocks a section lists. Raises InvalidConfig naming the entry."""
    found = [peers for item in blocks for peers in block(item["cidr"], item.get("except") or (), where)]
    return together(found)


def together(peers: Iterable[Peers]) -> tuple[Peers, ...]:
    """The same addresses, each family's in one."""
    spans: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
    for item in peers:
        spans[item.family] += item.ranges
    return tuple(Peers(family, merged(found)) for family, found in spans.items() if found)


def ports_of(raw: Iterable[Mapping[str, Any]], where: str) -> tuple[Port, ...] | None:
    """Ports a section lists; None, every port, where there are none. Raises InvalidConfig naming the entry."""
    return tuple(_port(item, f"{where}.ports[{at}]") for at, item in enumerate(raw)) or None


def port_name(value: Any, where: str) -> str:
    """A port's name (RFC 6335, 5.1). Raises InvalidConfig."""
    if not isinstance(value, str) or not _PORT_NAME.fullmatch(value):
        raise InvalidConfig(f"{where}: {shown(value)} is neither a number nor a port's name")
    return value


def _network(text: Any, where: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        if isinstance(text, str) and _CIDR.fullmatch(text):
            return ipaddress.ip_network(text, strict=False)
    except ValueError:
        pass
    raise InvalidConfig(f"{where}: {shown(text)} is no address with a prefix, such as 10.0.0.0/8")


def _span(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> tuple[int, int]:
    return int(network.network_address), int(network.broadcast_address)


def _port(raw: Mapping[str, Any], where: str) -> Port:
    protocol, first = str(raw.get("protocol") or "TCP").lower(), int(raw.get("port") or 0)
    last = int(raw.get("endPort") or first)
    if protocol not in (*PROTOCOLS, "icmpv6"):
        raise InvalidConfig(f"{where}.protocol: {shown(protocol)} is none of {', '.join(PROTOCOLS)}")
    if protocol in ("icmp", "icmpv6"):
        if first:
            raise InvalidConfig(f"{where}.port: {protocol.upper()} has no ports")
        return Port("icmp")
    if last < first or (raw.get("endPort") and not first):
        raise InvalidConfig(f"{where}.endPort: {last} is less than port {first}")
    return Port(protocol, first, last)
