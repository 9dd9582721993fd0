"""A policy as nft rules, pure: one chain per address and direction, found by a verdict map.

A chain returns what it lets through and drops the rest, so that both ends of a connection within the node
are asked. Every packet of the original direction is asked again, so a changed policy holds at once; of the
reply direction only answers pass.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from cni.naming import link_local
from cni.policy.model import Allowance, Policy, Port
from cni.protocol.result import Result

_SIDE = {"in": "saddr", "out": "daddr"}
_IP = {4: "ip", 6: "ip6"}
_ICMP = {4: "icmp", 6: "ipv6-icmp"}
_RESOLVING = (Port("udp", 53, 53), Port("tcp", 53, 53))


def addresses_of(attached: Result, mac: str) -> tuple[str, ...]:
    """Every address a pod may use: its own, and in IPv6 the link-local one of its MAC."""
    own = [str(ipaddress.ip_interface(ip.address).ip) for ip in attached.ips]
    six = any(ip.family == 6 for ip in attached.ips)
    return tuple(dict.fromkeys([*own, *([str(link_local(mac))] if six else [])]))


def chain_rules(policy: Policy, addresses: Iterable[str], resolvers: Iterable[str], pod: str) -> tuple[str, ...]:
    """The rules of a pod, each behind its chain's name, as ``nft add rule inet TABLE`` takes them."""
    known = tuple(resolvers)
    return tuple(
        f"{chain_name(direction, address)} {line}"
        for address in addresses
        for direction in ("in", "out")
        for line in _chain(policy, direction, ipaddress.ip_address(address).version, known, pod)
    )


def chain_name(direction: str, address: str) -> str:
    """The chain of an address: ``in-10.1.0.5``, ``out-fd00--5``."""
    return f"{direction}-{address.replace(':', '-')}"


def _chain(policy: Policy, direction: str, family: int, resolvers: tuple[str, ...], pod: str) -> Iterator[str]:
    allowed = policy.ingress if direction == "in" else policy.egress
    if allowed is None:
        yield "return"
        return
    if policy.established:
        yield "ct direction reply ct state established return"
    if direction == "out" and policy.dns:
        yield from _dns(family, resolvers)
    for allowance in allowed:
        yield from _allowing(allowance, _SIDE[direction], family)
    if policy.log:
        yield f'limit rate 10/second burst 20 packets log prefix "{_label(pod, direction)}"'
    yield "drop"


def _allowing(allowance: Allowance, side: str, family: int) -> Iterator[str]:
    ranges = allowance.ranges(family)
    if allowance.peers is not None and not ranges:
        return
    peers = f"{_IP[family]} {side} {{ {', '.join(_spelled(span, family) for span in ranges)} }} " if ranges else ""
    if allowance.ports is None:
        yield f"{peers}return"
    for port in allowance.ports or ():
        yield f"{peers}{_port(port, family)} return"


def _dns(family: int, resolvers: tuple[str, ...]) -> Iterator[str]:
    """Port 53 of the pod's resolvers; of any, where none is known."""
    own = [address for address in resolvers if ipaddress.ip_address(address).version == family]
    if resolvers and not own:
        return
    peers = f"{_IP[family]} daddr {{ {', '.join(own)} }} " if own else ""
    for port in _RESOLVING:
        yield f"{peers}{_port(port, family)} return"


def _port(port: Port, family: int) -> str:
    if port.protocol == "icmp":
        return f"meta l4proto {_ICMP[family]}"
    if not port.first:
        return f"meta l4proto {port.protocol}"
    return f"{port.protocol} dport {port.first if port.first == port.last else f'{port.first}-{port.last}'}"


def _spelled(span: tuple[int, int], family: int) -> str:
    kind = ipaddress.IPv4Address if family == 4 else ipaddress.IPv6Address
    low, high = span
    return str(kind(low)) if low == high else f"{kind(low)}-{kind(high)}"


def _label(pod: str, direction: str) -> str:
    """What a drop's log line begins with; nft takes 127 bytes."""
    plain = "".join(char if char.isalnum() or char in "-_./" else "_" for char in pod)
    return f"agent-cni drop {direction} {plain[:96]}: "
