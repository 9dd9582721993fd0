"""make bench, names: what the DNS gate costs a pod's question, how many it judges, and what it takes of memory.

A pod that is held to names and one that may ask anything ask the same dnsmasq in turn. Questions are divided by the processor time the gate
took, as those of bench_names are by its server's.
"""

from __future__ import annotations

import os
import re
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "netns-tests/scenes"))

from answers import within  # noqa: E402
from bench_cluster import Aim  # noqa: E402
from bench_names import DNSPERF, used  # noqa: E402
from lab import Lab, Namespace, Pod, eventually, sh  # noqa: E402
from names import DNSMASQ  # noqa: E402
from resolver import Gate  # noqa: E402

from cni.kernel.gatedir import Entry  # noqa: E402

SERVER, NET = "192.0.2.2", "10.1.0.0/24"
#: Questions in turn, seconds of as many as possible, and those on their way at a time.
ROUNDS, SECONDS, WAITING = 2000, 8, 50
PODS, PATTERNS = 500, 20
ADDED, JUDGED, MEMORY = 0.5, 3000, 40.0
CONF = {
    "cniVersion": "1.1.0", "name": "net", "type": "bridge-vxlan", "bridge": "br0", "isDefaultGateway": True,
    "ipam": {"subnet": NET},
}  # fmt: skip
HELD = {"egress": [{"to": [{"domainNames": ["*.example.com"]}], "ports": [{"port": 443}]}], "resolveRate": 10000}
OPEN = {"egress": [{"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}]}


def run(lab: Lab) -> None:
    """All three, and the aims."""
    print(f"\nload {os.getloadavg()[0]:.1f}")
    host = lab.host()
    resolving = outside(lab, host)
    pods = [lab.pod(), lab.pod()]
    for pod, policy in zip(pods, (HELD, OPEN), strict=True):
        host.add(CONF | {"policy": policy}, pod)
    with ExitStack() as held:
        served(held, resolving)
        gate = held.enter_context(Gate(host))
        aims = [asked_in_turn(*pods), judged(gate, pods[0]), remembered(gate)]
    print("\naims")
    for aim in aims:
        print(aim.line())


def outside(lab: Lab, host: Namespace) -> Namespace:
    made = lab.add(Namespace(lab.name("outside")))
    sh("ip", "link", "add", "up0", "netns", host.path, "type", "veth", "peer", "eth0", "netns", made.path)
    for where, link, number in ((host, "up0", 1), (made, "eth0", 2)):
        where.run("ip", "link", "set", link, "up")
        where.run("ip", "address", "add", f"192.0.2.{number}/24", "dev", link)
    made.run("ip", "route", "add", "default", "via", "192.0.2.1")
    return made


def served(held: ExitStack, where: Namespace) -> None:
    """A dnsmasq that answers names of a domain, and is ended with the rest."""
    options = (
        "--keep-in-foreground",
        "--no-hosts",
        "--no-resolv",
        "--conf-file=/dev/null",
        "--pid-file=",
        "--user=root",
    )
    answers = (
        "--address=/example.com/198.51.100.7",
        f"--listen-address={SERVER}",
        "--bind-interfaces",
        "--dns-forward-max=1000",
    )
    started = where.start(str(DNSMASQ / "dnsmasq"), *options, *answers)
    held.callback(started.wait)
    held.callback(started.kill)
    assert eventually(lambda: answered(opened(where), 1))


def opened(where: Namespace) -> socket.socket:
    made = within(where, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    made.settimeout(2)
    made.connect((SERVER, 53))
    return made


def answered(asking: socket.socket, number: int) -> bool:
    label = f"n{number % 200}".encode()
    name = bytes([len(label)]) + label + b"\7example\3com\0"
    try:
        asking.send(struct.pack("!6H", number & 0xFFFF, 0x100, 1, 0, 0, 0) + name + struct.pack("!2H", 1, 1))
        return struct.unpack_from("!H", asking.recv(512), 6)[0] == 1
    except OSError:
        return False


def asked_in_turn(held: Pod, free: Pod) -> Aim:
    askers = {"with the gate": opened(held), "without": opened(free)}
    took: dict[str, list[float]] = {name: [] for name in askers}
    for number in range(ROUNDS):
        for name, asking in askers.items():
            began = time.perf_counter()
            assert answered(asking, number), name
            took[name].append((time.perf_counter() - began) * 1000)
    print(f"\na question and its answer, {ROUNDS} in turn (ms)\n")
    print(f"{'':<20}{'p50':>8}{'p95':>8}{'p99':>8}")
    for name, each in took.items():
        cut = statistics.quantiles(each, n=100)
        print(f"{name:<20}{cut[49]:>8.3f}{cut[94]:>8.3f}{cut[98]:>8.3f}")
    with_it, without = (statistics.median(each) for each in took.values())
    return Aim("added to a question, p50", with_it - without, ADDED, "ms")


def judged(gate: Gate, pod: Pod) -> Aim:
    assert gate.process
    pid = worker(gate.process)
    with tempfile.NamedTemporaryFile("w", suffix=".questions") as questions:
        questions.write("".join(f"n{number}.example.com A\n" for number in range(200)))
        questions.flush()
        before = used(pid)
        words = ("-s", SERVER, "-d", questions.name, "-l", SECONDS, "-q", WAITING, "-c", 1, "-T", 1)
        environ = {"LD_LIBRARY_PATH": str(DNSPERF / "lib/x86_64-linux-gnu"), "PATH": os.environ["PATH"]}
        said = pod.run(DNSPERF / "bin/dnsperf", *words, env=environ).stdout
        took = used(pid) - before
    done, lost = (int(re.search(rf"Queries {word}:\s+(\d+)", said)[1]) for word in ("completed", "lost"))
    print(
        f"\nas many as possible: {done / SECONDS:.0f} a second, {done / took:.0f} of the gate's processor, {lost} lost"
    )
    return Aim("a question, of the gate's processor", 1e6 * took / done, 1e6 / JUDGED, "µs")


def remembered(gate: Gate) -> Aim:
    assert gate.process
    pid, folder = worker(gate.process), gate.host.folder / "dns"
    before = resident(pid)
    for number in range(PODS):
        rules = tuple(f"a{number}-{at}.example.com *.b{number}-{at}.example.org" for at in range(PATTERNS // 2))
        entry = Entry(
            f"b{number:010x}", f"shop/pod{number}", (f"10.9.{number // 250}.{number % 250 + 1}",), "veth0", rules
        )
        (folder / f".{entry.path.name}").write_text(entry.text)
        (folder / f".{entry.path.name}").rename(folder / entry.path.name)
    assert eventually(lambda: gate.counted().get("pods") == PODS + 1, 60)
    print(
        f"\nmemory of the gate with 1 pod {before:.1f} MiB, with {PODS} pods of {PATTERNS} patterns {resident(pid):.1f} MiB"
    )
    return Aim(f"memory with {PODS} pods of {PATTERNS} patterns", resident(pid), MEMORY, "MiB")


def worker(process: subprocess.Popen[bytes]) -> int:
    """The gate itself: what was started may be what leads there."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(children[0]) if children else process.pid


def resident(pid: int) -> float:
    """MiB."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024
