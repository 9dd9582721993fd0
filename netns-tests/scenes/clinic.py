"""A node of ten pods on five networks, as the doctor finds it: healthy, until somebody does something to it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interception import address_of
from lab import AGENT_CNI, BIN_DIR, REFERENCE_DIR, Host, Lab, Pod

NAMED = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME="
#: What the pods are attached by: two that are bridged, two of an overlay, two isolated ones, two on the wire, and two whose traffic a proxy gets.
KINDS = ("bridged", "overlay", "isolated", "wire", "meshed")


def confs(folder: Path) -> dict[str, dict[str, Any]]:
    """A configuration for each kind; the isolated ones also go by the documents of a folder."""
    bridged = {"type": "bridge-vxlan", "isDefaultGateway": True, "ipMasq": True}
    span = {"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.100", "rangeEnd": "192.0.2.109", "gateway": "192.0.2.1"}
    made: dict[str, dict[str, Any]] = {
        "bridged": bridged | {"bridge": "br0", "ipam": {"subnet": "10.1.0.0/24"}},
        "overlay": bridged | {"bridge": "br1", "vxlan": {"id": 7, "remotes": ["192.0.2.11", "192.0.2.12"]}},
        "isolated": {"type": "custom-plugin", "policy": {"policyDir": str(folder)}, "ipam": {"subnet": "10.3.0.0/24"}},
        "wire": {"type": "macvlan", "master": "eth0", "policy": {"ingress": ["192.0.2.0/24"]}, "ipam": span},
        "meshed": bridged | {"bridge": "br4", "sidecar": {"port": 15001}, "ipam": {"subnet": "10.4.0.0/24"}},
    }
    made["overlay"]["ipam"] = {
        "subnet": "10.2.0.0/16",
        "rangeStart": "10.2.1.2",
        "rangeEnd": "10.2.1.9",
        "gateway": "10.2.1.1",
    }
    return {kind: {"cniVersion": "1.1.0", "name": kind} | conf for kind, conf in made.items()}


@dataclass
class Clinic:
    """A node, its ten pods by ``kind-number``, and the other end of its overlay."""

    lab: Lab
    host: Host
    other: Host
    confs: dict[str, dict[str, Any]]
    pods: dict[str, Pod] = field(default_factory=dict)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def opened(cls, lab: Lab, folder: Path) -> Clinic:
        """Attach all of them."""
        host, other = lab.host(), lab.host()
        lab.underlay(host, other)
        (folder / "documents").mkdir()
        made = cls(lab, host, other, confs(folder / "documents"))
        made.put_document("web", {"app": "web"})
        for kind in KINDS:
            for number in (1, 2):
                made.attach(f"{kind}-{number}")
        far = lab.pod()
        there = made.confs["overlay"] | {
            "ipam": made.confs["overlay"]["ipam"]
            | {"rangeStart": "10.2.2.2", "rangeEnd": "10.2.2.9", "gateway": "10.2.2.1"}
        }
        other.add(there, far)
        assert made.pods["overlay-1"].pings(address_of(other.add(there, lab.pod()), 4))
        made.write_confs()
        return made

    def attach(self, name: str) -> None:
        """A pod called ``shop/NAME``."""
        self.pods[name] = self.lab.pod()
        conf = self.confs[name.partition("-")[0]]
        self.results[name] = self.host.add(conf, self.pods[name], CNI_ARGS=NAMED + name)

    def write_confs(self, **changed: dict[str, Any]) -> None:
        """Have the runtime's folder hold the configurations, some of them changed."""
        (self.host.folder / "net.d").mkdir(exist_ok=True)
        for kind, conf in (self.confs | changed).items():
            (self.host.folder / f"net.d/10-{kind}.conf").write_text(json.dumps(conf))

    def put_document(self, name: str, selected: dict[str, str]) -> None:
        """A NetworkPolicy, and the pods it may be about."""
        folder = Path(self.confs["isolated"]["policy"]["policyDir"])
        rule = {"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}]}
        spec = {"podSelector": {"matchLabels": selected}, "ingress": [rule]}
        kinds = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"}
        metadata = {"namespace": "shop", "name": name}
        (folder / f"{name}.json").write_text(json.dumps(kinds | {"metadata": metadata, "spec": spec}))
        labels = {"isolated-1": "web", "isolated-2": "friend"}
        pods = [
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": pod, "labels": {"app": app}}}
            for pod, app in labels.items()
        ]
        (folder / "pods.json").write_text(json.dumps({"apiVersion": "v1", "kind": "PodList", "items": pods}))

    def link_of(self, name: str) -> str:
        """The host end of a pod's veth."""
        index = self.pods[name].link("eth0")["link_index"]  # type: ignore[index]
        return next(item["ifname"] for item in self.host.ip("link", "show") if item["ifindex"] == index)

    def doctor(self, *words: str) -> list[dict[str, Any]]:
        """What the doctor finds besides what is as it is on any machine of these tests."""
        folder = "/run/agent-cni/net.d"
        argv = (AGENT_CNI, "doctor", "--json", "--conf-dir", folder, "--bin-dir", BIN_DIR, *words)
        environ = os.environ | {"CNI_PATH": f"{BIN_DIR}:{REFERENCE_DIR}"}
        found = json.loads(self.host.run(*argv, check=False, env=environ).stdout)
        return [item for area, items in found.items() for item in items if area != "executables"]

    def detach(self, name: str) -> None:
        """Delete a pod, as its runtime would."""
        self.host.delete_pod(self.confs[name.partition("-")[0]], self.pods[name], CNI_ARGS=NAMED + name)
