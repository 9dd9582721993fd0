"""What somebody else did to the ways of pods, over nodes that are drawn by hand."""

from __future__ import annotations

import errno

import pytest
from drawn import Drawn, node

from cni.reach import nft
from cni.reach.astray import Stand, astray, closed
from cni.reach.rules import Rules

STAND = Stand("10.1.0.2", "br0", "veth2")


def chain(hook: str, table: str, *, policy: str = "accept", rule: str = "") -> Rules:
    said = f'{{"chain": {{"family": "inet", "table": "{table}", "name": "c", "type": "filter", "hook": "{hook}", "prio": 0, "policy": "{policy}"}}}}'
    match = f', {{"rule": {{"family": "inet", "table": "{table}", "chain": "c", "expr": [{rule}, {{"drop": null}}]}}}}'
    return Rules(nft.chains(f'{{"nftables": [{said}{match if rule else ""}]}}'))


def lines(place: Drawn) -> list[str]:
    return [item.line for item in astray(place, STAND)]


def test_nothing_is_wrong_with_a_node_as_it_is_to_be():
    assert lines(node(2)) == []
    assert list(closed(node(2), "192.0.2.12", 4789)) == []


def test_a_route_of_somebody_else_leads_past_the_bridge():
    place = node(2)
    place.routes.insert(0, ("10.1.0.0/25", 2, "192.0.2.12"))
    (found,) = astray(place, STAND)
    assert found.line == "a route of somebody else leads what is sent to pods on br0 by eth0 via 192.0.2.12"
    assert found.mend.startswith("ip route show match 10.1.0.2 says which")


def test_the_node_has_the_pods_address_itself():
    place = node(2)
    place.addresses[2].append("10.1.0.2")
    assert lines(place) == ["the node itself has 10.1.0.2, on eth0, and takes what is sent to the pod"]


def test_a_rule_of_policy_routing_refuses_what_a_pod_sends():
    place = node(2)
    place.refused["10.1.0.2"] = errno.EINVAL
    assert lines(place) == ["the node forwards nothing that comes from 10.1.0.2 by br0 (EINVAL)"]


@pytest.mark.parametrize(("table", "said"), [("fw", True), ("agent_cni_policy", False)])
def test_rules_of_somebody_else_drop_what_pods_send(table: str, said: bool):
    place = node(2, rules=chain("forward", table, policy="drop"))
    found = list(astray(place, STAND))
    assert [item.line for item in found] == [
        "rules of somebody else drop what pods send out: chain c of table inet fw (its policy)"
    ] * said
    assert all(item.meant for item in found)


def test_a_node_without_a_way_out_is_not_asked_for_one():
    place = node(2, rules=chain("forward", "fw", policy="drop"))
    place.routes.pop()
    assert lines(place) == []


@pytest.mark.parametrize(
    ("hook", "what"), [("input", "what other hosts' tunnels send"), ("output", "what the tunnel sends to other hosts")]
)
def test_a_firewall_closes_the_tunnels_port(hook: str, what: str):
    port = '{"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": 4789}}'
    place = node(2, rules=chain(hook, "fw", rule=port))
    (found,) = closed(place, "192.0.2.12", 4789)
    assert found.line.startswith(f"rules of somebody else drop {what} (UDP port 4789): chain c of table inet fw")
    assert list(closed(place, "192.0.2.12", 8472)) == []


def test_a_pod_whose_links_are_gone_is_not_asked_about():
    assert list(astray(node(), STAND)) == []
