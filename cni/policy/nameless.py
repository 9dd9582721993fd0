"""Addresses that do not tell whose they are: who is denied is told by addresses, and these are nobody's.

A pod on a bridge has a link-local one besides its own, in IPv6, which no document and no state says; behind a group or a
broadcast there is anybody. So whoever denies pods denies these with them, on the same ports.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from cni.naming import IPInterface
from cni.policy.model import Allowance, Peers, Policy, Port, Ruling, Tier, merged
from cni.policy.peers import together
from cni.values import replace

_LINK_LOCAL = "fe80::/10"
_GROUPS = {4: ("224.0.0.0/4", "255.255.255.255/32"), 6: ("ff00::/8",)}


def denied_with_pods(policy: Policy, networks: Iterable[IPInterface]) -> Policy:
    """A policy whose tiers deny nameless addresses with pods, and link-local ones with IPv6 blocks, which are pods' as well;
    `networks` are those the pod is in.
    """
    broadcasts = [f"{item.network.broadcast_address}/32" for item in networks if item.version == 4]
    groups = together([_peers(4, [*_GROUPS[4], *broadcasts]), _peers(6, _GROUPS[6])])
    return replace(policy, admin=_of_tier(policy.admin, groups), baseline=_of_tier(policy.baseline, groups))


def _of_tier(tier: Tier, groups: tuple[Peers, ...]) -> Tier:
    # nothing comes from a group (RFC 1122, 3.2.1.3): who sends to one is told by his own address
    ways = {"ingress": tier.ingress, "egress": tier.egress}
    sent_to = {"ingress": (), "egress": groups}
    return Tier(**{way: tuple(_widened(rulings, sent_to[way])) for way, rulings in ways.items()})


def _widened(rulings: Iterable[Ruling], groups: tuple[Peers, ...]) -> Iterator[Ruling]:
    for ruling in rulings:
        yield ruling
        match = ruling.match
        if ruling.action == "deny" and (match.selections or match.ranges(6)):
            nameless = (_peers(6, [_LINK_LOCAL]), *(groups if match.selections else ()))
            yield Ruling("deny", replace(match, peers=together(nameless), ports=_ports(match), selections=()))


def _ports(match: Allowance) -> tuple[Port, ...] | None:
    """Those it denies: of one that is named whatever has its protocol, for the number is each pod's own."""
    named = tuple(dict.fromkeys(Port(item.port.protocol) for item in match.selections if item.port))
    return named or match.ports


def _peers(family: int, networks: Iterable[str]) -> Peers:
    known = map(ipaddress.ip_network, networks)
    return Peers(family, merged([(int(item.network_address), int(item.broadcast_address)) for item in known]))
