"""What is suggested lets through all that was seen, and nothing that was not: asked of the policies that it becomes."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
import yaml
from book import ListedBook
from hypothesis import given
from hypothesis import strategies as st

from cni.flows.seen import OVER, Flow
from cni.flows.sighting import ENDED, Sighting
from cni.flows.suggest import configuration, documents, spelled, unspoken
from cni.plugin import names as plugin_names
from cni.policy.config import read
from cni.policy.judgement import Other, judged
from cni.policy.model import Policy
from cni.protocol.schema import is_right

PODS = {f"10.1.0.{number}": f"shop/p{number}" for number in range(2, 6)} | {"10.1.0.7": "other/far"}
STRANGERS = ["192.0.2.7", "198.51.100.1", "fd00::7"]
NAMES = {"203.0.113.1": ("api.example.com",), "203.0.113.2": ("b.example.org", "cdn.example.org")}
ADDRESSES = [*PODS, *STRANGERS, *NAMES]
PORTS = [53, 80, 443, 5432]
ENDS = st.tuples(
    st.sampled_from(["egress", "ingress"]),
    st.sampled_from(ADDRESSES),
    st.sampled_from(["tcp", "udp", "icmp"]),
    st.sampled_from(PORTS),
)


def flow(direction: str, address: str, protocol: str, port: int) -> Flow:
    names = NAMES.get(address, ()) if direction == "egress" else ()
    port = 0 if protocol == "icmp" else port
    seen = Sighting(
        ENDED,
        1.0,
        direction,
        "shop/web",
        "0123",
        "10.1.0.1",
        PODS.get(address, ""),
        "",
        address,
        protocol,
        port,
        4000,
        names=names,
    )
    return Flow(seen, OVER)


def passes(policy: Policy, direction: str, address: str, protocol: str, port: int) -> bool:
    if policy.allows(direction, address, protocol, port):
        return True
    rules = policy.egress or () if direction == "egress" else ()
    return any(rule.admits(name, protocol, port) for rule in rules for name in NAMES.get(address, ()))


def every() -> list[tuple[str, str, str, int]]:
    ways = [(protocol, port) for protocol in ("tcp", "udp") for port in PORTS] + [("icmp", 0)]
    return [(way, address, *how) for way in ("egress", "ingress") for address in ADDRESSES for how in ways]


@given(st.lists(ENDS, max_size=12))
def test_a_section_lets_through_what_was_seen_and_no_more(ends: list[tuple[str, str, str, int]]):
    flows = [flow(*end) for end in ends]
    section = configuration(flows)
    conf = {"cniVersion": "1.1.0", "name": "net", "type": "custom-plugin", "policy": section}
    assert "custom-plugin" in plugin_names()
    assert is_right(conf, "custom-plugin")
    policy = read(section, "$.policy")
    seen = {(item.seen.direction, item.seen.address, item.seen.protocol, item.seen.port) for item in flows}
    assert {end for end in every() if passes(policy, *end)} == seen


def objects(**labels: dict[str, str]) -> list[dict[str, Any]]:
    own = {"shop/web": "10.1.0.1", **{name: address for address, name in PODS.items()}}
    return [
        {
            "kind": "Pod",
            "metadata": {"namespace": name.split("/")[0], "name": name.split("/")[1],
                         "labels": {"app": name.split("/")[1], "pod-template-hash": "1"}},
            "status": {"podIP": address},
        }
        for name, address in own.items()
    ]  # fmt: skip


def labels_of(name: str) -> dict[str, str] | None:
    return {"app": name.split("/")[1], "pod-template-hash": "1"} if name in {*PODS.values(), "shop/web"} else None


@given(st.lists(ENDS, max_size=12))
def test_documents_let_through_what_was_seen_and_no_more(ends: list[tuple[str, str, str, int]]):
    flows = [flow(*end) for end in ends]
    made, lines = documents("shop/web", flows, labels_of)
    raw = list(yaml.safe_load_all(spelled(made)))
    assert raw == made
    assert "pod-template-hash" not in str(raw)
    book = ListedBook(*raw, *objects())
    assert not [fault for item in (*book.policies("shop"), *book.cluster_policies()) for fault in item.faults]
    web = book.pod("shop", "web")
    assert web
    by_names = {
        (name, next(iter(protocol)), protocol[next(iter(protocol))]["destinationPort"]["number"])
        for document in raw[1:]
        for rule in document["spec"]["egress"]
        for name in rule["to"][0]["domainNames"]
        for protocol in rule["protocols"]
    }
    allowed = set()
    for direction, address, protocol, port in every():
        pod = next((item for item in book.pods() if address in item.addresses), None)
        named = direction == "egress" and any((name, protocol, port) in by_names for name in NAMES.get(address, ()))
        if named or judged(book, web, direction, Other(address, pod, protocol, port)).allowed:
            allowed.add((direction, address, protocol, port))
    seen = {(item.seen.direction, item.seen.address, item.seen.protocol, item.seen.port) for item in flows}
    assert allowed == {end for end in seen if end[2] != "icmp"}
    assert bool(lines) == any(end[2] == "icmp" for end in seen)


def test_a_pod_that_nothing_tells_from_others_has_no_document():
    with pytest.raises(ValueError, match="shop/nobody has no labels"):
        documents("shop/nobody", [], labels_of)
    with pytest.raises(ValueError, match="no labels"):
        documents("shop/web", [], lambda _: {"pod-template-hash": "1"})


def test_what_nothing_can_speak_of_is_said():
    found = [flow("egress", "192.0.2.7", "47", 0), flow("egress", "192.0.2.7", "tcp", 80)]
    assert unspoken(found) == ["192.0.2.7, protocol 47"]
    assert configuration(found)["egress"] == [
        {"to": [{"ipBlock": {"cidr": "192.0.2.7/32"}}], "ports": [{"protocol": "TCP", "port": 80}]}
    ]


def test_peers_of_equal_ports_are_one_rule():
    found = [flow("egress", address, "tcp", 443) for address in ("203.0.113.1", "192.0.2.7", "fd00::7")]
    (rule,) = configuration(found)["egress"]
    assert rule["to"] == [
        {"domainNames": ["api.example.com"]},
        {"ipBlock": {"cidr": "192.0.2.7/32"}},
        {"ipBlock": {"cidr": "fd00::7/128"}},
    ]
    assert ipaddress.ip_network(rule["to"][2]["ipBlock"]["cidr"]).prefixlen == 128
