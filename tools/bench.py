"""make bench: our plugins against the reference's, the same work, interleaved in one run.

Each round calls both sides once, in alternating order, on two equal hosts. Quote the ratios: the
milliseconds belong to this machine and hour.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "netns-tests"))

import bench_modes  # noqa: E402
import bench_sidecar  # noqa: E402
from lab import BIN_DIR, Host, Lab, Pod  # noqa: E402

ROUNDS = 25
REFERENCE = ROOT / ".cache/bin"
PYTHON = ROOT / ".venv/bin/python3"
SUBNET = {"subnet": "10.77.0.0/16"}

Times = dict[str, list[float]]


def conf(ours: bool, **extra: object) -> dict:
    ipam = {"type": "agent-ipam", **SUBNET} if ours else {"type": "host-local", "dataDir": "/run/bench", **SUBNET}
    kind = "bridge-vxlan" if ours else "bridge"
    return {
        "cniVersion": "1.1.0",
        "name": "bench",
        "type": kind,
        "bridge": "cni0",
        "isGateway": True,
        "ipam": ipam,
    } | extra


def timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1000


def call(host: Host, verb: str, configuration: dict, pod: Pod) -> float:
    """One call inside the host's namespace; the time includes nsenter, the same on both sides."""
    bin_dir = BIN_DIR if configuration["type"] == "bridge-vxlan" else REFERENCE
    path = f"{BIN_DIR}:{REFERENCE}"
    return timed(lambda: host.cni(verb, configuration, pod, bin_dir=bin_dir, CNI_PATH=path).ok())


def attachments(lab: Lab, label: str, **extra: object) -> dict[str, tuple[Times, Times]]:
    sides = {ours: (lab.host(), conf(ours, **extra)) for ours in (True, False)}
    found: dict[bool, Times] = {True: {"ADD": [], "DEL": []}, False: {"ADD": [], "DEL": []}}
    for number in range(ROUNDS + 1):
        for ours in (True, False) if number % 2 else (False, True):
            host, configuration = sides[ours]
            pod = lab.pod()
            for verb in ("ADD", "DEL"):
                spent = call(host, verb, configuration, pod)
                if number:  # the first round makes the bridge and warms the caches
                    found[ours][verb].append(spent)
            pod.delete()
    return {f"{label}: {verb}": (found[True][verb], found[False][verb]) for verb in ("ADD", "DEL")}


def answers(lab: Lab) -> dict[str, tuple[list[float], list[float]]]:
    """VERSION and STATUS against the reference's, and VERSION against a bare interpreter."""
    host, pod = lab.host(), lab.pod()
    rows: dict[str, tuple[list[float], list[float]]] = {}
    for verb in ("VERSION", "STATUS"):
        pairs = [(call(host, verb, conf(True), pod), call(host, verb, conf(False), pod)) for _ in range(ROUNDS)]
        rows[verb] = ([one for one, _ in pairs], [other for _, other in pairs])
    bare = [timed(lambda: host.run(PYTHON, "-I", "-c", "pass")) for _ in range(ROUNDS)]
    return rows | {"VERSION, against a bare interpreter": (rows["VERSION"][0], bare)}


def report(rows: dict[str, tuple[list[float], list[float]]], pairs: int = ROUNDS) -> None:
    print(f"{'':<52}{'ours':>9}{'p95':>8}{'other':>12}{'p95':>8}{'ratio':>8}   (ms, {pairs} pairs)")
    for label, (ours, theirs) in rows.items():
        mine, other = statistics.median(ours), statistics.median(theirs)
        print(f"{label:<52}{mine:9.1f}{p95(ours):8.1f}{other:12.1f}{p95(theirs):8.1f}{mine / other:8.2f}")


def p95(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.95)]


def main() -> int:
    lab = Lab()
    try:
        print("cold processes; a node agent that answers warm is another issue's work\n")
        report(
            attachments(lab, "bridge + IPAM")
            | attachments(lab, "bridge + IPAM + masquerade", ipMasq=True, ipMasqBackend="nftables")
            | answers(lab)
        )
        print("\ninterception; the second figure is the same call without rules\n")
        report(bench_sidecar.rules(lab), bench_sidecar.ROUNDS)
        bench_modes.compared(bench_sidecar.proxies, "a pod calls another through", lab)
        bench_modes.compared(bench_modes.modes, "a way to attach pods", lab)
        bench_modes.compared(bench_modes.policies, "a server on a bridge with", lab)
        bench_modes.compared(bench_modes.crowded, "a server on a bridge, among", lab)
        bench_modes.applying(lab)
    finally:
        lab.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
