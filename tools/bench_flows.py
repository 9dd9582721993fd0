"""make bench, flows: how many connections a second two pods make with a recorder of flows and without, and what it takes.

Rounds with and without are taken in turns, the first of each pair too, and what counts is the median of the pairs' ratios. What client and server make in a
second of their own processor time is told beside what they make in one of the clock, on which whatever else the machine does counts too. Each end has a
processor of its own: where they wake up counts for more than a recorder does. A policy is in force in both, so
conntrack is at work in both. Connections end at once (RST) and are over for conntrack a second later, so that a round has the ends of the one before, too.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "netns-tests/scenes"))

from bench_cluster import Aim  # noqa: E402
from lab import Host, Lab, Pod  # noqa: E402
from recorder import Recorder  # noqa: E402

CONF = {
    "cniVersion": "1.1.0", "name": "net", "type": "custom-plugin",
    "ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}]]}, "policy": {"ingress": [{"ports": [{"port": 80}]}], "log": True},
}  # fmt: skip
PAIRS, SECONDS = int(os.environ.get("PAIRS", "25")), 2
#: How much slower connections may be with a recorder, in per cent, and how much memory it may take, in MiB.
SLOWER, MEMORY = 3.0, 40.0

_SERVER = """
import socket, struct
server = socket.create_server(("", 80), backlog=1024)
print("ready", flush=True)
while True:
    client, _ = server.accept()
    client.recv(16)
    client.send(b"x")
    client.close()
"""
_CLIENT = """
import socket, struct, sys, time
reset, until, done = struct.pack("ii", 1, 0), time.monotonic() + float(sys.argv[2]), 0
while time.monotonic() < until:
    with socket.create_connection((sys.argv[1], 80)) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        made.send(b"x")
        made.recv(16)
    done += 1
print(done, time.process_time())
"""


def run(lab: Lab) -> None:
    """The pairs, and the aims."""
    host, client, server = lab.host(), lab.pod(), lab.pod()
    results = {
        pod.name: host.add(CONF, pod, CNI_ARGS=f"IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={pod.name}")
        for pod in (client, server)
    }
    address = results[server.name]["ips"][0]["address"].split("/")[0]
    host.run("sysctl", "-qw", "net.netfilter.nf_conntrack_tcp_timeout_close=1")
    with ExitStack() as held:
        serving = held.enter_context(server.start("taskset", "-c", 1, sys.executable, "-c", _SERVER))
        held.callback(serving.kill)
        assert serving.stdout
        assert serving.stdout.readline() == "ready\n"
        aims = compared(host, client, serving.pid, address)
    for pod in (client, server):
        host.delete_pod(CONF, pod)
    print("\naims")
    for aim in aims:
        print(aim.line())


class Pace(NamedTuple):
    """Connections: how many, by the clock, and by the processor time that both ends took."""

    made: int
    by_clock: float
    by_processor: float


def compared(host: Host, client: Pod, server: int, address: str) -> list[Aim]:
    rounds: dict[bool, list[Pace]] = {True: [], False: []}
    took, memory = 0.0, 0.0
    for pair in range(PAIRS):
        for recorded in (True, False) if pair % 2 else (False, True):
            if not recorded:
                rounds[False].append(connections(client, server, address))
                continue
            with Recorder(host) as recorder:
                assert recorder.process
                before = processor(recorder.process.pid)
                rounds[True].append(connections(client, server, address))
                time.sleep(1.5)  # what it has not taken yet
                took += processor(recorder.process.pid) - before
                memory = max(memory, resident(recorder.process.pid))
    print(f"\nconnections a second between two pods, {PAIRS} pairs of {SECONDS} s, load {os.getloadavg()[0]:.1f}\n")
    print(f"{'':<32}{'without':>10}{'with':>10}{'ratio':>8}  quartiles")
    slower = 0.0
    for name, label in (("by_clock", "by the clock"), ("by_processor", "of the ends' processor time")):
        sides = [[getattr(pace, name) for pace in rounds[side]] for side in (False, True)]
        ratios = [one / other for other, one in zip(*sides, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(
            f"{label:<32}{statistics.median(sides[0]):10.0f}{statistics.median(sides[1]):10.0f}{middle:8.3f}  {low:.3f} to {high:.3f}"
        )
        slower = (1 - middle) * 100
    counts, made = counted(host), sum(pace.made for pace in rounds[True])
    print(
        f"\nof {made} it saw {counts['begun']} begin and {counts['ended']} end, {counts['late']} events shed; {took / made * 1e6:.0f} µs of the processor each"
    )
    return [
        Aim("slower with a recorder, of the ends' processor time", slower, SLOWER, "%"),
        Aim("memory of a recorder", memory, MEMORY, "MiB"),
    ]


def connections(client: Pod, server: int, address: str) -> Pace:
    before = processor(server)
    made, own = client.run("taskset", "-c", 0, sys.executable, "-c", _CLIENT, address, SECONDS).stdout.split()
    return Pace(int(made), int(made) / SECONDS, int(made) / (float(own) + processor(server) - before))


def counted(host: Host) -> dict[str, int]:
    metrics = host.run(ROOT / ".venv/bin/agent-cni", "metrics").stdout
    lines = [line for line in metrics.splitlines() if line.startswith("agent_cni_flows")]
    return {line.split('"')[1]: int(line.split()[1]) for line in lines}


def processor(pid: int) -> float:
    """The processor time a process of one thread has taken, in seconds."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def resident(pid: int) -> float:
    """What a process has in memory, in MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
