"""make bench, names: how many questions a server answers, and how soon a pod's name is known on another host.

Questions are dnsperf's, in C and with a processor of its own to ask by; they are divided by the processor time the server took, so that what
else the machine does meanwhile does not count.
"""

from __future__ import annotations

import os
import re
import socket
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "netns-tests/scenes"))

from answers import within  # noqa: E402
from bench_cluster import Aim  # noqa: E402
from cluster import Cluster, Node, conf  # noqa: E402
from lab import Lab, eventually  # noqa: E402
from names import Names, asked  # noqa: E402

DNSPERF = ROOT / ".cache/dnsperf/usr"
PODS, SECONDS, ADDS = 200, 8, 100
#: Questions that are on their way at a time.
WAITING = 100
QUESTIONS, VISIBLE = 20_000, 1.0


def run(lab: Lab) -> None:
    """Both, and the aims."""
    with Cluster(lab, 2) as cluster, ExitStack() as daemons:
        cluster.join()
        names = [daemons.enter_context(Names(node)) for node in cluster.nodes]
        net = conf("l2", block=256) | {"names": {}}
        pods = [added(cluster, cluster.nodes[0], net, f"near{number}") for number in range(3)]
        server = pods[0].result["dns"]["nameservers"][0]
        aims = [answered(cluster.nodes[0], names[0], server), visible(cluster, net, server)]
    print("\naims")
    for aim in aims:
        print(aim.line())


def added(cluster: Cluster, node: Node, net: dict, name: str):
    return cluster.add(node, net, CNI_ARGS=f"IgnoreUnknown=1;K8S_POD_NAME={name}")


def answered(node: Node, names: Names, server: str) -> Aim:
    """Questions for names of pods, for addresses and for what there is not; the aim is of microseconds that one takes."""
    for number in range(PODS):
        file = node.names / "net/there" / f"far{number}"
        file.write_text(f"10.1.{200 + number // 250}.{number % 250 + 1} far{number}.net far{number}\n")
    assert eventually(lambda: asked(node, server, f"far{PODS - 1}"))
    pid = names.servers()["net"]
    kinds: dict[str, Callable[[int], str]] = {
        "a name": lambda number: f"far{number}.net A",
        "an address": lambda number: f"{number % 250 + 1}.{200 + number // 250}.1.10.in-addr.arpa PTR",
        "a name that nobody has": lambda number: f"nobody{number}.net A",
    }
    rates = []
    print(f"\nquestions that one dnsmasq answers, {PODS} pods, {WAITING} at a time\n")
    print(f"{'':<28}{'a second':>10}{'of its processor':>18}{'lost':>8}")
    for kind, spelled in kinds.items():
        with tempfile.NamedTemporaryFile("w", suffix=".questions") as questions:
            questions.write("".join(f"{spelled(number)}\n" for number in range(PODS)))
            questions.flush()
            before = used(pid)
            words = ("-s", server, "-d", questions.name, "-l", SECONDS, "-q", WAITING, "-c", 1, "-T", 1)
            environ = {"LD_LIBRARY_PATH": str(DNSPERF / "lib/x86_64-linux-gnu"), "PATH": os.environ["PATH"]}
            said = node.run(DNSPERF / "bin/dnsperf", *words, env=environ).stdout
        took = used(pid) - before
        done, lost = (int(re.search(rf"Queries {word}:\s+(\d+)", said)[1]) for word in ("completed", "lost"))
        rates.append(done / took)
        print(f"{kind:<28}{done / SECONDS:>10.0f}{done / took:>18.0f}{lost:>8}")
    for file in (node.names / "net/there").glob("far*"):
        file.unlink()
    return Aim("a question, of dnsmasq's processor", 1e6 / min(rates), 1e6 / QUESTIONS, "µs")


def used(pid: int) -> float:
    """Seconds of processor time."""
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13])) / os.sysconf(
        "SC_CLK_TCK"
    )


def visible(cluster: Cluster, net: dict, server: str) -> Aim:
    """From the answer of an ADD on one host to that of the other's server."""
    here, there = cluster.nodes
    asking = within(here, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    asking.settimeout(1)
    asking.connect((server, 53))
    took = []
    for number in range(ADDS):
        name = f"late{number}"
        placed = added(cluster, there, net, name)
        began = time.monotonic()
        while not is_known(asking, name):
            time.sleep(0.002)
        took.append(time.monotonic() - began)
        if number % 2:
            cluster.remove(placed)
    asking.close()
    took.sort()
    print(f"\na name on another host after its ADD's answer: median {statistics.median(took) * 1000:.0f} ms, "
          f"p99 {took[-2] * 1000:.0f} ms, most {took[-1] * 1000:.0f} ms, of {ADDS}")  # fmt: skip
    return Aim("a name on another host, p99", took[-2], VISIBLE, "s")


def is_known(asking: socket.socket, name: str) -> bool:
    labels = bytes([len(name)]) + name.encode() + b"\0"
    asking.send(struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + labels + struct.pack("!2H", 1, 1))
    return struct.unpack_from("!H", asking.recv(512), 6)[0] > 0
