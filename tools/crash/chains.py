"""The networks that calls are tried on: of each plugin, and of what it may have besides, one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cluster import conf
from shop import network_policy

RANGES = [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]
SPAN = {"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.100", "rangeEnd": "192.0.2.199", "gateway": "192.0.2.1"}
POLICY = {"policy": {"ingress": ["10.0.0.0/8"], "egress": ["0.0.0.0/0", "::/0"]}}
PLAIN = {"type": "bridge-vxlan", "bridge": "br0", "isGateway": True, "ipam": {"subnet": "10.1.0.0/24"}}
DUAL = PLAIN | {"isDefaultGateway": True, "ipam": {"ranges": RANGES}}
FOLDER = Path("/run/killed-documents")
FED = {"policy": {"policyDir": str(FOLDER)}}
VXLAN = {"vxlan": {"id": 9, "remotes": ["192.0.2.12"]}}
NFT, IPTABLES = {"ipMasq": True, "ipMasqBackend": "nftables"}, {"ipMasq": True, "ipMasqBackend": "iptables"}
FOREIGN = {
    "cniVersion": "1.0.0",
    "ipam": {"type": "host-local", "subnet": "10.1.0.0/24", "dataDir": "/run/agent-cni/host-local"},
}  # speaks no later version
NETWORKS: dict[str, tuple[dict[str, Any], ...]] = {
    "bridge-vxlan": (PLAIN,),
    "bridge-vxlan-full": (DUAL | VXLAN | NFT | POLICY,),
    "bridge-vxlan-iptables": (DUAL | IPTABLES | {"sidecar": {}},),
    "bridge-vxlan-names": (DUAL | {"names": {"domain": "killed.test"}},),
    "bridge-vxlan-foreign": (PLAIN | NFT | FOREIGN,),
    "macvlan": ({"type": "macvlan", "master": "eth0", "hostAccess": True, "ipam": SPAN} | POLICY,),
    "custom-plugin": ({"type": "custom-plugin", "ipam": {"ranges": RANGES}} | NFT | POLICY,),
    "custom-plugin-tproxy": ({"type": "custom-plugin", "ipam": {"ranges": RANGES}, "sidecar": {"mode": "tproxy"}},),
    "chained-policy": (DUAL, {"type": "custom-plugin"} | POLICY),
    "chained-sidecar": (DUAL, {"type": "sidecar-redirect"}),
    "agent-ipam": ({"type": "agent-ipam", "ipam": {"type": "agent-ipam", "ranges": RANGES}},),
}
#: Those whose policies are documents, which may change.
FED_NETWORKS: dict[str, tuple[dict[str, Any], ...]] = {
    "bridge-vxlan-fed": (DUAL | FED,),
    "custom-plugin-fed": ({"type": "custom-plugin", "ipam": {"ranges": RANGES}} | FED,),
    "chained-fed": (DUAL, {"type": "custom-plugin"} | FED),
}
#: Those of a cluster.
SHARED_NETWORKS: dict[str, tuple[dict[str, Any], ...]] = {f"cluster-{mode}": (conf(mode),) for mode in ("l2", "l3")}
EDITED: dict[str, Any] = {"bridge": "br9", "ipam": {"subnet": "10.99.0.0/24"}}


def say(*, changed: bool) -> None:
    """What the documents say: who gets in, which is a selection too, and whom each pod may ask."""
    FOLDER.mkdir(exist_ok=True)
    blocks = ["10.0.0.0/8", "fd00::/8"][:: -1 if changed else 1][: 1 + changed]
    peers = [{"ipBlock": {"cidr": block}} for block in blocks]
    friends = {"podSelector": {"matchLabels": {"app": "friend"} if changed else {"app": "other"}}}
    policy = network_policy("all", podSelector={}, ingress=[{"from": [*peers, friends]}], egress=[{"to": peers}])
    (FOLDER / "policy.json").write_text(json.dumps(policy))
    labels = {"app": "other" if changed else "friend"}
    status = {"podIPs": [{"ip": "10.1.0.200"}, {"ip": "fd00:1::200"}]}
    pod = {"kind": "Pod", "metadata": {"namespace": "shop", "name": "friend", "labels": labels}, "status": status}
    (FOLDER / "pods.json").write_text(json.dumps({"kind": "List", "items": [pod]}))
