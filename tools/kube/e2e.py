"""Kubernetes' own end-to-end specs of its network, run in parallel by ginkgo."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from cluster import Cluster
from shell import BIN

#: No kernel here has SCTP, no cluster here two families; what wants names of the internet has none.
SKIPPED = r"Feature:SCTP|IPv6DualStack|\] DNS "


def run(cluster: Cluster, focus: str, skip: str, procs: int, out: Path) -> int:
    """Run the specs whose names match `focus`, but for those that match `skip`; a line for each, and all that was said in `out`. What ginkgo ended with."""
    out.mkdir(parents=True, exist_ok=True)
    config = cluster.keys.folder / "admin.kubeconfig"
    argv: list[str | Path] = [
        BIN / "ginkgo", "--no-color", f"--procs={procs}", "--timeout=4h", f"--focus={focus}", f"--skip={SKIPPED}",
        *([f"--skip={skip}"] if skip else []),
        "--json-report=report.json", BIN / "e2e.test", "--", "-provider=skeleton", f"-kubeconfig={config}",
        "-allowed-not-ready-nodes=0",
    ]  # fmt: skip
    with (out / "log").open("wb") as log:
        path = {"PATH": f"{BIN}:{os.environ['PATH']}"}
        done = subprocess.run(
            argv, cwd=out, env=os.environ | path, stdout=log, stderr=log, stdin=subprocess.DEVNULL, check=False
        )
    summarize(json.loads((out / "report.json").read_text()))
    return done.returncode


def summarize(report: list[dict[str, Any]]) -> None:
    specs = [spec for spec in report[0]["SpecReports"] if spec["LeafNodeType"] == "It"]
    ran = [spec for spec in specs if spec["State"] not in {"skipped", "pending"}]
    for spec in sorted(ran, key=lambda spec: (spec["State"], spec["LeafNodeText"])):
        what = f"{' '.join(spec['ContainerHierarchyTexts'][1:])[:45]} | {spec['LeafNodeText'][:110]}"
        said = spec.get("Failure", {}).get("Message", "").split("\n")[0][:120]
        print(f"{spec['State']:8} {spec['RunTime'] / 1e9:6.1f} s  {what}  {said}")
    passed, seconds = sum(spec["State"] == "passed" for spec in ran), sum(spec["RunTime"] for spec in ran) / 1e9
    print(f"{passed} of {len(ran)} passed; {seconds:.0f} s of specs", flush=True)
