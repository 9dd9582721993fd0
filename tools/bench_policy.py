"""make bench, policy: what documents cost that pods' policies come from: to begin with, by each change, and in calls and traffic.

Run as a program it is one part of the host (``bench_policy.py PART JSON``), which prints one JSON document.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "netns-tests/scenes"))

import bench_modes  # noqa: E402
from agents import serving  # noqa: E402
from bench_calls import in_turn  # noqa: E402
from bench_cluster import Aim, pss  # noqa: E402
from bench_town import PODS, SPACES, Object, Town, args, document, far_address, kube_pod, named  # noqa: E402
from cluster import Cluster, Node  # noqa: E402
from interception import address_of  # noqa: E402
from lab import AGENT_CNI, Lab, eventually  # noqa: E402
from transactions import Transactions  # noqa: E402

#: Of this host's pods: how many there are in all, and documents.
SIZES = ((1, 0.4), (10, 2))
CHANGES, REFRESHES = int(os.environ.get("BENCH_ROUNDS", "25")) * 4, 3
#: Seconds without a change after which there is none to come.
QUIET = 0.12
PYTHON = sys.executable
AT_MOST = {"label": 10, "pod comes": 10, "document": 10}


def run(lab: Lab) -> None:
    """Every part, and the aims."""
    with Cluster(lab, hosts=1, session=60) as cluster:
        town = Town(cluster.nodes[0], Path("/run/hosts-policy"))
        aims: list[Aim] = []
        for more, documents in SIZES:
            town.grow(round(PODS * more), round(PODS * documents))
            if not town.placed:
                town.attach(lab)
            beginnings(cluster, town)
            aims += changes(town) + nothing(town)
        calls(town)
        aims += traffic(lab, town)
    print("\naims")
    for aim in aims:
        print(aim.line())


# --- from nothing


class Spent(NamedTuple):
    """Seconds of the clock and of the processor."""

    wall: float
    cpu: float


def refreshed(town: Town) -> Spent:
    def used() -> float:
        found = resource.getrusage(resource.RUSAGE_CHILDREN)
        return found.ru_utime + found.ru_stime

    wall, cpu = time.perf_counter(), used()
    town.host.run(AGENT_CNI, "refresh")
    return Spent(time.perf_counter() - wall, used() - cpu)


def beginnings(cluster: Cluster, town: Town) -> None:
    """A `refresh` where nothing of documents and rules is there any more, and a member that starts."""
    host = town.host
    if host.member:
        host.stop()
    for file in host.folder.glob("documents.db*"):
        file.unlink()
    host.run("nft", "delete", "table", "inet", "agent_cni_policy")
    print(f"\n{town.size:<44}{'wall s':>9}{'CPU s':>9}{'PSS MiB':>9}")
    cold = refreshed(town)
    print(f"{'refresh: folder unread, table gone':<44}{cold.wall:9.2f}{cold.cpu:9.2f}")
    began = time.perf_counter()
    cluster.join()
    spent = settled(host, began)
    assert host.member
    print(f"{'a member that starts':<44}{spent.wall:9.2f}{spent.cpu:9.2f}{pss(host.member.pid):9.1f}")


def settled(host: Node, began: float) -> Spent:
    """When a member has nothing to do any more, and what it took until then."""
    before, since = -1.0, began
    while (used := processor(host)) - before > 0.02:
        before, since = used, time.perf_counter()
        time.sleep(1)
    return Spent(since - began, used)


def processor(host: Node) -> float:
    """Seconds that a host's member has used of a processor."""
    assert host.member
    lines = (task.read_text() for task in Path(f"/proc/{host.member.pid}/task").glob("*/schedstat"))
    return sum(int(line.split()[0]) for line in lines) / 1e9


# --- one change


def changes(town: Town) -> list[Aim]:
    """From a file's rename to the last transaction that follows from it: kinds of changes in turn."""
    rules = Transactions(town.host)
    taken: dict[str, list[tuple[float, float, float]]] = {}
    for number in range(CHANGES + 5):
        for kind, change in steps(town).items():
            used, began = processor(town.host), change()
            times = rules.times(QUIET)
            row = times[0] - began, times[-1] - began, processor(town.host) - used
            if number >= 5:
                taken.setdefault(kind, []).append((row[0] * 1000, row[1] * 1000, row[2] * 1000))
    rules.close()
    print(f"\n{f'{town.size}, {CHANGES} of each (ms)':<44}{'first':>9}{'last':>9}{'p99':>9}{'CPU':>9}")
    aims = []
    for kind, rows in taken.items():
        first, last, cpu = (sorted(column) for column in zip(*rows, strict=True))
        median, p99 = statistics.median(last), last[int(len(last) * 0.99)]
        print(f"{kind:<44}{statistics.median(first):9.1f}{median:9.1f}{p99:9.1f}{statistics.median(cpu):9.1f}")
        if kind in AT_MOST and town.pods == PODS:
            aims.append(Aim(f"{kind}, {town.size}, p50", median, AT_MOST[kind], "ms"))
    return aims


def steps(town: Town) -> dict[str, Callable[[], float]]:
    """One change of each kind. A label's is a pod's of this host; who comes and goes is elsewhere."""
    town.changed += 1
    number = town.changed
    mine, guest, paper = number % PODS, town.pods + number, number % town.documents
    town.apps[mine] += 1
    return {
        "label": lambda: town.put(f"pod{mine}", town.pod(mine)),
        "pod comes": lambda: town.put(f"pod{guest}", kube_pod(guest, number, far_address(guest))),
        "pod goes": lambda: town.take(f"pod{guest}"),
        "document": lambda: town.put(f"document{paper}", document(paper, 1000 + number)),
    }


