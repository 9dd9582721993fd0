"""A pod on several networks, and what plugins after ours do with its routes: the reference's meaning, and CHECK content with it."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from lab import AGENT_CNI, BIN_DIR, CNITOOL, PATIENCE, REFERENCE_DIR, Host, Lab, Pod, sh

VERSION = "1.0.0"


@pytest.fixture
def node(lab: Lab) -> Host:
    """A host on a wire."""
    host = lab.host()
    lab.underlay(host)
    sh("ip", "-n", host.name, "addr", "add", "fd00:9::9/128", "dev", "eth0", "nodad")
    return host


def ranges(*subnets: str, **keys: Any) -> dict[str, Any]:
    return {"ranges": [[{"subnet": subnet}] for subnet in subnets], **keys}


def network(name: str, **keys: Any) -> dict[str, Any]:
    return {"cniVersion": VERSION, "name": name, "type": "bridge-vxlan", "bridge": f"br-{name}"} | keys


EVERYWHERE = {"routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}
TENS = {"routes": [{"dst": "10.0.0.0/8"}, {"dst": "fd00::/8"}]}
FIRST = ("10.1.0.0/24", "fd00:1::/64")
SECOND = ("10.2.0.0/24", "fd00:2::/64")
#: A first and a second network of one pod, and where both lead.
PAIRS = {
    "two default gateways": (
        network("one", isDefaultGateway=True, ipam=ranges(*FIRST)),
        network("two", isDefaultGateway=True, ipam=ranges(*SECOND)),
        ("default", "default"),
    ),
    "a macvlan": (
        network("one", isDefaultGateway=True, ipam=ranges(*FIRST)),
        {"cniVersion": VERSION, "name": "mac", "type": "macvlan", "ipam": ranges(*SECOND) | EVERYWHERE}
        | {"gateway": ["10.2.0.1", "fd00:2::1"]},
        ("default", "default"),
    ),
    "two isolated": (
        {"cniVersion": VERSION, "name": "one", "type": "custom-plugin", "ipam": ranges(*FIRST)},
        {"cniVersion": VERSION, "name": "two", "type": "custom-plugin", "ipam": ranges(*SECOND)},
        ("default", "default"),
    ),
    "two of which one has an MTU": (
        network("one", isGateway=True, ipam=ranges(*FIRST) | EVERYWHERE),
        network("two", isGateway=True, cniVersion="1.1.0")
        | {"ipam": ranges(*SECOND, routes=[route | {"mtu": 1300} for route in EVERYWHERE["routes"]])},
        ("default", "default"),
    ),
    "two 10/8": (
        network("one", isGateway=True, ipam=ranges(*FIRST) | TENS),
        network("two", isGateway=True, ipam=ranges(*SECOND) | TENS),
        ("10.0.0.0/8", "fd00::/8"),
    ),
}


def ways(pod: Pod, dst: str, family: int) -> list[str]:
    """The links of what leads there, in the order in which the kernel looks."""
    found = [route for route in pod.routes(family) if route["dst"] == dst]
    return [hop["dev"] for route in found for hop in route.get("nexthops", [route])]


@pytest.mark.parametrize("leaving", [0, 1], ids=["the first leaves", "the second leaves"])
@pytest.mark.parametrize("pair", PAIRS)
def test_networks_that_lead_the_same_way_stand_beside_each_other(node: Host, pod: Pod, pair: str, leaving: int):
    *networks, everywhere = PAIRS[pair]
    results = [node.add(conf, pod, ifname=f"net{number}") for number, conf in enumerate(networks)]
    for family, dst in zip((4, 6), everywhere, strict=True):
        assert ways(pod, dst, family) == {4: ["net1", "net0"], 6: ["net0", "net1"]}[family]
    for number, conf in enumerate(networks):
        node.check(conf, pod, results[number], ifname=f"net{number}").ok()
    staying = 1 - leaving
    node.delete_pod(networks[leaving], pod, ifname=f"net{leaving}")
    for family, dst in zip((4, 6), everywhere, strict=True):
        assert ways(pod, dst, family) == [f"net{staying}"]
    node.check(networks[staying], pod, results[staying], ifname=f"net{staying}").ok()
    node.delete_pod(networks[staying], pod, ifname=f"net{staying}")


@pytest.mark.parametrize("pair", ["two default gateways", "two 10/8"])
def test_the_reference_adds_the_same_routes_in_the_same_order(lab: Lab, pair: str):
    *networks, everywhere = PAIRS[pair]
    found = []
    for bin_dir, kind, ipam in ((BIN_DIR, "bridge-vxlan", {}), (REFERENCE_DIR, "bridge", {"type": "host-local"})):
        host, pod = lab.host(), lab.pod()
        for number, conf in enumerate(networks):
            folder = {"dataDir": str(host.folder / "ipam")} if ipam else {}
            theirs = conf | {"type": kind, "ipam": conf["ipam"] | ipam | folder}
            host.add(theirs, pod, ifname=f"net{number}", bin_dir=bin_dir)
        found.append([ways(pod, dst, family) for family, dst in zip((4, 6), everywhere, strict=True)])
    assert found[0] == found[1]


def test_a_route_may_lead_where_another_leads(node: Host, pod: Pod):
    routes = [
        {"dst": "0.0.0.0/0"},
        {"dst": "0.0.0.0/0", "gw": "10.1.0.1"},
        {"dst": "10.1.0.0/24", "gw": "10.1.0.7"},
        {"dst": "fd00:1::/64", "gw": "fd00:1::7"},
        {"dst": "fd00:9::/64", "gw": "fd00:1::1"},
        {"dst": "fd00:9::/64", "gw": "fd00:1::8"},
    ]
    conf = network("one", cniVersion="1.1.0", isDefaultGateway=True, ipam=ranges(*FIRST, routes=routes))
    result = node.add(conf, pod)
    assert [route["gateway"] for route in pod.routes() if route["dst"] == "default"] == ["10.1.0.1"]
    assert [route.get("gateway") for route in pod.routes() if route["dst"] == "10.1.0.0/24"] == ["10.1.0.7", None]
    node.check(conf, pod, result).ok()
    sh("ip", "-n", pod.name, "-6", "route", "del", "fd00:9::/64", "via", "fd00:1::8")
    assert "route fd00:9::/64 in the pod is not fd00:9::/64 via fd00:1::8" in node.check(conf, pod, result).failed(104)
    node.delete_pod(conf, pod)
    twice = {"routes": [routes[4], routes[4] | {"mtu": 1300}]}
    said = node.cni("ADD", conf | {"ipam": conf["ipam"] | twice}, pod).failed(101)
    assert "fd00:9::/64 via fd00:1::1 mtu 1300" in said
    assert pod.link("eth0") is None
    assert node.state() == {"attachments": [], "leases": []}


# --- what plugins after ours change


KINDS = {
    "bridge-vxlan": network("chain", isDefaultGateway=True, ipam=ranges(*FIRST, **TENS)),
    "macvlan": {"name": "chain", "type": "macvlan", "ipam": ranges(*FIRST), "gateway": ["10.1.0.1", "fd00:1::1"]},
    "custom-plugin": {"name": "chain", "type": "custom-plugin", "ipam": ranges(*FIRST, **TENS)},
}
AFTER = {
    "tuning": ({"type": "tuning", "mtu": 1400, "sysctl": {"net.ipv4.conf.eth0.arp_filter": "1"}}, {"1400"}),
    "tuning a MAC": ({"type": "tuning", "mtu": 1380, "mac": "0a:00:00:00:00:66"}, {"1380", "0a:00:00:00:00:66"}),
    "sbr": ({"type": "sbr"}, {"100", "101"}),
    "both": ({"type": "sbr"}, {"100"}, {"type": "tuning", "mtu": 1300}, {"1300"}),
}


#: A guarded pod is mute under another MAC than its own, and CHECK says so.
CHAINS = [(kind, after) for kind in KINDS for after in AFTER if (kind, after) != ("custom-plugin", "tuning a MAC")]


@pytest.mark.parametrize(("kind", "after"), CHAINS)
def test_what_a_plugin_after_ours_changes_is_no_drift(node: Host, pod: Pod, kind: str, after: str):
    first = {key: value for key, value in KINDS[kind].items() if key not in ("cniVersion", "name")}
    chain = {"cniVersion": VERSION, "name": "chain", "plugins": [first, *AFTER[after][::2]]}
    (node.folder / "chain.conflist").write_text(json.dumps(chain))
    env = {
        "CNI_PATH": f"{BIN_DIR}:{REFERENCE_DIR}",
        "NETCONFPATH": str(node.folder),
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    }
    node.run(CNITOOL, "add", "chain", pod.path, env=env)
    tables = {str(route["table"]) for family in (4, 6) for route in pod.routes(family, "all")}
    seen = tables | {str(pod.link("eth0")["mtu"]), pod.link("eth0")["address"]}
    assert seen >= set().union(*AFTER[after][1::2])
    node.run(CNITOOL, "check", "chain", pod.path, env=env)
    for own in pod.addresses("eth0") if kind != "macvlan" else ():  # the gateway of a macvlan is on the wire
        pod.run("ping", "-c1", f"-W{PATIENCE}", "-I", own.split("/")[0], "fd00:9::9" if ":" in own else "192.0.2.11")
    sh("ip", "-n", pod.name, "link", "set", "eth0", "down")
    assert "eth0 is down in the pod" in node.run(CNITOOL, "check", "chain", pod.path, env=env, check=False).stderr
    node.run(CNITOOL, "del", "chain", pod.path, env=env)
    assert node.state() == {"attachments": [], "leases": []}


@pytest.mark.parametrize("kind", KINDS)
def test_a_route_that_is_reported_no_more_is_not_missed(node: Host, pod: Pod, kind: str):
    """Multus takes the default route of a network away that another one's `default-route` replaces, and from its result."""
    conf = KINDS[kind] | {"cniVersion": "1.1.0"}
    result = node.add(conf, pod)
    for family in (4, 6):
        pod.run("ip", f"-{family}", "route", "del", "default")
    said = node.check(conf, pod, result).failed(104)
    assert all(f"route {dst} is missing in the pod" in said for dst in ("0.0.0.0/0", "::/0"))
    left = [route for route in result["routes"] if route["dst"] not in ("0.0.0.0/0", "::/0")]
    node.check(conf, pod, result | {"routes": left}).ok()
    pod.run("ip", "route", "add", "default", "dev", "eth0")
    other = [{"dst": "0.0.0.0/0", "gw": "10.1.0.99"}, *left]
    node.check(conf, pod, result | {"routes": other}).ok()
    node.delete_pod(conf, pod)


