"""A static pod, from kubelet through containerd to the plugins and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cri import IMAGE, Containerd
from kubelet import KUBELET, Kubelet
from lab import Host, Lab, eventually

pytestmark = pytest.mark.skipif(
    not KUBELET.exists(),
    reason="`make kubelet-test` builds a kubelet from the Go module proxy, which takes ten minutes",
)

BRIDGE = {
    "type": "bridge-vxlan", "bridge": "br0", "isDefaultGateway": True, "policy": {"ingress": []},
    "ipam": {"subnet": "10.1.0.0/24"},
}  # fmt: skip
REDIRECT = {
    "type": "sidecar-redirect", "port": 15001, "includeInboundPorts": [],
    "capabilities": {"io.kubernetes.cri.pod-annotations": True},
}  # fmt: skip
WEB: dict[str, Any] = {
    "terminationGracePeriodSeconds": 1,
    "containers": [
        {
            "name": "web", "image": IMAGE, "imagePullPolicy": "Never", "command": ["/bin/busybox", "httpd", "-f", "-p", "80"],
            "readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1},
        }
    ],
}  # fmt: skip


def is_ready(kubelet: Kubelet, name: str) -> bool:
    """Whether its own probe, from the host, reaches the pod."""
    return {"type": "Ready", "status": "True"}.items() <= next(
        (item for item in kubelet.pod(name).get("conditions", []) if item["type"] == "Ready"), {}
    ).items()


def test_a_static_pod_lives_and_leaves_nothing(lab: Lab, tmp_path: Path):
    host: Host = lab.host()
    with Containerd(host, tmp_path, BRIDGE, REDIRECT) as containerd, Kubelet(containerd) as kubelet:
        manifest = kubelet.run("web", **WEB)
        assert eventually(lambda: is_ready(kubelet, "web")), kubelet.said()[-5000:]
        (sandbox,) = containerd.sandboxes()
        pod = containerd.seen("web", sandbox)
        assert kubelet.pod("web")["podIP"] == pod.ips[0] == "10.1.0.2"
        assert [item["pod"] for item in host.state()["attachments"]] == ["shop/web-node"] * 2
        assert "--to-ports 15001" in pod.run("iptables-nft-save").stdout
        manifest.unlink()
        assert eventually(lambda: host.state() == {"attachments": [], "leases": []}), kubelet.said()[-5000:]
        assert "veth" not in host.run("ip", "-o", "link").stdout
        assert pod.ips[0] not in host.run("nft", "list", "ruleset").stdout
