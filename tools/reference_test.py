"""make reference-test: the suites of containernetworking/plugins, run with the reference's executables and with ours.

A spec counts if it calls the executable (tools/reference/shim_test.go does, in place of the suite's own functions) and
passes with the reference's. What fails with ours is in tools/reference/differences.yaml with its reason, or a fault.
`make reference-test SUITES="bridge ptp"` runs some.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).resolve().parent.parent
BUILT = ROOT / ".cache/reference"
THEIRS = ROOT / ".cache/bin"
OURS = ROOT / ".venv/cni-bin"
LIMIT = 900  # seconds that a suite may take


class Suite(NamedTuple):
    folder: str
    ours: dict[str, str]  # our executable that does the work of the reference's


SUITES = {
    "bridge": Suite("plugins/main/bridge", {"bridge": "bridge-vxlan"}),
    "macvlan": Suite("plugins/main/macvlan", {"macvlan": "macvlan"}),
    "host-local": Suite("plugins/ipam/host-local", {"host-local": "agent-ipam"}),
    "ptp": Suite("plugins/main/ptp", {"ptp": "custom-plugin"}),
    "integration": Suite("integration", {"bridge": "bridge-vxlan", "ptp": "custom-plugin", "host-local": "agent-ipam"}),
}


class Outcome(NamedTuple):
    passed: bool
    called: bool
    failure: str


class Difference(NamedTuple):
    """Specs whose names `specs` finds fail with ours, and what they say is found by `fails`; `why` that is right."""

    specs: str
    fails: str
    why: str

    def explains(self, name: str) -> bool:
        return re.search(self.specs, name) is not None


def run(name: str, whose: str, executables: dict[str, Path]) -> dict[str, Outcome]:
    """What each spec of a suite comes to, by its name, in namespaces of its own."""
    suite, report = SUITES[name], BUILT / f"{name} {whose}.json"
    folder = BUILT / "source" / suite.folder
    report.unlink(missing_ok=True)
    _offer(BUILT / "source/bin", executables)  # where the integration suite looks
    environment = os.environ | {
        "PLUGIN": str(executables.get(name, "")),
        "PATH": f"{BUILT / 'go'}:{THEIRS}:{os.environ['PATH']}",
        "GOPATH": str(ROOT / ".cache/go"),  # the integration suite builds programs of its module
        "GOFLAGS": "-modcacherw",
        "GOTOOLCHAIN": "local",
        "GOPROXY": "off",
        "CGO_ENABLED": "0",
    }
    test = [BUILT / f"{name}.test", f"--ginkgo.json-report={report}", f"--ginkgo.timeout={LIMIT}s", "--ginkgo.seed=1"]
    with report.with_suffix(".log").open("wb") as log:
        isolated = ["nice", ROOT / "tools/isolated", *test]
        subprocess.run(isolated, cwd=folder, env=environment, stdout=log, stderr=log, check=False)
    if not report.exists():
        sys.exit(f"the {name} suite wrote no report, see {log.name}")
    return outcomes(json.loads(report.read_text()), calls_always=name not in suite.ours)


def _offer(folder: Path, executables: dict[str, Path]) -> None:
    """Links by the names the reference gives its plugins; whatever has none of ours is the reference's."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for file in THEIRS.iterdir():
        (folder / file.name).symlink_to(executables.get(file.name, file))


def outcomes(report: list[dict[str, Any]], *, calls_always: bool) -> dict[str, Outcome]:
    """Of a Ginkgo report. Specs of one name are numbered."""
    found: dict[str, Outcome] = {}
    times: Counter[str] = Counter()
    for spec in report[0]["SpecReports"]:
        if spec["LeafNodeType"] != "It":
            continue
        name = spec["LeafNodeText"]
        times[name] += 1
        numbered = name if times[name] == 1 else f"{name} #{times[name]}"
        called = calls_always or bool(spec.get("ReportEntries"))
        failure = spec.get("Failure", {})
        panic = failure.get("ForwardedPanic", "")
        found[numbered] = Outcome(spec["State"] == "passed", called, failure.get("Message", "") + panic)
    return found


def judge(counting: list[str], ours: dict[str, Outcome], kept: list[Difference]) -> list[str]:
    """What is not as the kept list says, a line each."""
    faults = []
    for name in counting:
        reason = next((difference for difference in kept if difference.explains(name)), None)
        outcome = ours[name]
        if outcome.passed and reason:
            faults.append(f"{name}: passes, and is kept as a difference")
        elif not outcome.passed and not (reason and re.search(reason.fails, outcome.failure)):
            faults.append(f"{name}: {' '.join(outcome.failure.split())}")
    unused = [difference for difference in kept if not any(map(difference.explains, counting))]
    return faults + [f"no spec is named {difference.specs!r}, which is kept as a difference" for difference in unused]


def compared(name: str, kept: list[Difference]) -> bool:
    """Whether a suite has the same outcome with the reference and with ours, but for what is kept; prints a line or more."""
    suite = SUITES[name]
    theirs = run(name, "theirs", {plugin: THEIRS / plugin for plugin in suite.ours})
    ours = run(name, "ours", {plugin: OURS / program for plugin, program in suite.ours.items()})
    counting = [spec for spec, outcome in theirs.items() if outcome.called and outcome.passed]
    same = [spec for spec in counting if ours[spec].passed]
    faults = judge(counting, ours, kept)
    print(f"{name:<12}{len(theirs):>7}{len(counting):>8}{len(same):>6}{len(counting) - len(same):>8}{len(faults):>8}")
    for difference in kept:
        print(f"  {sum(map(difference.explains, counting)):>3}  {difference.why}")
    for fault in faults:
        print(f"  not as kept: {fault}")
    return bool(counting) and not faults


def main(chosen: list[str]) -> int:
    kept = yaml.safe_load((ROOT / "tools/reference/differences.yaml").read_text())
    print(f"{'suite':<12}{'specs':>7}{'count':>8}{'same':>6}{'differ':>8}{'faults':>8}")
    good = [compared(name, [Difference(**each) for each in kept.get(name) or []]) for name in chosen or SUITES]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
