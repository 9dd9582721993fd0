"""What the agent has before it forks: a module a worker had to load itself would be read again by each, and be another release's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: What no call enters: commands, the installation, the member, and a program of its own.
FOR_OTHERS = (
    "cni.agent.otlp",
    "cni.agent.settings",
    "cni.command",
    "cni.installation",
    "cni.cluster.config",
    "cni.cluster.engines",
    "cni.cluster.etcd",
    "cni.cluster.kubernetes",
    "cni.cluster.snapshot",
    "cni.cluster.store",
    "cni.member",
    "cni.kernel.http",
    "cni.kernel.pools",
    "cni.kernel.resolver",
    "cni.kernel.tls",
    "cni.kernel.certificates",
    "cni.kernel.notify",
    "cni.kernel.events",
    "cni.kernel.conntrack",
    "cni.flows",
    "cni.state.recorded",
    "cni.kernel.inotify",
    "cni.kernel.counters",
    "cni.kernel.echo",
    "cni.kernel.folders",
    "cni.kernel.nflog",
    "cni.kernel.wireguard",
    "cni.policy.cluster_feed",
    "cni.overlay.acceptance",
    "cni.overlay.peers",
    "cni.overlay.rows",
    "cni.overlay.wireguard",
    "cni.configured",
    "cni.diagnosis",
    "cni.conflist",
    "cni.kernel.legacy",
    "cni.kernel.vteps",
    "cni.liveness",
    "cni.policy.amended",
    "cni.repair",
    "cni.policy.effects",
    "cni.policy.forecast",
    "cni.policy.hints",
    "cni.policy.judgement",
    "cni.kernel.netlink.at_once",
    "cni.kernel.listening",
    "cni.kernel.netlink.lookups",
    "cni.kernel.netlink.reachability",
    "cni.reach",
    "cni.discovery",
    "cni.dnsgate",
    "cni.kernel.injection",
    "cni.kernel.nfqueue",
    "cni.kernel.resolved",
    "cni.state.daemons",
)


def test_everything_a_call_may_enter_is_loaded_before_the_agent_forks():
    loaded = "import sys; from cni.agent import serve; serve._warm(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", loaded], cwd=ROOT, capture_output=True, text=True, check=True)
    files = [file.relative_to(ROOT).with_suffix("") for file in (ROOT / "cni").rglob("*.py")]
    every = {".".join(file.parts).removesuffix(".__init__") for file in files}
    assert {name for name in every - set(done.stdout.split()) if not name.startswith(FOR_OTHERS)} == set()
