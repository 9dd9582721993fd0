"""make bench, calls: what a runtime waits for, ours against the reference plugins', the same work in turn.

Everything happens in one network namespace, so a call is one process started and waited for, on both sides. `warm` is
ours with the node agent, `cold` ours without; the reference is what `go install` builds.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from lab import AGENT_CNI, BIN_DIR, ROOT, eventually, sh

REFERENCE = ROOT / ".cache/bin"
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "25"))
#: How many pods are there already where it is said what the next one costs.
FULL = (10, 1000)
SOCKET = Path("/run/agent-cni/agent.sock")
SIDECAR = {"port": 15001, "inboundPort": 15006, "backend": "iptables-nft"}
POLICY = {"ingress": ["10.0.0.0/8"]}

Conf = dict[str, Any]


@dataclass
class Side:
    """A way to attach a pod: the configurations of a chain, and what is done in the pod after them."""

    name: str
    chain: list[Conf]
    rules: tuple[str, ...] = ()
    environ: dict[str, str] = field(default_factory=dict)

    def process(self, verb: str, conf: Conf, pod: str) -> tuple[Path, dict[str, str]]:
        """The program of a call, and its environment."""
        ours = (BIN_DIR / conf["type"]).exists() and self.name != "reference"
        folder = BIN_DIR if ours else REFERENCE
        env = {"CNI_COMMAND": verb, "CNI_CONTAINERID": f"{self.name}-{pod}", "CNI_NETNS": f"/run/netns/{pod}",
               "CNI_IFNAME": "eth0", "CNI_PATH": f"{folder}", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}  # fmt: skip
        return folder / conf["type"], env | self.environ

    def call(self, verb: str, conf: Conf, pod: str) -> Conf:
        """One process, as a runtime starts it."""
        program, env = self.process(verb, conf, pod)
        done = subprocess.run([program], input=json.dumps(conf).encode(), env=env, capture_output=True, check=False)
        assert done.returncode == 0, (self.name, verb, done.stdout, done.stderr)
        return json.loads(done.stdout) if done.stdout.strip() else {}

    def add(self, pod: str) -> None:
        """ADD of the whole chain."""
        result: Conf = {}
        for conf in self.chain:
            result = self.call("ADD", conf | ({"prevResult": result} if result else {}), pod)
        for program, rules in zip(("iptables-nft-restore", "ip6tables-nft-restore"), self.rules, strict=False):
            command = ["nsenter", f"--net=/run/netns/{pod}", program, "--noflush"]
            subprocess.run(command, input=rules.encode(), check=True)

    def delete(self, pod: str) -> None:
        """DEL of the whole chain."""
        for conf in reversed(self.chain):
            self.call("DEL", conf, pod)

    def ask(self, verb: str) -> None:
        """STATUS or VERSION."""
        self.call(verb, self.chain[0], "none")


def sides(name: str, ours: Conf, theirs: list[Conf], rules: tuple[str, ...] = ()) -> list[Side]:
    """The three ways to the same attachment, on bridges and networks of their own."""
    off = {"AGENT_CNI_SOCKET": ""}
    return [
        Side("warm", [_placed(ours, name, "w")]),
        Side("cold", [_placed(ours, name, "c")], environ=off),
        Side("reference", [_placed(conf, name, "r") for conf in theirs], rules),
    ]


def _placed(conf: Conf, name: str, side: str) -> Conf:
    placed = {"cniVersion": "1.1.0", "name": f"{name}-{side}"} | conf
    if "bridge" in conf:
        placed["bridge"] = f"{name}-{side}"
    if conf.get("ipam"):
        placed["ipam"] = conf["ipam"] | ({"dataDir": "/run/host-local"} if side == "r" else {})
    return placed


OURS = {
    "type": "bridge-vxlan",
    "bridge": "b",
    "isGateway": True,
    "ipam": {"type": "agent-ipam", "subnet": "10.77.0.0/16"},
}
THEIRS = {"type": "bridge", "bridge": "b", "isGateway": True, "ipam": {"type": "host-local", "subnet": "10.77.0.0/16"}}
MASQ = {"ipMasq": True, "ipMasqBackend": "nftables"}
FIREWALL = {"type": "firewall", "backend": "iptables"}


def cases(rules: tuple[str, ...]) -> dict[str, list[Side]]:
    """What is compared."""
    layer_2 = {"ipam": {}, "isGateway": False}
    wire = {"type": "macvlan", "master": "wire0", "mode": "bridge"}
    everything = OURS | MASQ | {"policy": POLICY, "sidecar": SIDECAR}
    return {
        "bridge, layer 2": sides("l2", OURS | layer_2, [THEIRS | layer_2]),
        "bridge + IPAM": sides("ipam", OURS, [THEIRS]),
        "+ masquerade": sides("masq", OURS | MASQ, [THEIRS | MASQ]),
        "+ policy": sides("policy", OURS | MASQ | {"policy": POLICY}, [THEIRS | MASQ, FIREWALL]),
        "+ interception": sides("mesh", OURS | {"sidecar": SIDECAR}, [THEIRS], rules),
        "masquerade + policy + interception": sides("all", everything, [THEIRS | MASQ, FIREWALL], rules),
        "macvlan + IPAM": sides("wire", wire | {"ipam": OURS["ipam"]}, [wire | {"ipam": THEIRS["ipam"]}]),
    }


def restore_texts() -> tuple[str, ...]:
    """The rules our interception makes, as one iptables-restore document for each family."""
    conf = {"cniVersion": "1.1.0", "name": "x"} | OURS | {"sidecar": SIDECAR}
    Path("/run/explained.conf").write_text(json.dumps(conf))
    shown = sh(AGENT_CNI, "explain", "/run/explained.conf").stdout.splitlines()
    lines = [line.strip() for line in shown if line.startswith("           ")]
    documents = "\n".join(line for line in lines if line.startswith(("*", ":", "-", "COMMIT"))).split("COMMIT\n")
    assert len(documents) == len(("IPv4", "IPv6")), "one table of each family"
    return tuple(f"{text.removesuffix('COMMIT').rstrip()}\nCOMMIT\n" for text in documents)


@contextmanager
def agent() -> Iterator[subprocess.Popen[bytes]]:
    """`agent-cni serve`."""
    process = subprocess.Popen([str(AGENT_CNI), "serve"])
    assert eventually(SOCKET.exists)
    time.sleep(1)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def milliseconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1000


def in_turn(
    ways: list[Side], rounds: int, act: Callable[[Side, int], dict[str, float]]
) -> dict[str, dict[str, list[float]]]:
    """Every side once a round, in changing order; the first round warms up. Times by verb and side."""
    taken: dict[str, dict[str, list[float]]] = {}
    for number in range(rounds + 1):
        for side in ways if number % 2 else reversed(ways):
            for verb, spent in act(side, number).items():
                if number:
                    taken.setdefault(verb, {}).setdefault(side.name, []).append(spent)
    return taken


def attached(side: Side, number: int, rest: float = 0) -> dict[str, float]:
    """ADD and DEL of a fresh pod, each after so many seconds."""
    pod = f"{side.chain[0]['name']}-{number}"
    sh("ip", "netns", "add", pod)
    spent = {}
    for verb, call in (("ADD", side.add), ("DEL", side.delete)):
        time.sleep(rest)
        spent[verb] = milliseconds(partial(call, pod))
    sh("ip", "netns", "del", pod)
    return spent


def calls() -> dict[str, dict[str, list[float]]]:
    """Every case's times, by row."""
    rows = {}
    sh("ip", "link", "add", "wire0", "type", "veth", "peer", "name", "wire1")
    for link in ("wire0", "wire1"):
        sh("ip", "link", "set", link, "up")
    sh("ip", "address", "add", "198.18.0.1/24", "dev", "wire0")
    sh("ip", "route", "add", "default", "via", "198.18.0.2")  # as every node has one
    found = cases(restore_texts())
    for name, ways in found.items():
        for verb, taken in in_turn(ways, ROUNDS, attached).items():
            rows[f"{name}: {verb}"] = taken
    for verb in ("STATUS", "VERSION"):
        ways = found["bridge + IPAM"]
        rows[verb] = in_turn(ways, ROUNDS, lambda side, _, verb=verb: {verb: milliseconds(lambda: side.ask(verb))})[
            verb
        ]
    return rows


