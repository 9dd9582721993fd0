"""A policy as nft rules, pure: one chain per pod and direction, found by verdict maps.

A chain returns what it lets through and drops the rest, so that both ends of a connection within the node
are asked. Every packet is asked, also of connections that are old: a packet of the reply direction is held
to the rules of the direction its connection began in, mirrored. So a changed policy cuts at once what it no
longer allows, both ways, and nothing has to be deleted from conntrack.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from cni.naming import interface_of, link_local, peer_set
from cni.policy.model import Allowance, Policy, Port, hosts
from cni.protocol.result import Result
from cni.values import replace

_SIDE = {"in": "saddr", "out": "daddr"}
_IP = {4: "ip", 6: "ip6"}
_ICMP = {4: "icmp", 6: "ipv6-icmp"}
_RESOLVING = (Port("udp", 53, 53), Port("tcp", 53, 53))


def addresses_of(attached: Result, mac: str) -> tuple[str, ...]:
    """Every address a pod may use: its own, and in IPv6 the link-local one of its MAC."""
    own = [str(interface_of(ip.address).ip) for ip in attached.ips]
    six = any(ip.family == 6 for ip in attached.ips)
    return tuple(dict.fromkeys([*own, *([str(link_local(mac))] if six else [])]))


def chain_rules(
    policy: Policy, token: str, families: Iterable[int], resolvers: Iterable[str], pod: str
) -> tuple[str, ...]:
    """The rules of a pod, each behind its chain's name, ``in-TOKEN`` or ``out-TOKEN``, as ``nft add rule inet TABLE``
    takes them; `families` are the IP versions (4, 6) that may be let through.
    """
    spoken, known = tuple(families), tuple(resolvers)
    return tuple(
        f"{direction}-{token} {line}"
        for direction in ("in", "out")
        for line in dict.fromkeys(_chain(policy, direction, spoken, known, pod))
    )


def _chain(
    policy: Policy, direction: str, families: tuple[int, ...], resolvers: tuple[str, ...], pod: str
) -> Iterator[str]:
    allowed = {"in": policy.ingress, "out": _with_dns(policy, resolvers)}
    own, other = allowed[direction], allowed["out" if direction == "in" else "in"]
    if own is None:
        yield "return"
        return
    for family in families if policy.established else ():
        for line in passing(other, _SIDE[direction], "sport", family):
            yield f"ct direction reply {line} return".replace("  ", " ")
    for family in families:
        yield from (f"{line} return".lstrip() for line in passing(own, _SIDE[direction], "dport", family))
    if policy.log:
        yield f'limit rate 10/second burst 20 packets log prefix "{_label(pod, direction)}"'
    yield "drop"


def _with_dns(policy: Policy, resolvers: tuple[str, ...]) -> tuple[Allowance, ...] | None:
    """Egress with port 53 of the pod's resolvers; of any, where none is known."""
    if policy.egress is None or not policy.dns:
        return policy.egress
    return (*policy.egress, Allowance(hosts(resolvers) if resolvers else None, _RESOLVING))


def passing(allowed: tuple[Allowance, ...] | None, side: str, port_of: str, family: int) -> Iterator[str]:
    """What matches all that passes towards or from the peers; a direction without rules is open. Pods among them are looked up
    in the sets of their selections.
    """
    for allowance in (Allowance(),) if allowed is None else allowed:
        ports = [_port(port, port_of, family) for port in allowance.ports or ()]
        for near in _near(allowance, side, port_of, family):
            yield from (f"{near} {port}".lstrip() for port in ports) if ports else (near,)


def passing_blocks(allowed: Iterable[Allowance], side: str, port_of: str, family: int) -> Iterator[str]:
    """The same of blocks of addresses only, where there are no sets to ask."""
    return passing(tuple(replace(item, selections=()) for item in allowed), side, port_of, family)


def _near(allowance: Allowance, side: str, port_of: str, family: int) -> Iterator[str]:
    ip, ranges = _IP[family], allowance.ranges(family)
    if allowance.peers is None:
        yield ""
    if ranges:
        yield f"{ip} {side} {{ {', '.join(_spelled(span, family) for span in ranges)} }}"
    for selection in allowance.selections:
        key = f"{ip} {side} . meta l4proto . th {port_of}" if selection.port else f"{ip} {side}"
        yield f"{key} @{peer_set(selection.text, family, ports=selection.port is not None)}"


def _port(port: Port, port_of: str, family: int) -> str:
    if port.protocol == "icmp":
        return f"meta l4proto {_ICMP[family]}"
    if not port.first:
        return f"meta l4proto {port.protocol}"
    return f"{port.protocol} {port_of} {port.first if port.first == port.last else f'{port.first}-{port.last}'}"


def _spelled(span: tuple[int, int], family: int) -> str:
    kind = ipaddress.IPv4Address if family == 4 else ipaddress.IPv6Address
    low, high = span
    return str(kind(low)) if low == high else f"{kind(low)}-{kind(high)}"


def _label(pod: str, direction: str) -> str:
    """What a drop's log line begins with; nft takes 127 bytes."""
    plain = "".join(char if char.isalnum() or char in "-_./" else "_" for char in pod)
    return f"agent-cni drop {direction} {plain[:96]}: "
