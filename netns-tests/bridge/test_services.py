"""Kubernetes' pods on a bridge reach each other, and themselves, by Services that something else translates."""

from __future__ import annotations

from typing import Any

import pytest
from lab import AGENT_CNI, Host, Lab, Pod, eventually
from traffic import Actor

NAMED = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME="
RANGES = [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]
CONF: dict[str, Any] = {
    "cniVersion": "1.1.0", "name": "pods", "type": "bridge-vxlan", "bridge": "br0", "isDefaultGateway": True, "ipam": {"ranges": RANGES},
}  # fmt: skip
SERVICES = {4: "10.96.0.7", 6: "fd00:96::7"}
#: What kube-proxy has of a Service with one backend: its address is translated, and who asks himself is masqueraded.
KUBE_PROXY = """
table ip services {{
  chain pre {{ type nat hook prerouting priority dstnat; ip daddr 10.96.0.7 tcp dport 80 dnat to {four}:8080; }}
  chain post {{ type nat hook postrouting priority srcnat; ip saddr {four} ip daddr {four} masquerade; }}
}}
table ip6 services {{
  chain pre {{ type nat hook prerouting priority dstnat; ip6 daddr fd00:96::7 tcp dport 80 dnat to [{six}]:8080; }}
  chain post {{ type nat hook postrouting priority srcnat; ip6 saddr {six} ip6 daddr {six} masquerade; }}
}}
"""


@pytest.fixture
def host(lab: Lab) -> Host:
    """One whose bridges show no traffic to the rules by themselves, as where an administrator switched that off."""
    host = lab.host()
    host.run("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0", "net.bridge.bridge-nf-call-ip6tables=0")
    return host


def add(host: Host, pod: Pod, name: str, **more: Any) -> list[str]:
    """The addresses of a pod of Kubernetes', without their prefixes."""
    return [ip["address"].split("/")[0] for ip in host.add(CONF | more, pod, CNI_ARGS=NAMED + name)["ips"]]


def switches(host: Host, port: str) -> tuple[bool, bool]:
    """Whether the bridge shows its traffic to the rules of both families, and the port is a hairpin."""
    bridge, link = host.link("br0"), host.link(port)
    assert bridge
    assert link
    data = bridge["linkinfo"]["info_data"]
    return data["nf_call_iptables"] == data["nf_call_ip6tables"] == 1, link["linkinfo"]["info_slave_data"]["hairpin"]


@pytest.mark.tried(
    "the node's bridge-nf is off; a Kubernetes pod asks its neighbour, and itself, by a Service",
    "an answer, in both families",
)
@pytest.mark.parametrize("asker", ["another", "itself"])
def test_a_pod_is_reached_by_its_service(lab: Lab, host: Host, asker: str):
    pods = {"another": lab.pod(), "itself": lab.pod()}
    add(host, pods["another"], "another")
    own = dict(zip((4, 6), add(host, pods["itself"], "itself"), strict=True))
    host.run("nft", "-f", "-", input=KUBE_PROXY.format(four=own[4], six=own[6]))
    with Actor(pods["itself"]) as server, Actor(pods[asker]) as client:
        server.listen("web", 8080)
        for family in (4, 6):
            assert client.reaches(SERVICES[family], 80) == "web"


def test_a_host_asks_where_an_ipv6_pod_is_as_soon_as_it_is_there(lab: Lab, host: Host):
    """For what it forwards it asks by the bridge's own link-local address, and not while that is tentative."""
    add(host, lab.pod(), "first")
    assert "inet6 fe80:" in host.run("ip", "-6", "address", "show", "dev", "br0").stdout
    assert host.run("ip", "-6", "address", "show", "dev", "br0", "tentative").stdout == ""


@pytest.mark.parametrize(
    ("args", "more", "seen"),
    [
        (NAMED + "web", {}, (True, True)),
        (NAMED + "web", {"hairpinMode": False}, (True, False)),
        (NAMED + "web", {"promiscMode": True}, (True, False)),
        (NAMED + "web", {"isDefaultGateway": False}, (False, False)),
        (NAMED + "web", {"policy": {"ingress": []}}, (True, True)),
        ("", {}, (False, False)),
        ("", {"hairpinMode": True}, (False, True)),
    ],
)
def test_who_gets_it(lab: Lab, host: Host, args: str, more: dict[str, Any], seen: tuple[bool, bool]):
    pod = lab.pod()
    result = host.add(CONF | more, pod, CNI_ARGS=args)
    assert switches(host, result["interfaces"][1]["name"]) == seen
    host.check(CONF | more, pod, result, CNI_ARGS=args).ok()
    host.delete_pod(CONF | more, pod)


def test_a_bridge_that_shows_nothing_is_told_and_how_to_mend_it(lab: Lab, host: Host):
    pod = lab.pod()
    result = host.add(CONF, pod, CNI_ARGS=NAMED + "web")
    host.run("ip", "link", "set", "br0", "type", "bridge", "nf_call_iptables", "0")
    assert "br0 does not show its traffic to the rules" in host.check(CONF, pod, result).failed(104)
    said = host.run(AGENT_CNI, "doctor", check=False).stdout
    assert "agent-cni refresh" in said
    host.run(AGENT_CNI, "refresh")
    host.check(CONF, pod, result).ok()


def test_it_stays_while_somebody_needs_it(lab: Lab, host: Host):
    plain, held = lab.pod(), lab.pod()
    policed = CONF | {"policy": {"ingress": []}}
    add(host, held, "held", policy={"ingress": []})
    name = host.add(CONF, plain, CNI_ARGS=NAMED + "plain")["interfaces"][1]["name"]
    host.delete_pod(policed, held)
    assert switches(host, name) == (True, True)


def test_a_hairpin_is_no_duplicate_address(lab: Lab, host: Host):
    """What a pod asks of everybody comes back to it."""
    pod = lab.pod()
    add(host, pod, "web", enabledad=True)

    def addresses() -> str:
        return pod.run("ip", "-6", "addr", "show", "dev", "eth0").stdout

    assert eventually(lambda: "tentative" not in addresses())
    assert "dadfailed" not in addresses()
    assert "scope link" in addresses()
