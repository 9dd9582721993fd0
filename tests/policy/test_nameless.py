"""Addresses that tell nobody whose they are go with the pods that are denied, and with nobody else."""

from __future__ import annotations

import ipaddress

import pytest

from cni.policy.labels import Selector
from cni.policy.model import Allowance, Policy, Port, Ruling, Tier, hosts
from cni.policy.nameless import denied_with_pods
from cni.policy.objects import NamedPort
from cni.policy.selection import Selection

PODS = Selection("folder /x", "shop")
NAMED = Selection("folder /x", "", Selector(), Selector(), NamedPort("udp", "dns"))
NETWORKS = (ipaddress.ip_interface("10.1.0.5/24"), ipaddress.ip_interface("fd00:1::5/64"))
LINK_LOCAL, GROUPS = ("fe80::7",), ("224.0.0.1", "255.255.255.255", "10.1.0.255", "ff02::1")
NAMELESS = (*LINK_LOCAL, *GROUPS)


def denied(direction: str, match: Allowance, action: str = "deny", protocol: str = "udp", port: int = 53) -> set[str]:
    """Which nameless addresses both tiers deny by a ruling."""
    found = []
    for tier in ("admin", "baseline"):
        policy = Policy(**{tier: Tier(**{direction: (Ruling(action, match),)})})
        made = denied_with_pods(policy, NETWORKS)
        found.append({it for it in NAMELESS if not made.allows(direction, it, protocol, port)})
    assert found[0] == found[1]
    return found[0]


def test_who_sends_is_told_by_no_link_local_address():
    assert denied("ingress", Allowance((), None, (PODS,))) == set(LINK_LOCAL)


def test_who_is_sent_to_is_told_by_no_group_either():
    assert denied("egress", Allowance((), None, (PODS,))) == set(NAMELESS)


def test_link_local_addresses_go_with_blocks_of_their_family():
    assert denied("egress", Allowance(hosts(["fd00:1::9"]))) == set(LINK_LOCAL)
    assert denied("egress", Allowance(hosts(["10.9.9.9"]))) == set()


def test_on_what_ports_pods_are_denied_these_are():
    only = Allowance((), (Port("udp", 53, 53),), (PODS,))
    assert denied("egress", only) == set(NAMELESS)
    assert denied("egress", only, port=54) == set()
    named = Allowance((), None, (NAMED,))
    assert denied("egress", named, port=5353) == set(NAMELESS), "its number is each pod's own"
    assert denied("egress", named, protocol="tcp") == set()


@pytest.mark.parametrize("action", ["accept", "pass"])
def test_nobody_is_let_through_with_them(action: str):
    assert denied("egress", Allowance((), None, (PODS,)), action) == set()