@pytest.mark.parametrize("kind", ["bridge-vxlan", "macvlan", "custom-plugin"])
@pytest.mark.parametrize("keys", [{}, {"ipMasq": True, "sidecar": {}, "policy": {}}], ids=["plain", "with rules"])
def test_a_namespace_whose_lo_was_never_up_is_served(lab: Lab, kind: str, keys: dict[str, Any]):
    """It has no main routing table yet, and a dump of it is refused (ENOENT)."""
    host, pod = Host(lab.name("host")), Pod(lab.name("pod"))
    for made in (host, pod):
        made.loopback = False
        lab.add(made)
    sh("ip", "-n", host.name, "link", "add", "phy0", "type", "veth", "peer", "name", "wire0")
    known = {key: value for key, value in keys.items() if (kind, key) != ("macvlan", "ipMasq")}
    conf = KINDS[kind] | {"cniVersion": "1.1.0", "ipam": ranges("10.1.0.0/24")} | known
    conf |= {"master": "phy0", "gateway": "10.1.0.1"} if kind == "macvlan" else {}
    host.cni("STATUS", conf).ok()
    result = host.add(conf, pod)
    host.check(conf, pod, result).ok()
    host.cni("GC", conf | {"cni.dev/valid-attachments": []}).ok()
    assert host.state() == {"attachments": [], "leases": []}
    host.delete_pod(conf, pod)


