"""CHECK names every drift of what we made, and is silent on what is as it should be."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from lab import BIN_DIR, CNITOOL, REFERENCE_DIR, Host, Lab, Pod, sh

VXLAN = {"vxlan": {"id": 7, "remotes": ["192.0.2.12"]}}
IPTABLES = {"ipMasqBackend": "iptables"}


def veth(host: Host) -> str:
    """The host end of the pod attached last."""
    return [link["ifname"] for link in host.ip("link", "show") if link["ifname"].startswith("veth")][-1]


def on_host(*words: str) -> Callable[[Host, Pod], object]:
    return lambda host, pod: sh("ip", "-n", host.name, *(veth(host) if word == "VETH" else word for word in words))


def in_pod(*words: str) -> Callable[[Host, Pod], object]:
    return lambda host, pod: sh("ip", "-n", pod.name, *words)


def run(*words: str) -> Callable[[Host, Pod], object]:
    return lambda host, pod: host.run(*words)


def sql(text: str) -> Callable[[Host, Pod], object]:
    script = f"import sqlite3; d = sqlite3.connect('/run/agent-cni/state.db'); d.execute({text!r}); d.commit()"
    return lambda host, pod: host.run("python3", "-c", script)


DRIFTS = {
    "address gone": ({}, in_pod("addr", "del", "10.1.0.3/24", "dev", "eth0"), "address 10.1.0.3/24 is missing"),
    "IPv6 address gone": ({}, in_pod("addr", "del", "fd00:1::3/64", "dev", "eth0"), "address fd00:1::3/64 is missing"),
    "default route gone": ({}, in_pod("route", "del", "default"), "route 0.0.0.0/0 is missing"),
    "default route elsewhere": ({}, in_pod("route", "replace", "default", "via", "10.1.0.77"), "route 0.0.0.0/0 in the pod is not"),
    "pod link down": ({}, in_pod("link", "set", "eth0", "down"), "eth0 is down in the pod"),
    "pod link gone": ({}, in_pod("link", "del", "eth0"), "eth0 is missing in the pod"),
    "pod MTU": ({}, in_pod("link", "set", "eth0", "mtu", "1600"), "eth0 has MTU 1600, above 1500"),
    "pod MAC": ({}, in_pod("link", "set", "eth0", "address", "0a:00:00:00:00:99"), "eth0 has MAC 0a:00:00:00:00:99"),
    "host end down": ({}, on_host("link", "set", "VETH", "down"), "is down"),
    "host end off the bridge": ({}, on_host("link", "set", "VETH", "nomaster"), "is not a port of br0"),
    "host end MTU": ({}, on_host("link", "set", "VETH", "mtu", "1300"), "has MTU 1300, not 1500"),
    "host end hairpin": ({}, on_host("link", "set", "VETH", "type", "bridge_slave", "hairpin", "on"), "has hairpin on"),
    "host end MAC": ({}, on_host("link", "set", "VETH", "address", "0a:00:00:00:00:99"), "has MAC 0a:00:00:00:00:99, not fe:"),
    **{
        f"host end {flag}": ({}, on_host("link", "set", "VETH", "type", "bridge_slave", flag, "off"), f"has {flag} off")
        for flag in ("learning", "flood", "mcast_flood", "bcast_flood")
    },
    "bridge MAC": ({}, on_host("link", "set", "br0", "address", "0a:00:00:00:00:99"), "br0 has MAC 0a:00:00:00:00:99, not 0a:58:"),
    "near gone": (
        {}, run("nft", "delete", "element", "ip", "agent_cni", "near", "{", "10.1.0.3", ".", "10.1.0.0/24", "}"),
        "masquerading of 10.1.0.3 is missing",
    ),
    "tunnel MAC": (VXLAN, on_host("link", "set", "vxlan7", "address", "0a:00:00:00:00:99"), "vxlan7 has MAC 0a:00:00:00:00:99, not fe:"),
    "tunnel flood": (VXLAN, on_host("link", "set", "vxlan7", "type", "bridge_slave", "flood", "off"), "vxlan7 has flood off"),
    "tunnel isolated": (VXLAN, on_host("link", "set", "vxlan7", "type", "bridge_slave", "isolated", "on"), "vxlan7 has isolated on"),
    "bridge down": ({}, on_host("link", "set", "br0", "down"), "bridge br0 is down"),
    "bridge gone": ({}, on_host("link", "del", "br0"), "bridge br0 is missing"),
    "bridge MTU": ({}, on_host("link", "set", "br0", "mtu", "1300"), "bridge br0 has MTU 1300"),
    "gateway gone": ({}, on_host("addr", "del", "10.1.0.1/24", "dev", "br0"), "gateway address 10.1.0.1/24 is missing"),
    "no forwarding": ({}, run("sysctl", "-qw", "net.ipv4.ip_forward=0"), "sysctl net.ipv4.ip_forward is 0, not 1"),
    "no IPv6 forwarding": ({}, run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=0"), "net.ipv6.conf.all.forwarding is 0"),
    "element gone": (
        {}, run("nft", "delete", "element", "ip", "agent_cni", "pods", "{", "10.1.0.3", "}"), "masquerading of 10.1.0.3 is missing",
    ),
    "rules flushed": ({}, run("nft", "flush", "chain", "ip", "agent_cni", "postrouting"), "masquerade rule is missing"),
    "everything flushed": ({}, run("nft", "flush", "ruleset"), "masquerading of fd00:1::3 is missing"),
    "iptables flushed": (IPTABLES, run("iptables-nft", "-t", "nat", "-F"), "masquerading of 10.1.0.3 is missing (iptables-nft)"),
    "iptables unhooked": (IPTABLES, run("iptables-nft", "-t", "nat", "-F", "POSTROUTING"), "-A POSTROUTING -j ACNI-MASQUERADE"),
    "lease gone": ({}, sql("DELETE FROM lease WHERE family = 4"), "lease of 10.1.0.3/24"),
    "record gone": ({}, sql("DELETE FROM attachment"), "no completed attachment is recorded"),
    "tunnel down": (VXLAN, on_host("link", "set", "vxlan7", "down"), "vxlan7 is down"),
    "tunnel gone": (VXLAN, on_host("link", "del", "vxlan7"), "vxlan7 is missing"),
    "tunnel off the bridge": (VXLAN, on_host("link", "set", "vxlan7", "nomaster"), "vxlan7 is not a port of br0"),
    "VTEP gone": (
        VXLAN, run("bridge", "fdb", "del", "00:00:00:00:00:00", "dev", "vxlan7", "dst", "192.0.2.12"), "VTEP 192.0.2.12 is missing",
    ),
}  # fmt: skip


@pytest.fixture
def node(lab: Lab) -> Host:
    host = lab.host()
    lab.underlay(host)
    return host


@pytest.mark.parametrize("drift", DRIFTS)
def test_a_drift_is_named(node: Host, lab: Lab, conf: dict, drift: str):
    keys, spoil, words = DRIFTS[drift]
    wanted = conf | keys | ({"mtu": 1500} if not keys.get("vxlan") else {})
    node.add(wanted, lab.pod())  # so that the pod under test is 10.1.0.3 and shares what is shared
    pod = lab.pod()
    result = node.add(wanted, pod)
    node.check(wanted, pod, result).ok()
    spoil(node, pod)
    assert words in node.check(wanted, pod, result).failed(104)
    if drift.startswith("tunnel"):  # whose next pod, or a refresh, makes it so again
        node.add(wanted, lab.pod())
        node.check(wanted, pod, result).ok()


@pytest.mark.parametrize(
    "keys",
    [
        {},
        IPTABLES,
        VXLAN,
        {"ipam": {}, "ipMasq": False},
        {"ipam": {"subnet": "10.1.0.0/24"}},
        {"hairpinMode": True},
        {"portIsolation": True},
    ],
    ids=["dual stack", "iptables", "vxlan", "layer 2", "IPv4", "hairpin", "isolated"],
)
def test_what_add_made_is_fine(node: Host, lab: Lab, conf: dict, keys: dict):
    pods = [lab.pod() for _ in range(2)]
    results = [node.add(conf | keys, pod) for pod in pods]
    for pod, result in zip(pods, results, strict=True):
        node.check(conf | keys, pod, result).ok()


def test_a_smaller_neighbour_does_not_disturb(node: Host, lab: Lab, conf: dict):
    pod = lab.pod()
    result = node.add(conf, pod)
    node.add(conf | {"mtu": 1400}, lab.pod())
    node.check(conf, pod, result).ok()


def test_what_later_plugins_report_is_accepted(node: Host, lab: Lab, conf: dict):
    pod = lab.pod()
    result = node.add(conf, pod)
    sh("ip", "-n", pod.name, "link", "set", "eth0", "address", "0a:00:00:00:00:55", "mtu", "1300")
    result["interfaces"][2] |= {"mac": "0a:00:00:00:00:55", "mtu": 1300}
    node.check(conf, pod, result).ok()


def test_a_chained_tuning_plugin_is_accepted_by_cnitool_check(node: Host, lab: Lab, conf: dict):
    pod = lab.pod()
    tuning = {"type": "tuning", "mac": "0a:00:00:00:00:66", "sysctl": {"net.ipv4.conf.eth0.arp_filter": "1"}}
    first = {key: value for key, value in conf.items() if key not in ("cniVersion", "name")}
    chain = {"cniVersion": "1.0.0", "name": "chain", "plugins": [first, tuning]}
    (node.folder / "chain.conflist").write_text(json.dumps(chain))
    env = {
        "CNI_PATH": f"{BIN_DIR}:{REFERENCE_DIR}",
        "NETCONFPATH": str(node.folder),
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    }
    for verb in ("add", "check", "del"):
        node.run(CNITOOL, verb, "chain", pod.path, env=env)


def test_check_needs_the_result_of_the_add(node: Host, lab: Lab, conf: dict):
    pod = lab.pod()
    result = node.add(conf, pod)
    assert "$.prevResult" in node.cni("CHECK", conf, pod).failed(7)
    result["ips"] = []
    assert "prevResult lacks 10.1.0.2/24" in node.check(conf, pod, result).failed(104)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (in_pod("neigh", "del", "169.254.1.1", "dev", "eth0"), "neighbour 169.254.1.1 at fe:"),
        (in_pod("neigh", "del", "fe80::1", "dev", "eth0"), "neighbour fe80::1 at fe:"),
        (in_pod("route", "del", "default"), "route 0.0.0.0/0 is missing in the pod"),
        (on_host("neigh", "del", "10.1.0.2", "dev", "VETH"), "host neighbour 10.1.0.2 at 0a:"),
        (on_host("route", "del", "10.1.0.2/32"), "host route 10.1.0.2/32 dev veth"),
    ],
    ids=[
        "the pod's neighbour",
        "the pod's IPv6 neighbour",
        "the pod's route",
        "the host's neighbour",
        "the host's route",
    ],
)
def test_a_drift_of_a_routed_pod_is_named(node: Host, lab: Lab, conf: dict, spoil: Callable, words: str):
    routed = {"cniVersion": "1.1.0", "name": "routed", "type": "custom-plugin", "ipam": conf["ipam"]}
    pod = lab.pod()
    result = node.add(routed, pod)
    node.check(routed, pod, result).ok()
    spoil(node, pod)
    assert words in node.check(routed, pod, result).failed(104)
