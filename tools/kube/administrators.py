"""The conformance suite of ClusterNetworkPolicies (sigs.k8s.io/network-policy-api)."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from cluster import Cluster
from shell import BIN, BUILT

CHANNELS = ("standard", "experimental")
KINDS = BUILT / "src/administrators/config/crd"
#: What the suite asks of a channel.
FEATURES = {
    "standard": "ClusterNetworkPolicy",
    "experimental": "ClusterNetworkPolicy,ClusterNetworkPolicyNamedPorts,ClusterNetworkPolicyEgressNodePeers",
}
_RESULT = re.compile(r"^( *)--- (PASS|FAIL|SKIP): (\S+)")
_UNASKED = re.compile(r"not asked, for SCTP: (.*)")


def kinds(channel: str) -> list[Path]:
    """What a cluster is to serve before its network begins: members look for kinds that come later every half a minute."""
    return sorted((KINDS / channel).glob("policy*.yaml"))


def run(cluster: Cluster, channel: str, focus: str, out: Path) -> int:
    """Run a channel's specs whose name matches; a line for each, and all that was said in `out`. What the suite ended with."""
    out.mkdir(parents=True, exist_ok=True)
    asked = [
        "-test.v",
        "-test.timeout=60m",
        f"-test.run=TestConformance$/{focus}",
        f"-supported-features={FEATURES[channel]}",
    ]
    environment = os.environ | {"KUBECONFIG": str(cluster.keys.folder / "admin.kubeconfig")}
    log = out / f"{channel}.log"
    with log.open("wb") as file:
        done = subprocess.run(
            [BIN / "conformance.test", *asked], env=environment, stdout=file, stderr=file, check=False
        )
    summarize(log.read_text(errors="replace"))
    return done.returncode


def summarize(log: str) -> None:
    results = [found for line in log.splitlines() if (found := _RESULT.match(line))]
    leaves = [
        one
        for one, after in zip(results, [*results[1:], None], strict=True)
        if not after or len(after[1]) <= len(one[1])
    ]
    for one in leaves:
        print(f"{one[2]}  {one[3].removeprefix('TestConformance/')}")
    passed = sum(one[2] == "PASS" for one in leaves)
    unasked = _UNASKED.findall(log)
    print(
        f"{passed} of {len(leaves)} passed; {len(unasked)} probes by SCTP not made{f': {unasked[0]}' if unasked else ''}",
        flush=True,
    )
