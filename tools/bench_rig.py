"""make bench, kube, on the rig (tools/kube) where it is built: how soon a cluster's pods run and its policies hold, and what its network's
daemons take, beside flannel's and the reference bridge's on the same three nodes.

One cluster after the other: quote them with the machine's load, which stands beside.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KUBE = ROOT / "tools/kube/kube.py"
BIN = Path(os.environ.get("KUBE_RIG") or ROOT / ".cache/kube").resolve() / "bin"
#: The clusters: how the rig is asked for each, and of which program it is built.
CLUSTERS = {
    "agent-cni": (
        ("--manifest", ROOT / "deploy/agent-cni.yaml", "nothing", "nodes", "starts", "enforced", "daemons"),
        "kube",
    ),
    "flannel": (("flannel", "nodes", "starts", "daemons"), "flanneld"),
    "the reference bridge": (("reference", "nodes", "starts"), "kube"),
}
_SAID = re.compile(r"^  \.\.  (a pod created -> Running|a policy .*|its daemons): (.*)$", re.MULTILINE)


def run() -> None:
    """A row for each figure of each cluster."""
    if not (BIN / "kube").exists():
        print("\nno cluster is measured: the rig is not built (`make kube-test` builds it, or KUBE_RIG names one)")
        return
    subprocess.run([KUBE, "prepare"], check=True, stdout=subprocess.DEVNULL)
    print(f"\n{'a cluster of three nodes with':<34}{'load':>6}  what was taken")
    for name, (asked, program) in CLUSTERS.items():
        if not (BIN / program).exists():
            print(f"{name:<34}{'':>6}  not built: {program}")
            continue
        load = os.getloadavg()[0]
        done = subprocess.run([KUBE, "check", *asked], capture_output=True, text=True, check=False)
        said = _SAID.findall(done.stdout)
        assert said, done.stdout + done.stderr
        done.check_returncode()
        for what, figures in said:
            print(f"{name:<34}{load:>6.1f}  {what}: {figures}")
