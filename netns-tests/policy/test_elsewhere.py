"""Isolation of interfaces that are not ours, of macvlan pods, and policies that change under traffic."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from interception import address_of
from lab import AGENT_CNI, REFERENCE_DIR, Host, Lab, Pod, Site
from shop import DENY, NAMED
from town import RANGES, TABLE, Town, cidrs, serving
from traffic import SHORTLY, TIMED_OUT, Actor

FAMILIES = (4, 6)
BRIDGE = {
    "cniVersion": "1.0.0", "name": "ref", "type": "bridge", "bridge": "cni7", "isDefaultGateway": True,
    "ipam": {"type": "host-local", "dataDir": "/run/agent-cni/reference", "ranges": RANGES},
}  # fmt: skip
AFTER = {"cniVersion": "1.0.0", "name": "ref", "type": "custom-plugin"}


@pytest.fixture
def node(lab: Lab) -> Host:
    host = lab.host()
    host.run("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0", "net.bridge.bridge-nf-call-ip6tables=0")
    return host


@pytest.fixture
def held() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def theirs(node: Host, pod: Pod) -> dict[str, Any]:
    return node.add(BRIDGE, pod, bin_dir=REFERENCE_DIR)


def blocks(result: dict[str, Any]) -> list[str]:
    return [f"{address_of(result, 4)}/32", f"{address_of(result, 6)}/128"]


# --- chained after the reference bridge


def test_the_interface_of_another_plugin_is_held_on_the_host(node: Host, lab: Lab, held: ExitStack):
    friend, stranger, web = (lab.pod() for _ in range(3))
    results = {pod.name: theirs(node, pod) for pod in (friend, stranger, web)}
    conf = AFTER | {"policy": {"ingress": blocks(results[friend.name]), "egress": []}}
    given = results[web.name]
    assert node.add(conf | {"prevResult": given}, web) == given
    actors = {pod.name: serving(held.enter_context(Actor(pod))) for pod in (friend, stranger, web)}
    web.run("nft", "flush", "ruleset")
    for family in FAMILIES:
        target = address_of(given, family)
        assert actors[friend.name].reaches(target, 80) == "it"
        assert actors[stranger.name].connect(target, 80) == TIMED_OUT
        assert actors[web.name].connect(address_of(results[friend.name], family), 80) == TIMED_OUT
        assert actors[stranger.name].reaches(address_of(results[friend.name], family), 80) == "it"
    node.check(conf, web, given).ok()
    node.delete_pod(conf, web)
    node.delete_pod(conf, web)
    assert node.run("nft", "list", "ruleset").stdout == ""
    assert node.state()["attachments"] == []


def test_a_changed_policy_replaces_the_first_and_cuts_what_it_no_longer_allows(node: Host, lab: Lab, held: ExitStack):
    one, two, web = (lab.pod() for _ in range(3))
    results = {pod.name: theirs(node, pod) for pod in (one, two, web)}
    given = results[web.name]
    conf = AFTER | {"prevResult": given}
    both = blocks(results[one.name]) + blocks(results[two.name])
    node.add(conf | {"policy": {"ingress": both, "egress": []}}, web)
    actors = {pod.name: serving(held.enter_context(Actor(pod))) for pod in (one, two, web)}
    for family in FAMILIES:
        for pod in (one, two):
            assert actors[pod.name].connect(address_of(given, family), 80, keep=f"kept{family}")["who"] == "it"
    late = {"host": address_of(results[two.name], 4), "port": 7002, "source": [address_of(given, 4), 80]}
    actors[two.name].collect(7002)
    actors[two.name].send(address_of(given, 4), 80, "question", source=[late["host"], 7002])
    actors[web.name].send(text="late", **late)
    assert "late" in [text for _, text in actors[two.name].heard(1)]
    changed = conf | {"policy": {"ingress": blocks(results[one.name]), "egress": []}}
    node.add(changed, web)
    for family in FAMILIES:
        assert actors[one.name].echo(f"kept{family}") == "still there"
        assert actors[two.name].echo(f"kept{family}", seconds=SHORTLY) == TIMED_OUT
        assert actors[two.name].connect(address_of(given, family), 80) == TIMED_OUT
        assert actors[one.name].reaches(address_of(given, family), 80) == "it"
    actors[web.name].send(text="late", **late)
    assert actors[two.name].heard() == [], "the reply direction is shut as well"
    node.check(changed, web, given).ok()
    node.delete_pod(changed, web)
    assert node.run("nft", "list", "ruleset").stdout == ""


# --- macvlan: inside the pod


def test_a_macvlan_pod_is_held_in_its_own_namespace(site: Site, lab: Lab, dual: dict[str, Any], held: ExitStack):
    friend, web = lab.pod(), lab.pod()
    near = site.host.add(dual, friend)
    conf = dual | {"policy": {"ingress": blocks(near), "egress": [], "allowDNS": True}}
    result = site.host.add(conf, web)
    inside, server = (serving(held.enter_context(Actor(pod))) for pod in (friend, web))
    outside = serving(held.enter_context(Actor(site.outside)))
    server.listen("it", 53, udp=True)
    for family, far in ((4, "192.0.2.12"), (6, "fd00:2::12")):
        target = address_of(result, family)
        assert inside.reaches(target, 80) == "it"
        assert outside.connect(target, 80) == TIMED_OUT
        assert outside.reaches(address_of(near, family), 80) == "it"
        assert server.connect(far, 80)["error"] in ("TimeoutError", "PermissionError")
        assert inside.reaches(far, 80) == "it"
        assert server.reaches(target, 80) == "it", "a pod reaches itself"
    site.host.check(conf, web, result).ok()
    web.run("ip", "addr", "add", "192.0.2.250/24", "dev", "eth0")
    assert "error" in str(server._do("send", to=["192.0.2.12", 7000], text="x", source=["192.0.2.250", 0]))
    web.run("nft", "flush", "ruleset")
    assert "policy chain" in site.host.check(conf, web, result).failed(104)
    site.host.delete_pod(conf, web)
    site.host.delete_pod(dual, friend)


def test_the_node_gets_into_a_macvlan_pod_with_host_access(site: Site, pod: Pod, net: dict[str, Any]):
    conf = net | {"hostAccess": True, "policy": {"defaultDeny": True}}
    result = site.host.add(conf, pod)
    with Actor(site.host) as node, Actor(site.outside) as outside, Actor(pod) as server:
        serving(server)
        assert node.reaches(address_of(result, 4), 80) == "it"
        assert outside.connect(address_of(result, 4), 80) == TIMED_OUT
    site.host.delete_pod(conf, pod)
    assert pod.run("nft", "list", "ruleset").stdout == ""


@pytest.mark.tried(
    "a refresh of a macvlan pod that documents hold and its node may reach", "nothing changes, the node gets in still"
)
def test_a_refresh_leaves_the_node_its_way_into_a_macvlan_pod(
    site: Site, pod: Pod, net: dict[str, Any], tmp_path: Path
):
    (tmp_path / "deny.json").write_text(json.dumps(DENY))
    conf = net | {"hostAccess": True, "policy": {"policyDir": str(tmp_path)}}
    result = site.host.add(conf, pod, CNI_ARGS=f"{NAMED}web")
    with Actor(site.host) as node, Actor(site.outside) as outside, Actor(pod) as server:
        serving(server)
        assert node.reaches(address_of(result, 4), 80) == "it"
        assert "changed 0 of 1" in site.host.run(AGENT_CNI, "refresh").stdout
        assert node.reaches(address_of(result, 4), 80) == "it"
        assert outside.connect(address_of(result, 4), 80) == TIMED_OUT
    site.host.delete_pod(conf, pod)


def test_after_the_reference_macvlan_the_pod_is_held_in_its_own_namespace(site: Site, pod: Pod):
    reference = {"cniVersion": "1.0.0", "name": "mac", "type": "macvlan", "master": "eth0"}
    reference["ipam"] = {"type": "static", "addresses": [{"address": "192.0.2.150/24"}]}
    given = site.host.add(reference, pod, bin_dir=REFERENCE_DIR)
    conf = {"cniVersion": "1.0.0", "name": "mac", "type": "custom-plugin", "policy": {"ingress": ["198.51.100.0/24"]}}
    with Actor(site.outside) as outside, Actor(pod) as server:
        serving(server)
        assert outside.reaches("192.0.2.150", 80) == "it"
        assert site.host.add(conf | {"prevResult": given}, pod) == given
        assert outside.connect("192.0.2.150", 80) == TIMED_OUT
    site.host.delete_pod(conf, pod)
    assert pod.run("nft", "list", "ruleset").stdout == ""
    site.host.delete_pod(reference, pod, bin_dir=REFERENCE_DIR)


# --- together with interception, and errors


def test_isolation_and_interception_in_one_call(lab: Lab, held: ExitStack):
    town = Town(lab.host(), lab, "routed", held)
    friend, stranger = town.member(), town.member()
    web = town.member({"ingress": cidrs(friend)}, sidecar={})
    proxy = held.enter_context(Actor(web.pod, 1337))
    proxy.listen("proxy", 15001)
    for family in FAMILIES:
        assert friend.actor.reaches(web.address(family), 80) == "proxy"
        assert stranger.actor.connect(web.address(family), 80) == TIMED_OUT
        assert web.actor.reaches(friend.address(family), 80) == "proxy"
    town.host.check(web.conf, web.pod, web.result).ok()


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"ingress": ["10.0.0.1/8"]}, "$.policy.ingress[0]"),
        (
            {"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["192.0.2.0/24"]}}]}]},
            "except 192.0.2.0/24 is not within",
        ),
        (
            {"ingress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]},
            "$.policy.ingress[0].to: a rule of this direction has 'from'",
        ),
        (
            {"egress": [{"ports": [{"port": 90, "endPort": 80}]}]},
            "$.policy.egress[0].ports[0].endPort: 80 is less than port 90",
        ),
        ({"egress": [{"ports": [{"protocol": "ICMP", "port": 8}]}]}, "ICMP has no ports"),
    ],
    ids=str,
)
def test_an_impossible_policy_is_refused_by_its_entry(host: Host, pod: Pod, policy: dict[str, Any], words: str):
    conf = {"cniVersion": "1.1.0", "name": "net", "type": "custom-plugin", "policy": policy}
    assert words in host.cni("ADD", conf, pod).failed(7)
    assert host.run("nft", "list", "ruleset").stdout == ""


def test_a_chain_has_one_policy(lab: Lab, pod: Pod):
    host, town = lab.host(), {"ipam": {"ranges": RANGES}, "policy": {"defaultDeny": True}}
    first = {"cniVersion": "1.1.0", "name": "net", "type": "bridge-vxlan", "bridge": "br0"} | town
    given = host.add(first, pod)
    second = {"cniVersion": "1.1.0", "name": "net", "type": "custom-plugin", "policy": {"ingress": []}}
    assert "one address has one policy" in host.cni("ADD", second | {"prevResult": given}, pod).failed(101)
    host.check(first, pod, given).ok()
    host.delete_pod(second, pod)
    host.check(first, pod, given).ok()
    host.delete_pod(first, pod)


def test_an_interface_without_addresses_has_no_policy(host: Host, pod: Pod):
    conf = {"cniVersion": "1.1.0", "name": "net", "type": "bridge-vxlan", "policy": {"defaultDeny": True}}
    assert "needs a pod with addresses" in host.cni("ADD", conf, pod).failed(7)


def test_drops_are_logged_with_the_pods_name(lab: Lab, held: ExitStack):
    town = Town(lab.host(), lab, "routed", held)
    pod, conf = lab.pod(), town.conf({"defaultDeny": True, "log": True})
    town.host.add(conf, pod, CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0")
    rules = town.host.run("nft", "list", "table", *TABLE).stdout
    assert 'limit rate 10/second burst 20 packets log prefix "agent-cni drop in shop/web-0: "' in rules
