"""make bench: our plugins against the reference's, and what they cost traffic; everything interleaved in one run.

Quote the ratios: the milliseconds belong to this machine and hour. `make bench PARTS=calls` does one part.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "netns-tests/scenes"))

import bench_calls  # noqa: E402
import bench_cluster  # noqa: E402
import bench_flows  # noqa: E402
import bench_gate  # noqa: E402
import bench_kube  # noqa: E402
import bench_modes  # noqa: E402
import bench_names  # noqa: E402
import bench_policy  # noqa: E402
import bench_rig  # noqa: E402
import bench_sidecar  # noqa: E402
import bench_together  # noqa: E402
from lab import Lab  # noqa: E402

OUT = ROOT / ".cache/bench"


def calls(lab: Lab) -> None:
    """What a runtime waits for."""
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "calls.json").write_text(json.dumps(bench_calls.main()))
    plot = [ROOT / ".cache/plot/bin/python", ROOT / "tools/plot.py", OUT / "calls.json", OUT / "calls.png"]
    subprocess.run(plot, check=True)
    print(f"\na picture of it: {(OUT / 'calls.png').relative_to(ROOT)}")


def traffic(lab: Lab) -> None:
    """What pods pay."""
    print("\ninterception; the second figure is the same call without rules\n")
    report(bench_sidecar.rules(lab), bench_sidecar.ROUNDS)
    bench_modes.compared(bench_sidecar.proxies, "a pod calls another through", lab)
    bench_modes.compared(bench_modes.modes, "a way to attach pods", lab)
    bench_modes.compared(bench_modes.policies, "a server on a bridge with", lab)
    bench_modes.compared(bench_modes.crowded, "a server on a bridge, among", lab)
    bench_modes.applying(lab)


def kube(lab: Lab) -> None:
    """What a member asks of an API, and what a cluster's users wait for."""
    bench_kube.run(lab)
    bench_rig.run()


def names(lab: Lab) -> None:
    """What answers names of pods, and what judges who may ask for which."""
    bench_names.run(lab)
    bench_gate.run(lab)


def report(rows: dict[str, tuple[list[float], list[float]]], pairs: int) -> None:
    print(f"{'':<52}{'ours':>9}{'p95':>8}{'other':>12}{'p95':>8}{'ratio':>8}   (ms, {pairs} pairs)")
    for label, (ours, theirs) in rows.items():
        mine, other = statistics.median(ours), statistics.median(theirs)
        shown = f"{mine:9.1f}{bench_calls.p95(ours):8.1f}{other:12.1f}{bench_calls.p95(theirs):8.1f}{mine / other:8.2f}"
        print(f"{label:<52}{shown}")


PARTS = {
    "calls": calls,
    "together": bench_together.run,
    "traffic": traffic,
    "cluster": bench_cluster.run,
    "policy": bench_policy.run,
    "names": names,
    "gate": bench_gate.run,
    "flows": bench_flows.run,
    "kube": kube,
}


def main(parts: list[str]) -> int:
    for part in parts or PARTS:
        lab = Lab(f"bench {os.getpid()}")
        try:
            PARTS[part](lab)
        finally:
            lab.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