# --- what a route and an address may say


def static(*addresses: str, routes: list[dict[str, Any]]) -> dict[str, Any]:
    """The same from the reference's IPAM of fixed addresses."""
    given = [
        {"address": text, "gateway": f"{text.split('::')[0]}::1" if ":" in text else "10.1.0.1"} for text in addresses
    ]
    return {"type": "static", "addresses": given, "routes": routes}


@pytest.mark.parametrize("delegated", [False, True], ids=["our ipam", "a delegate"])
def test_an_ipv4_route_goes_by_an_ipv6_gateway_and_not_the_other_way(node: Host, pod: Pod, delegated: bool):
    routes = [{"dst": "192.0.2.0/24", "gw": "fd00:1::1"}, {"dst": "198.51.100.0/24", "gw": "10.1.0.1", "table": 0}]
    wrong = {"dst": "fd99::/64", "gw": "10.1.0.1"}
    dual = ("10.1.0.5/24", "fd00:1::5/64")
    ipam = static(*dual, routes=routes) if delegated else ranges(*FIRST, routes=routes)
    conf = network("one", cniVersion="1.0.0" if delegated else "1.1.0", isGateway=True, ipam=ipam)
    result = node.add(conf, pod)
    node.check(conf, pod, result).ok()
    assert [route["via"] for route in pod.routes() if route["dst"] == "192.0.2.0/24"] == [
        {"family": "inet6", "host": "fd00:1::1"}
    ]
    assert [route["gateway"] for route in pod.routes() if route["dst"] == "198.51.100.0/24"] == ["10.1.0.1"]
    assert pod.pings("192.0.2.11")
    pod.run("ip", "route", "del", "192.0.2.0/24")
    assert "route 192.0.2.0/24 is missing in the pod" in node.check(conf, pod, result).failed(104)
    node.delete_pod(conf, pod)
    twisted = conf | {"ipam": ipam | {"routes": [*routes, wrong]}}
    said = "$.ipam.routes[2]: an IPv6 route cannot go by an IPv4 gateway: fd99::/64 via 10.1.0.1"
    assert node.cni("ADD", twisted, pod).failed(7) == said
    (node.folder / "one.conf").write_text(json.dumps(twisted))
    judged = node.run(AGENT_CNI, "validate", node.folder / "one.conf", check=False)
    assert said in judged.stdout + judged.stderr
    assert node.state() == {"attachments": [], "leases": []}


