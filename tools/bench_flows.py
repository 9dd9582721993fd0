"""make bench, flows: how many connections a second two pods make with a recorder of flows and without, and what it takes.

Rounds with and without follow each other, the first of each pair in turns, and what counts is the median of the pairs' ratios. Without means that conntrack
tells nothing, and counts neither bytes nor times (three settings): the recorder has nothing to hear then. A policy is in force in both, so conntrack is at
work in both. Each end has a processor of its own: where they wake up counts for more than a recorder does. What they make in a second of their own processor
time is told beside what they make in one of the clock, in which whatever else the machine does counts, too. Connections end at once (RST) and are over for
conntrack a second later; between two rounds there is time for that.
"""

from __future__ import annotations

import os
import statistics
import subprocess
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
PAIRS, SECONDS, _OVER = int(os.environ.get("PAIRS", "25")), 1.5, 1.2
#: How much slower connections may be with a recorder, in per cent, and how much memory it may take, in MiB.
SLOWER, MEMORY = 3.0, 40.0

_SERVER = """
import socket
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
reset = struct.pack("ii", 1, 0)
for line in sys.stdin:
    before, until, done = time.process_time(), time.monotonic() + float(line), 0
    while time.monotonic() < until:
        with socket.create_connection((sys.argv[1], 80)) as made:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            made.send(b"x")
            made.recv(16)
        done += 1
    print(done, time.process_time() - before, flush=True)
"""
_BEGINNING = f"""
import socket, sys, time
sys.path.insert(0, {str(ROOT)!r})
from cni.kernel import conntrack, nfnetlink
from cni.kernel.netlink.channel import NETFILTER, Channel
ways = dict(nothing=(0, 0, 0), counts=(1, 1, 0), everything=(1, 1, 2))
took, tracking = {{way: [] for way in ways}}, conntrack.Tracking()
target = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(40):
    for way, values in ways.items():
        for name, value in zip(("acct", "timestamp", "events"), values):
            open("/proc/sys/net/netfilter/nf_conntrack_" + name, "w").write(str(value))
        listener = conntrack.Listener()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as source:
            source.bind(("127.0.0.1", 5555))
            before = time.process_time()
            for port in range(10000, 13000):
                source.sendto(b"x", ("127.0.0.1", port))
            took[way].append((time.process_time() - before) / 3000)
        listener.close()
        flushing = Channel(NETFILTER)
        flushing.ask(nfnetlink.message(1 << 8 | 2, 4, 2, 0, b""))  # IPCTNL_MSG_CT_DELETE of all
        flushing.close()
print(*(min(some) for some in took.values()))
"""


def run(lab: Lab) -> None:
    """What a beginning costs, the pairs, and the aims."""
    beginning(lab.host())
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


def beginning(host: Host) -> None:
    """What the first datagram of a flow takes of who sends it, over loopback, the least of forty times 3,000: where conntrack is at work, where it
    counts bytes and times too, and where it tells who listens, besides.
    """
    took = [float(word) * 1e6 for word in host.run("taskset", "-c", 0, sys.executable, "-c", _BEGINNING).stdout.split()]
    print(
        f"\na flow's first datagram takes {took[0]:.2f} µs, {took[1] - took[0]:.2f} more where it is counted, {took[2] - took[0]:.2f} more where it is told, too"
    )


class Pace(NamedTuple):
    """Connections: how many, by the clock, and by the processor time that both ends took."""

    made: int
    by_clock: float
    by_processor: float


def compared(host: Host, client: Pod, server: int, address: str) -> list[Aim]:
    rounds: dict[bool, list[Pace]] = {True: [], False: []}
    with ExitStack() as held:
        recorder = held.enter_context(Recorder(host))
        asking = held.enter_context(client.start("taskset", "-c", 0, sys.executable, "-c", _CLIENT, address))
        held.callback(asking.kill)
        assert recorder.process
        before = processor(recorder.process.pid)
        for pair in range(PAIRS):
            for recorded in (True, False) if pair % 2 else (False, True):
                told(host, everything=recorded)
                rounds[recorded].append(connections(asking, server))
                time.sleep(_OVER)
        took, memory = processor(recorder.process.pid) - before, resident(recorder.process.pid)
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


def told(host: Host, *, everything: bool) -> None:
    """Have conntrack tell all of what begins from now on, or nothing."""
    settings = {"events": 2 * everything, "acct": int(everything), "timestamp": int(everything)}
    host.run("sysctl", "-qw", *(f"net.netfilter.nf_conntrack_{name}={value}" for name, value in settings.items()))


def connections(asking: subprocess.Popen[str], server: int) -> Pace:
    assert asking.stdin
    assert asking.stdout
    before = processor(server)
    asking.stdin.write(f"{SECONDS}\n")
    asking.stdin.flush()
    made, own = asking.stdout.readline().split()
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