def nothing(town: Town) -> list[Aim]:
    """A `refresh` that finds everything as it is to be, and what the member keeps by now."""
    rows = [refreshed(town) for _ in range(REFRESHES)]
    wall, cpu = (statistics.median(column) for column in zip(*rows, strict=True))
    assert town.host.member
    print(
        f"\n{f'{town.size}: refresh of nothing (s)':<44}{wall:9.2f}{cpu:9.2f}   the member: {pss(town.host.member.pid):.1f} MiB"
    )
    return [Aim(f"refresh of nothing, {town.size}", wall, 0.3, "s")] if town.pods == PODS else []


# --- calls


def calls(town: Town) -> None:
    """ADD and DEL of a pod that is fed, of one whose section says the same, and of one without a policy, with the node agent."""
    number = town.pods - 1  # whom the host does not have; its object is of an address elsewhere
    there = [{"ipBlock": {"cidr": f"{far_address(at)}/32"}} for at in range(PODS // 4)]  # as many as documents select
    literal = {
        "ingress": [{"from": there, "ports": [{"port": 80}]}],
        "egress": [{"to": there, "ports": [{"port": 5432}]}],
    }
    policies: dict[str, Object] = {"fed": {"policy": town.conf["policy"]}, "literal": {"policy": literal}, "none": {}}
    ways = {
        name: bench_modes.ROUTED | {"name": name, "ipam": {"subnet": f"10.{at}.0.0/16"}} | policy
        for at, (name, policy) in enumerate(policies.items(), 93)
    }
    agent = serving(town.host)
    try:
        done = town.host.run(
            PYTHON, __file__, "calls", json.dumps([ways, args(number)]), env=os.environ | {"CNI_NETNS": ""}
        )
    finally:
        agent.process.terminate()
        agent.process.communicate(timeout=60)
    found = json.loads(done.stdout)
    print(f"\n{f'beside {PODS} pods, of {town.size} (ms)':<44}{'fed':>9}{'literal':>9}{'none':>9}{'fed/literal':>13}")
    for verb, taken in found.items():
        fed, same, none = (statistics.median(taken[way]) for way in ("fed", "literal", "none"))
        print(f"{verb:<44}{fed:9.2f}{same:9.2f}{none:9.2f}{fed / same:13.2f}")


def pairs(ways: dict[str, Object], given: str) -> dict[str, dict[str, list[float]]]:
    """The calls themselves, on the host."""
    from bench_calls import Side, attached

    sides = [Side(name, [conf], environ={"CNI_ARGS": given}) for name, conf in ways.items()]
    return in_turn(sides, CHANGES, attached)


# --- traffic


def traffic(lab: Lab, town: Town) -> list[Aim]:
    """A client and a server that documents hold, beside two without any policy on the same host, and two where nobody has one."""
    samples: dict[str, list[dict[str, float]]] = {}

    def build(lab: Lab, held: ExitStack) -> bench_modes.Ways:
        ways: bench_modes.Ways = {}
        alone, plain = lab.host(), bench_modes.ROUTED
        # by document 0 pods of app 1 get in to those of app 0; the open one lets all of them out
        town.put("open", named("NetworkPolicy", "ns0", "open", "networking.k8s.io/v1", spec={
            "podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}], "egress": [{"to": [{"podSelector": {}}]}]}))  # fmt: skip
        fed = [kube_pod(SPACES * (town.pods + at), at) for at in (1, 0)]
        for number, item in enumerate(fed):
            town.put(f"traffic{number}", item)
        for name, host, conf in (
            ("no policies", alone, plain), ("no policy", town.host, plain), ("documents", town.host, town.conf),
        ):  # fmt: skip
            pods = lab.pod(), lab.pod()
            ends = []
            for pod, item in zip(pods, fed, strict=True):
                said = f"IgnoreUnknown=1;K8S_POD_NAMESPACE=ns0;K8S_POD_NAME={item['metadata']['name']}"
                ends.append(address_of(host.add(conf, pod, CNI_ARGS=said if "policy" in conf else ""), 4))
            held.enter_context(bench_modes.Server(["nsenter", f"--net={pods[1].path}"], bench_modes.PORT))
            assert eventually(lambda pods=pods, ends=ends: pods[0].pings(ends[1], 1))
            ways[name] = lambda pods=pods, ends=ends, name=name: (
                samples.setdefault(name, []).append(
                    one := bench_modes.sample(["nsenter", f"--net={pods[0].path}"], ends[1], bench_modes.PORT)
                )
                or one
            )
        return ways

    bench_modes.compared(build, f"two pods of a host, {town.size}", lab)
    none, fed = (samples[name][1:] for name in ("no policies", "documents"))
    ratios = {column: statistics.median(it[column] for it in fed) / statistics.median(it[column] for it in none)
              for column in ("throughput", "connection")}  # fmt: skip
    return [
        Aim("throughput without policies / with documents", 1 / ratios["throughput"], 1.05),
        Aim("a new connection with documents / without", ratios["connection"], 1.05),
    ]


if __name__ == "__main__":
    parts: dict[str, Callable[..., Any]] = {"calls": pairs}
    print(json.dumps(parts[sys.argv[1]](*json.loads(sys.argv[2]))))
