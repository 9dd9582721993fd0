"""The operator's questions on a real node, and whether what the doctor says mends it does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lab import AGENT_CNI, BIN_DIR, Host, Lab, Pod

CONF = {
    "cniVersion": "1.1.0", "name": "net", "type": "bridge-vxlan", "bridge": "br0", "isDefaultGateway": True, "ipMasq": True,
    "policy": {"ingress": ["10.0.0.0/8"]}, "sidecar": {"port": 15001}, "ipam": {"subnet": "10.1.0.0/24"},
}  # fmt: skip


def node(folder: Path) -> None:
    """Plugins and a configuration as a runtime has them."""
    (folder / "bin").mkdir()
    for file in (*BIN_DIR.iterdir(), Path("/usr/lib/cni/loopback")):
        (folder / "bin" / file.name).symlink_to(file)
    (folder / "10-net.conf").write_text(json.dumps(CONF))


def found(host: Host, folder: Path) -> list[dict[str, str]]:
    """What the doctor finds; it must say the same to people and programs."""
    if not (folder / "bin").exists():
        node(folder)
    words = [AGENT_CNI, "doctor", "--bin-dir", folder / "bin", "--conf-dir", folder, "--socket", folder / "none"]
    said = host.run(*words, "--json", check=False)
    items = [item for items in json.loads(said.stdout).values() for item in items]
    told = host.run(*words, check=False)
    status = {"note": 0, "warning": 1, "broken": 3, "open": 4}
    assert said.returncode == told.returncode == max((status[item["severity"]] for item in items), default=0)
    assert [item["what"] in told.stdout for item in items] == [True] * len(items)
    return items


def asked(host: Host, *words: str) -> Any:
    return json.loads(host.run(AGENT_CNI, *words, "--json").stdout)


def test_a_healthy_node_is_fine_and_tells_of_its_pods(host: Host, pod: Pod, tmp_path: Path):
    assert found(host, tmp_path) == []
    host.add(CONF, pod)
    assert found(host, tmp_path) == []
    assert asked(host, "ipam") == [
        {"network": "net", "range": "10.1.0.1-10.1.0.254", "size": 253, "leased": 1, "free": 252}
    ]
    (held,) = asked(host, "ipam", "10.1.0.2")
    assert (held["container"], held["state"]) == (pod.container, "attached")
    host.delete_pod(CONF, pod)
    assert [line["verb"] for line in asked(host, "trace", pod.container)] == ["ADD", "DEL"]
    assert found(host, tmp_path) == []


def test_what_pods_are_on_and_what_holds_them_is_shown(host: Host, pod: Pod):
    overlay = CONF | {"vxlan": {"id": 7, "remotes": ["192.0.2.9"], "mtu": 1400}}
    host.add(overlay, pod)
    shown = asked(host, "show")
    assert shown["bridges"] == [{"bridge": "br0", "mtu": 1400, "gateways": ["10.1.0.1/24"], "pods": 1}]
    assert shown["vteps"] == [
        {"device": "vxlan7", "bridge": "br0", "vni": 7, "port": 4789, "local": "", "remotes": ["192.0.2.9"]}
    ]
    assert {item["kind"] for item in shown["rules"]} == {"masquerade", "policy", "guard", "interception"}
    table = host.run(AGENT_CNI, "show").stdout
    assert [item["rule"] in table for item in shown["rules"]] == [True] * len(shown["rules"])
    host.delete_pod(overlay, pod)
    assert asked(host, "show") == {area: [] for area in shown}


@pytest.mark.parametrize(
    ("where", "harm", "said"),
    [
        ("pod", "ip route del default", "route 0.0.0.0/0 is missing"),
        ("pod", "iptables-nft -t nat -F ACNI_OUTPUT", "IPv4 rules in the pod"),
        ("host", "nft flush chain inet agent_cni_policy forward", "policy chain forward"),
        ("host", "ip link set br0 down", "bridge br0 is down"),
    ],
)
def test_drift_is_found_and_mended_by_a_refresh_or_a_repair(
    host: Host, pod: Pod, tmp_path: Path, where: str, harm: str, said: str
):
    host.add(CONF, pod)
    {"pod": pod, "host": host}[where].run(*harm.split())
    items = found(host, tmp_path)
    assert any(said in item["what"] for item in items), items
    mends = {item["mend"] for item in items}
    assert mends == ({"agent-cni refresh"} if "policy" in said else {f"agent-cni repair {pod.container}"})
    for mend in mends:
        host.run(AGENT_CNI, *mend.split()[1:])
    assert found(host, tmp_path) == []
    host.delete_pod(CONF, pod)


def test_what_a_pod_left_is_found_and_gone_after_gc(host: Host, pod: Pod, tmp_path: Path):
    host.add(CONF, pod)
    host.bury(pod)
    (item,) = found(host, tmp_path)
    assert item["what"] == f"net/{pod.container}/eth0: its pod is gone, what it had is not"
    assert (item["mend"], item["severity"]) == ("agent-cni gc", "warning")
    host.run(AGENT_CNI, "gc")
    assert found(host, tmp_path) == []
    assert host.state() == {"attachments": [], "leases": []}


def test_a_veth_whose_record_was_lost_is_found_and_its_mend_works(host: Host, pod: Pod, tmp_path: Path):
    host.add(CONF, pod)
    host.lose_state()
    items = found(host, tmp_path)
    assert [item["mend"].split()[0] for item in items] == ["ip", *["nft"] * (len(items) - 1)]
    for item in items:
        host.run("sh", "-c", item["mend"])
    assert found(host, tmp_path) == []


def test_an_address_given_back_by_hand_is_given_again(lab: Lab, host: Host, pod: Pod):
    conf = {"cniVersion": "1.1.0", "name": "net", "type": "agent-ipam",
            "ipam": {"type": "agent-ipam", "ranges": [[{"subnet": "10.1.0.0/29", "rangeEnd": "10.1.0.2"}]]}}  # fmt: skip
    host.add(conf, pod)
    other = lab.pod()
    host.cni("ADD", conf, other).failed(103)
    refused = host.run(AGENT_CNI, "ipam", "10.1.0.2", "--release", check=False)
    assert (refused.returncode, "--force" in refused.stderr) == (1, True)
    host.run(AGENT_CNI, "ipam", "10.1.0.2", "--release", "--force")
    assert host.add(conf, other)["ips"][0]["address"] == "10.1.0.2/29"
    host.delete_pod(conf, pod)
    host.delete_pod(conf, other)


def test_a_pod_is_shown_and_what_is_wrong_with_it_is_red_in_the_picture(lab: Lab, host: Host, pod: Pod, tmp_path: Path):
    """Its links, addresses, routes, neighbours, rules, documents and drops; its log by its name; the node as a picture."""
    lab.underlay(host)
    named = {"CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={pod.name}"}
    routed = {"cniVersion": "1.1.0", "name": "alone", "type": "custom-plugin", "ipam": {"subnet": "10.3.0.0/24"}}
    routed |= {"policy": {"policyDir": str(tmp_path)}}
    deny = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    metadata = {"namespace": "shop", "name": "deny"}
    document = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": deny}
    (tmp_path / "deny.json").write_text(json.dumps(document))
    host.add(routed, pod, **named)
    assert not pod.pings("10.3.0.99", 1)
    host.run("ping", "-c", "1", "-W", "1", "10.3.0.2", check=False)
    (one,) = asked(host, "show", f"shop/{pod.name}")
    assert [(link["where"], link["name"], link["state"]) for link in one["links"]] == [
        ("host", one["links"][0]["name"], "up"), ("pod", "eth0", "up"),
    ]  # fmt: skip
    assert one["addresses"][0] == "10.3.0.2/32"
    assert "default via 169.254.1.1 dev eth0" in one["routes"]
    assert one["neighbours"][0].startswith("169.254.1.1 at fe:")
    assert one["policies"] == {"ingress": ["NetworkPolicy shop/deny"], "egress": ["NetworkPolicy shop/deny"]}
    assert any("policy of 10.3.0.2" in rule["says"] or "10.3.0.2" in str(rule["details"]) for rule in one["rules"])
    assert [drop for drop in one["drops"] if drop["direction"] == "egress" and drop["packets"]], one["drops"]
    told = host.run(AGENT_CNI, "show", f"shop/{pod.name}").stdout
    assert "  dropped out of it: " in told
    assert [line["verb"] for line in asked(host, "trace", f"shop/{pod.name}")] == ["ADD"]

    well = host.run(AGENT_CNI, "show", "--graph", "-", "--bin-dir", BIN_DIR).stdout
    assert "#b3261e" not in well
    assert "alone: routed by the host, each alone" in well
    assert "uplink eth0, MTU 1500, 192.0.2.11/24" in well
    host.run("ip", "link", "del", one["links"][0]["name"])
    ill = host.run(AGENT_CNI, "show", "--graph", "-", "--bin-dir", BIN_DIR).stdout
    assert f"host interface {one['links'][0]['name']} is missing, and" in ill
    assert "#b3261e" in ill
    assert [link["state"] for link in asked(host, "show", f"shop/{pod.name}")[0]["links"]] == ["missing", "missing"]
    host.delete_pod(routed, pod)


def test_the_first_host_of_an_overlay_is_not_apart_from_itself(host: Host, pod: Pod, tmp_path: Path):
    """All hosts have one list of remotes, this one's address among them; for the first it may be the only one."""
    host.run("ip", "address", "add", "192.0.2.11/32", "dev", "lo")
    host.add(CONF | {"vxlan": {"id": 7, "remotes": ["192.0.2.11"], "mtu": 1400}}, pod)
    assert not [item for item in found(host, tmp_path) if "remotes" in item["what"]]