def storm(pods: int = 100, width: int = 20, rounds: int = 3) -> dict[str, list[float]]:
    """Pods per second when many are attached at once."""

    def one(side: Side, number: int) -> dict[str, float]:
        names = [f"s{side.name[0]}{number}-{index}" for index in range(pods)]
        for name in names:
            sh("ip", "netns", "add", name)
        with ThreadPoolExecutor(width) as pool:
            spent = milliseconds(lambda: list(pool.map(side.add, names)))
            list(pool.map(side.delete, names))
        for name in names:
            sh("ip", "netns", "del", name)
        return {"storm": pods * 1000 / spent}

    ways = [side for side in sides("storm", OURS, [THEIRS]) if side.name != "cold"]
    return in_turn(ways, rounds, one)["storm"]


def filled(rounds: int = 15) -> dict[str, dict[str, list[float]]]:
    """IPAM alone, by how much of a /16 is taken."""
    rows = {}
    for percent in (1, 50, 99):
        ours = {"type": "agent-ipam", "ipam": OURS["ipam"]}
        theirs = {"type": "host-local", "ipam": THEIRS["ipam"]}
        ways = [side for side in sides(f"full{percent}", ours, [theirs]) if side.name != "cold"]
        for side in ways:
            _fill(side, 65534 * percent // 100)
        rows[f"IPAM, {percent} % of a /16: ADD"] = in_turn(ways, rounds, _leased)["ADD"]
    return rows


def _leased(side: Side, number: int) -> dict[str, float]:
    spent = milliseconds(lambda: side.call("ADD", side.chain[0], f"lease{number}"))
    side.call("DEL", side.chain[0], f"lease{number}")
    return {"ADD": spent}


def _fill(side: Side, count: int) -> None:
    """Take addresses 2 to `count` without asking for each, as if so many pods were there."""
    network = side.chain[0]["name"]
    if side.name == "reference":
        folder = Path("/run/host-local", network)
        folder.mkdir(parents=True)
        for number in range(2, count):
            (folder / f"10.77.{number >> 8}.{number & 255}").write_text(f"filler{number}\r\neth0")
        (folder / "last_reserved_ip.0").write_text(f"10.77.{count - 1 >> 8}.{count - 1 & 255}")
        return
    side.call("ADD", side.chain[0], "first")
    import sqlite3

    with sqlite3.connect("/run/agent-cni/state.db") as db:
        kept = [
            (network, 4, bytes([10, 77, n >> 8, n & 255]), f"filler{n}", "eth0", "agent-ipam") for n in range(3, count)
        ]
        db.executemany("INSERT INTO lease VALUES (?,?,?,?,?,?)", kept)


def crowded(rounds: int = 15) -> dict[str, dict[str, list[float]]]:
    """ADD of one more pod on a node that has many."""
    ways = [side for side in sides("crowd", OURS | MASQ, [THEIRS | MASQ]) if side.name != "cold"]
    rows, there = {}, 0
    for count in (10, 100, 1000):
        for number in range(there, count):
            for side in ways:
                pod = f"there-{side.name[0]}-{number}"
                sh("ip", "netns", "add", pod)
                side.add(pod)
        there = count
        rows[f"{count} pods on the node: ADD"] = in_turn(ways, rounds, attached)["ADD"]
    return rows


def full(rounds: int = 25) -> dict[str, list[float]]:
    """ADD with masquerade, policy and interception beside so many pods that have all of it, by their number; they go again."""
    side = sides("full", OURS | MASQ | {"policy": POLICY, "sidecar": SIDECAR}, [])[0]
    found: dict[str, list[float]] = {}
    pods: list[str] = []
    with ThreadPoolExecutor(4) as pool:
        for count in FULL:
            more = [f"full-{number}" for number in range(len(pods), count)]
            for pod in more:
                sh("ip", "netns", "add", pod)
            list(pool.map(side.add, more))
            pods += more
            found[f"{count} pods with all of it: ADD"] = in_turn([side], rounds, attached)["ADD"]["warm"]
        list(pool.map(side.delete, pods))
    for pod in pods:
        sh("ip", "netns", "del", pod)
    return found


def memory(process: subprocess.Popen[bytes]) -> float:
    """What the agent's processes have resident together (proportional set size), in MiB."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    sizes = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in (str(process.pid), *children)]
    return sum(int(line.split()[1]) for size in sizes for line in size.splitlines() if line.startswith("Pss:")) / 1024


def remembered(process: subprocess.Popen[bytes], count: int = 10_000) -> float:
    """The agent's memory after many attachments were made, all of which it keeps records of."""
    side = sides("many", {"type": "agent-ipam", "ipam": OURS["ipam"]}, [])[0]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: side.call("ADD", side.chain[0], f"many{number}"), range(count)))
    return memory(process)