@pytest.mark.parametrize("kind", KINDS)
def test_a_pod_without_ipv6_addresses_has_ipv4_routes_by_link_local_gateways(node: Host, pod: Pod, kind: str):
    pod.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
    routes = [{"dst": "198.51.100.0/24", "gw": "fe80::1"}]
    gateway = {"gateway": "10.1.0.1"} if kind == "macvlan" else {}
    conf = KINDS[kind] | {"cniVersion": "1.1.0", "ipam": ranges(FIRST[0], routes=routes)} | gateway
    result = node.add(conf, pod)
    assert {"family": "inet6", "host": "fe80::1"} in [route.get("via") for route in pod.routes()]
    node.check(conf, pod, result).ok()
    node.delete_pod(conf, pod)


def test_a_metric_beyond_what_the_kernel_keeps_is_no_drift(node: Host, pod: Pod):
    """It makes 65,520 and 65,495 of larger ones (ip_metrics_convert in net/ipv4/metrics.c)."""
    routes = [{"dst": dst, "mtu": 65535, "advmss": 65535} for dst in ("198.51.100.0/24", "fd00:9::/64")]
    conf = network("one", cniVersion="1.1.0", isGateway=True, ipam=ranges(*FIRST, routes=routes))
    result = node.add(conf, pod)
    node.check(conf, pod, result).ok()
    assert [route["metrics"][0]["mtu"] for route in pod.routes() if "metrics" in route] == [65520]


def test_the_doctor_asks_a_delegate_in_the_configurations_version(node: Host, pod: Pod):
    """A reference plugin reads a result in the version of its configuration, and no other."""
    conf = network("one", ipam={"type": "static", "addresses": [{"address": "10.1.0.9/24"}]})
    node.add(conf, pod)
    path = {"CNI_PATH": f"{BIN_DIR}:{REFERENCE_DIR}"}
    told = node.run(AGENT_CNI, "doctor", "--json", "--bin-dir", BIN_DIR, check=False, env=os.environ | path).stdout
    assert json.loads(told)["attachments"] == []
    node.delete_pod(conf, pod)


def test_an_address_has_the_broadcast_address_of_its_subnet(node: Host, pod: Pod):
    for number, (subnet, broadcast) in enumerate({"10.1.0.0/23": "10.1.1.255", "10.3.0.0/30": "10.3.0.3"}.items()):
        conf = network(f"n{number}", isGateway=True, ipam=ranges(subnet))
        node.add(conf, pod, ifname=f"net{number}")
        for place, link in ((pod, f"net{number}"), (node, f"br-n{number}")):
            (held,) = [info for item in place.ip("addr", "show", "dev", link) for info in item["addr_info"]]
            assert held["broadcast"] == broadcast
    routed = {"cniVersion": "1.1.0", "name": "routed", "type": "custom-plugin", "ipam": ranges("10.4.0.0/24")}
    node.add(routed, pod, ifname="net2")
    assert "broadcast" not in pod.ip("addr", "show", "dev", "net2")[0]["addr_info"][0]
