"""Draw docs/node.svg: a node with a pod of each kind, made by the plugins, drawn by `agent-cni show --graph`.

usage: tools/isolated .venv/bin/python3 tools/picture.py [FILE]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "netns-tests/scenes"))

from lab import AGENT_CNI, Host, Lab, Pod  # noqa: E402

IPAM = {"type": "agent-ipam"}
OVERLAY = {
    "name": "pods", "type": "bridge-vxlan", "bridge": "cni0", "isDefaultGateway": True, "ipMasq": True,
    "vxlan": {"id": 100, "remotes": ["192.0.2.12", "192.0.2.13"]},
    "ipam": IPAM | {"ranges": [[{"subnet": "10.244.0.0/16", "rangeStart": "10.244.1.1", "rangeEnd": "10.244.1.254"}]]},
}  # fmt: skip
ISOLATED = {
    "name": "agents", "type": "custom-plugin", "ipMasq": True,
    "policy": {"ingress": [], "egress": [{"to": [{"ipBlock": {"cidr": "10.244.0.0/16"}}]}]},
}  # fmt: skip
PHYSICAL = {
    "name": "lan", "type": "macvlan", "master": "eth0",
    "ipam": IPAM | {"ranges": [[{"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.100", "gateway": "192.0.2.1"}]]},
}  # fmt: skip
SIDECAR: dict[str, Any] = {"sidecar": {"profile": "istio"}}
POLICY: dict[str, Any] = {"policy": {"ingress": ["10.244.0.0/16"]}}
PODS = (
    ("shop/web", OVERLAY | SIDECAR | POLICY),
    ("shop/cart", OVERLAY | SIDECAR),
    ("shop/db", OVERLAY | POLICY),
    ("ops/log-agent", ISOLATED),
    ("ops/ai-agent", ISOLATED | SIDECAR),
    ("lab/camera", PHYSICAL),
)


def attach(host: Host, pod: Pod, name: str, conf: dict[str, Any]) -> None:
    namespace, _, own = name.partition("/")
    args = f"IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={own}"
    host.add({"cniVersion": "1.0.0"} | conf, pod, CNI_ARGS=args)


def main() -> int:
    file = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "docs/node.svg")
    lab = Lab("picture")
    try:
        host = lab.site().host
        for name, conf in PODS:
            attach(host, lab.pod(), name, conf)
        host.run("unshare", "--uts", "sh", "-c", f'hostname node-1 && exec "$0" show --graph "{file}"', AGENT_CNI)
    finally:
        lab.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