def ratio(taken: dict[str, list[float]], side: str = "warm") -> float:
    return statistics.median(taken[side]) / statistics.median(taken["reference"])


def p95(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.95)]


def table(rows: dict[str, dict[str, list[float]]], unit: str = "ms") -> None:
    """Medians, 95th percentiles, and ratios to the reference."""
    print(
        f"\n{f'({unit})':<46}{'warm':>8}{'p95':>8}{'cold':>9}{'reference':>11}{'p95':>8}{'warm/ref':>10}{'cold/ref':>10}"
    )
    for label, taken in rows.items():
        warm, other = taken["warm"], taken["reference"]
        cold = f"{statistics.median(taken['cold']):9.1f}" if "cold" in taken else f"{'':9}"
        cold_ratio = f"{ratio(taken, 'cold'):10.2f}" if "cold" in taken else ""
        print(f"{label:<46}{statistics.median(warm):8.1f}{p95(warm):8.1f}{cold}"
              f"{statistics.median(other):11.1f}{p95(other):8.1f}{ratio(taken):10.2f}{cold_ratio}")  # fmt: skip


#: At most this ratio to the reference, with the agent and without.
AIMS = {
    "warm": {
        "bridge + IPAM: ADD": 0.4,
        "masquerade + policy + interception: ADD": 0.2,
        "bridge, layer 2: DEL": 1.0,
        "macvlan + IPAM: DEL": 1.0,
        "STATUS": 0.7,
        "VERSION": 0.7,
    },
    "cold": {"bridge + IPAM: ADD": 8, "bridge + IPAM: DEL": 4, "STATUS": 14},
}


