"""Pods as kubelet makes them: containerd's CRI, every plugin, stopped and removed twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from cri import VERSIONS, Containerd, Sandbox
from lab import REFERENCE_DIR, Host, Lab, Pod, Site, eventually
from traffic import Actor

from cni.installation.item import Item

IPAM = {"type": "agent-ipam", "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]}
BRIDGE = {"type": "bridge-vxlan", "bridge": "br0", "isDefaultGateway": True, "ipMasq": True, "ipam": IPAM}
ON_WIRE = {"ranges": [[{"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.100", "gateway": "192.0.2.1"}]]}
THEIRS = {
    "type": "bridge", "bridge": "br0", "isDefaultGateway": True, "ipMasq": True,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}]]},
}  # fmt: skip
SIDECAR = {"sidecar": {"port": 15001}}
REDIRECT = {"type": "sidecar-redirect", "port": 15001, "capabilities": {"io.kubernetes.cri.pod-annotations": True}}
PORTMAP = {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}}
CHAINS: dict[str, list[dict[str, Any]]] = {
    "bridge-vxlan": [BRIDGE | SIDECAR],
    "macvlan": [{"type": "macvlan", "master": "eth0", "ipam": ON_WIRE} | SIDECAR],
    "custom-plugin": [
        {"type": "custom-plugin", "ipMasq": True, "ipam": IPAM, "policy": {"ingress": ["10.0.0.0/8"]}} | SIDECAR
    ],
    "after the reference bridge": [THEIRS, {"type": "custom-plugin", "policy": {"ingress": []}}, REDIRECT],
}


def redirected(pod: Sandbox) -> bool:
    return "--to-ports 15001" in pod.run("iptables-nft-save").stdout


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_a_pods_life(lab: Lab, tmp_path: Path, chain: list[dict[str, Any]]):
    site: Site = lab.site()
    with Containerd(site.host, tmp_path, *chain) as containerd:
        assert eventually(containerd.is_ready), containerd.said()
        first = containerd.run("first")
        containerd.stop(first.id)
        containerd.remove(first.id)
        before = site.host.snapshot()
        pod = containerd.run("web")
        assert set(pod.ips) <= {text.split("/")[0] for item in shown(site.host) for text in item} or chain[0] == THEIRS
        assert pod.ips[0] in pod.run("ip", "-4", "addr", "show", "dev", "eth0").stdout
        assert redirected(pod)
        assert pod.pings("192.0.2.12")
        assert shown(site.host)
        for _ in range(2):
            containerd.stop(pod.id)
        assert shown(site.host) == []
        for _ in range(2):
            containerd.remove(pod.id)
        assert site.host.snapshot() == before


def test_a_conflist_that_comes_or_changes_later_is_seen(lab: Lab, tmp_path: Path):
    """containerd reads its folder again when something is written, renamed or removed there; one that begins without a conflist waits."""
    text = json.dumps(VERSIONS | {"name": "pods", "plugins": [BRIDGE]})
    with Containerd(lab.host(), tmp_path) as containerd:
        assert not containerd.is_ready()
        assert Item(tmp_path / "net.d/10-pods.conflist", text).put()
        assert eventually(containerd.is_ready), containerd.said()
        assert Item(tmp_path / "net.d/10-pods.conflist", text.replace("10.1.0.0", "10.9.0.0")).put()
        assert eventually(lambda: "10.9.0.0" in containerd.crictl("info"))


def shown(host: Host) -> list[list[str]]:
    """The addresses of each attachment `agent-cni show` knows."""
    return [item["addresses"] for item in host.state()["attachments"]]


def test_an_operators_crictl_sees_what_kubelet_sees(lab: Lab, tmp_path: Path):
    site = lab.site()
    spec = {"metadata": {"name": "web", "uid": "u1", "namespace": "shop"}, "log_directory": str(tmp_path / "pods")}
    with Containerd(site.host, tmp_path, BRIDGE) as containerd:
        file = tmp_path / "pod.json"
        file.write_text(json.dumps(spec | {"linux": {"cgroup_parent": f"/{containerd.cgroup}"}}))
        pod = containerd.crictl("runp", file)
        network = json.loads(containerd.crictl("inspectp", pod))["status"]["network"]
        assert [[network["ip"], network["additionalIps"][0]["ip"]]] == [
            [text.split("/")[0] for text in item] for item in shown(site.host)
        ]
        containerd.crictl("stopp", pod)
        containerd.crictl("rmp", pod)
        assert shown(site.host) == []


def test_a_host_port_leads_to_the_pod(lab: Lab, tmp_path: Path):
    site = lab.site()
    with Containerd(site.host, tmp_path, BRIDGE, PORTMAP) as containerd:
        pod = containerd.run("web", ports=((8080, 80),))
        with Actor(pod) as server, Actor(site.outside) as client:
            server.listen("web", 80)
            assert client.reaches("192.0.2.11", 8080) == "web"
        assert pod.ips[0] in site.host.run("nft", "list", "ruleset").stdout
        containerd.stop(pod.id)
        assert pod.ips[0] not in site.host.run("nft", "list", "ruleset").stdout
        assert shown(site.host) == []


def test_loopback_may_come_after_us(host: Host, pod: Pod):
    """containerd runs it beside our ADD, and it refuses a loopback with an address of anybody else's."""
    host.add({"cniVersion": "1.0.0", "name": "pods"} | BRIDGE | SIDECAR, pod)
    loopback = {"cniVersion": "1.0.0", "name": "lo", "type": "loopback"}
    host.cni("ADD", loopback, pod, ifname="lo", bin_dir=REFERENCE_DIR).ok()


def test_annotations_switch_interception_pod_by_pod(lab: Lab, tmp_path: Path):
    asked = {"sidecar": {"port": 15001, "when": {"annotation": "mesh"}}}
    capable = {"capabilities": {"io.kubernetes.cri.pod-annotations": True}}
    with Containerd(lab.host(), tmp_path, BRIDGE | asked | capable) as containerd:
        assert redirected(containerd.run("with", mesh="true"))
        assert not redirected(containerd.run("without"))


def test_a_pod_that_cannot_be_attached_says_why_and_leaves_nothing(lab: Lab, tmp_path: Path):
    host = lab.host()
    full = BRIDGE | {"ipam": {"ranges": [[{"subnet": "10.1.0.0/29", "rangeEnd": "10.1.0.2"}]]}}
    with Containerd(host, tmp_path, full) as containerd:
        containerd.run("web")
        before = host.snapshot()
        with pytest.raises(grpc.RpcError, match=r"no free address in 10\.1\.0\.1-10\.1\.0\.2"):
            containerd.run("second")
        assert host.snapshot() == before


def test_a_node_that_cannot_serve_is_not_ready_for_pods(lab: Lab, tmp_path: Path):
    """containerd 1.6 knows no STATUS; what it shows of a plugin is the error of an ADD."""
    wire = {"type": "macvlan", "master": "nowhere", "ipam": ON_WIRE}
    with Containerd(lab.host(), tmp_path, wire) as containerd, pytest.raises(grpc.RpcError, match="nowhere"):
        containerd.run("web")