def aims(
    rows: dict[str, dict[str, list[float]]],
    fuller: dict[str, list[float]],
    storms: dict[str, list[float]],
    sizes: list[float],
) -> None:
    """Say of each aim whether it is met, and by how much not."""
    print("\naims")
    for side, ratios in AIMS.items():
        for label, most in ratios.items():
            _aim(f"{label}, {side}", ratio(rows[label], side), most)
    few, many = map(statistics.median, fuller.values())
    _aim(f"ADD with everything beside {FULL[1]} such pods / beside {FULL[0]}", many / few, 1.5)
    _aim("agent at its largest, MiB", max(sizes), 60)
    _aim("100 pods at 20 in parallel, reference / ours", 1 / ratio(storms), 1 / 1.5)


def _aim(label: str, found: float, most: float) -> None:
    print(f"  {'met   ' if found <= most else 'MISSED'} {label}: {found:.2f}, aimed at most {most:.2f}")


def main() -> dict[str, Any]:
    """Measure, print, and return the rows."""
    with agent() as process:
        sizes = [memory(process)]
        storms = storm()
        sizes.append(memory(process))
        table({"100 pods, 20 at a time": storms}, "pods/s")
    with agent():
        rows = calls()
        table(rows)
        fuller = full()
        for label, taken in fuller.items():
            print(f"{label:<46}{statistics.median(taken):8.1f}{p95(taken):8.1f}")
        fill = filled()
        table(fill)
        crowd = crowded()
        table(crowd)
    with agent() as process:
        sizes.append(remembered(process))
    print("\nagent (MiB): {:.0f} idle, {:.0f} after the 100 pods, {:.0f} after 10,000 attachments".format(*sizes))
    aims(rows, fuller, storms, sizes)
    return {"calls": rows, "full": fuller, "fill": fill, "crowd": crowd, "storm": storms, "memory": sizes}
