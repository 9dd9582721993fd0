"""make bench, cluster: how quickly hosts learn of each other, what a member costs, and what a pod pays for being in a cluster.

Everything is bounded in count and time. Run as a program it is one part of one host (``bench_cluster.py PART JSON``), which
prints one JSON document.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "netns-tests/scenes"))

from answers import CLONE_NEWNET, within  # noqa: E402
from cluster import WIREGUARD, Cluster, Node, conf, subnet  # noqa: E402
from lab import Lab, Namespace, Pod, eventually, sh  # noqa: E402

from cni.cluster.blocks import host_address, next_block  # noqa: E402
from cni.cluster.config import EtcdConfig  # noqa: E402
from cni.cluster.etcd import EtcdStore  # noqa: E402
from cni.cluster.model import Block, Endpoint, Network  # noqa: E402
from cni.cluster.model import Node as Known  # noqa: E402
from cni.cluster.pools import Pool  # noqa: E402
from cni.cluster.store import Session  # noqa: E402

PUTS, PAUSE = 300, 0.02
SIZES, PODS_OF_A_NODE, BLOCK = (5_000, 50_000), 100, 64
#: Of hosts that are only said to be there: longer than the whole bench.
LONG = 3600
ALLOCATORS, SECONDS = 16, 5.0
PAIRS = int(os.environ.get("BENCH_ROUNDS", "25")) * 4
#: Seconds after which a member and etcd have done what there was to do of a call.
REST = 0.05
PYTHON = sys.executable
NEIGHBOURS = 1 << 2  # RTMGRP_NEIGH of rtnetlink(7)
AF_BRIDGE, NEWNEIGH, HEADER = 7, 28, 16


class Aim(NamedTuple):
    """What was found of something, and the most it is to be."""

    what: str
    found: float
    most: float
    unit: str = ""

    def line(self) -> str:
        held = "held  " if self.found <= self.most else "MISSED"
        return f"  {held} {self.what}: {self.found:.2f} {self.unit}, aimed at most {self.most:g}"


def run(lab: Lab) -> None:
    """Every part, and the aims."""
    from bench_uplinks import failovers

    aims = [*convergence(lab), *cold(lab)]
    allocations(lab)
    aims += [*calls(lab), *traffic(lab), *traffic(lab, "wireguard"), *failovers(lab, Aim)]
    print("\naims")
    for aim in aims:
        print(aim.line())


# --- hosts that are only said to be there


class Crowd:
    """Hosts of the cluster without machines: what the store says of them."""

    def __init__(self, cluster: Cluster, network: Network) -> None:
        self.network = network
        self.taken = {it.span for it in cluster.listing() if isinstance(it, Block) and it.network == network.name}
        self._thread = ThreadPoolExecutor(1, initializer=_enter, initargs=(cluster.keepers[0].path,))
        self._store = EtcdStore(cluster.etcd.config(), LONG)

    def __call__(self, asked: Callable[[EtcdStore], Any]) -> Any:
        """Have the store's own machine ask it."""
        return self._thread.submit(asked, self._store).result()

    def join(self, number: int) -> Session:
        """One more host."""
        mac = f"02:fe:00:00:{number >> 8:02x}:{number & 255:02x}"
        known = Known(f"far-{number}", f"{number:032x}", f"198.51.{number >> 8}.{number & 255}", mac)
        return self(lambda store: store.join(known, "far"))

    def claim(self, session: Session) -> Block:
        """A block of IPv4 nobody has."""
        span = next_block(self.network, self.network.pools[0], session.node.name, self.taken)
        assert span
        self.taken.add(span)
        block = Block(self.network.name, span, session.node.name, session.node.machine)
        assert self(lambda store: store.claim(session, block))
        return block

    def say(self, session: Session, block: Block, there: list[Endpoint]) -> None:
        """Pods of it."""
        assert self(lambda store: store.publish(session, block, there, []))

    def fill(self, endpoints: int, first: int) -> None:
        """So many pods, a hundred on each of as many hosts as that takes."""
        for number in range(first, first + endpoints // PODS_OF_A_NODE):
            session, left = self.join(number), PODS_OF_A_NODE
            while left:
                block = self.claim(session)
                some = pods_of(self.network, block, session, min(left, BLOCK - 1))
                self.say(session, block, some)
                left -= len(some)


def pods_of(network: Network, block: Block, session: Session, count: int) -> list[Endpoint]:
    """Endpoints of a block, by addresses a host would give."""
    first = int(ip_address(host_address(network, block.span))) + 1
    last = min(int(ip_network(block.span)[-1]), int(ip_address(network.pools[0].last)))
    return [
        Endpoint(network.name, str(ip_address(at)), session.node.name, f"02:{at >> 32 & 255:02x}:{_hex(at)}", f"c{at}", "eth0")
        for at in range(first, min(first + count, last + 1))
    ]  # fmt: skip


def _hex(number: int) -> str:
    return ":".join(f"{number >> shift & 255:02x}" for shift in (24, 16, 8, 0))


def _enter(netns: str) -> None:
    with Path(netns).open("rb") as file:
        assert ctypes.CDLL(None).setns(file.fileno(), CLONE_NEWNET) == 0


# --- convergence


def convergence(lab: Lab) -> list[Aim]:
    """From when a pod is said to the store until a quiet member's kernel has its rows."""
    with Cluster(lab, hosts=1, session=LONG) as cluster:
        node, network = started(cluster)
        crowd = Crowd(cluster, network)
        session = crowd.join(1)
        endpoints = [it for _ in range(PUTS // 60 + 1) for it in pods_of(network, crowd.claim(session), session, 63)]
        taken = []
        with rows_of(node) as rows:
            for one in endpoints[: PUTS + 10]:
                block = next(Block(network.name, span, session.node.name, session.node.machine)
                             for span in crowd.taken if ip_address(one.address) in ip_network(span))  # fmt: skip
                rows.empty()
                began = time.perf_counter()
                crowd.say(session, block, [one])
                said = time.perf_counter()
                taken.append((rows.wait(one.mac, 2) - began, said - began))
                time.sleep(PAUSE)
    rows_there, answered = ([1000 * it for it in sorted(column)] for column in zip(*taken[10:], strict=True))
    p50, p99 = statistics.median(rows_there), rows_there[int(len(rows_there) * 0.99)]
    print(f"\nput -> kernel, {PUTS} pods one by one: p50 {p50:.2f} ms, p99 {p99:.2f} ms"
          f" (the store answers the put itself in {statistics.median(answered):.2f} ms)")  # fmt: skip
    return [Aim("put -> kernel, p50", p50, 3, "ms")]


class Rows:
    """What the kernel says of a namespace's neighbours and FDB, as it changes."""

    def __init__(self, where: Namespace) -> None:
        self.socket = within(where, lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE))
        self.socket.setsockopt(socket.SOL_SOCKET, 33, 256 << 20)  # SO_RCVBUFFORCE
        self.socket.bind((0, NEIGHBOURS))

    def empty(self) -> None:
        """Forget what was said until now."""
        self.socket.setblocking(False)
        try:
            while self.socket.recv(1 << 16):
                pass
        except BlockingIOError:
            self.socket.setblocking(True)

    def wait(self, mac: str, seconds: float) -> float:
        """When the last of a pod's rows was there: in the FDB, and its neighbour."""
        wanted, missing = bytes.fromhex(mac.replace(":", "")), {AF_BRIDGE, socket.AF_INET}
        self.socket.settimeout(seconds)
        while missing:
            data = self.socket.recv(1 << 16)
            if wanted in data and int.from_bytes(data[4:6], "little") == NEWNEIGH:
                missing.discard(data[HEADER])
        return time.perf_counter()

    def count(self, neighbours: int, seconds: float) -> float:
        """When so many neighbours had been said."""
        there, deadline = 0, time.perf_counter() + seconds
        try:
            while there < neighbours:
                self.socket.settimeout(max(deadline - time.perf_counter(), 0.001))
                data = self.socket.recv(1 << 16)
                there += int.from_bytes(data[4:6], "little") == NEWNEIGH and data[HEADER] == socket.AF_INET
        except TimeoutError:
            raise AssertionError(f"{there} of {neighbours} neighbours in {seconds} s") from None
        return time.perf_counter()


@contextmanager
def rows_of(where: Namespace) -> Iterator[Rows]:
    rows = Rows(where)
    try:
        yield rows
    finally:
        rows.socket.close()


# --- a member that begins


def cold(lab: Lab) -> list[Aim]:
    """A member that starts where so many pods are: what it takes longer than where there are none, and what it keeps in memory."""
    aims = []
    with Cluster(lab, hosts=1, session=LONG) as cluster:
        node, network = started(cluster)
        crowd, first, there = Crowd(cluster, network), 1, 0
        print(f"\n{'a member that starts (beyond one alone)':<44}{'wall s':>9}{'CPU s':>9}{'PSS MiB':>9}")
        empty = [begun(cluster, node, 0) for _ in range(3)]
        alone = Begun(*(statistics.median(column) for column in zip(*empty, strict=True)))
        print(f"{'alone (whole)':<44}{alone.wall:9.2f}{alone.cpu:9.2f}{alone.pss:9.1f}")
        for size in SIZES:
            crowd.fill(size - there, first)
            first, there = first + (size - there) // PODS_OF_A_NODE, size
            found = begun(cluster, node, size)
            wall, cpu = found.wall - alone.wall, found.cpu - alone.cpu
            print(f"{f'{size} endpoints of {size // PODS_OF_A_NODE} hosts':<44}{wall:9.2f}{cpu:9.2f}{found.pss:9.1f}")
            if size == SIZES[0]:
                aims += [
                    Aim(f"{size} endpoints cold, wall", wall, 0.5, "s"),
                    Aim(f"member at {size}", found.pss, 30, "MiB"),
                ]
            else:
                aims.append(Aim(f"member at {size}", found.pss, 75, "MiB"))
    return aims


class Begun(NamedTuple):
    """A member's start: seconds until its rows are there, of which so many of processor, and its memory."""

    wall: float
    cpu: float
    pss: float


def begun(cluster: Cluster, node: Node, rows_expected: int) -> Begun:
    """Start a member where the kernel has nothing of others, as after a boot."""
    if node.running:
        node.stop()
    for link in ("vxlan100", "br0"):
        sh("ip", "-n", node.name, "link", "set", link, "down")
        sh("ip", "-n", node.name, "link", "set", link, "up")
    sh("bridge", "-n", node.name, "fdb", "flush", "dev", "vxlan100", "self", check=False)
    sh("ip", "-n", node.name, "neigh", "flush", "dev", "br0", "nud", "permanent", check=False)
    with rows_of(node) as rows:
        heard = ready_socket(node)
        began = time.perf_counter()
        node.around = ("env", f"NOTIFY_SOCKET={heard.getsockname()}")
        node.start()
        heard.settimeout(120)
        while b"READY=1" not in heard.recv(4096):
            pass
        done = time.perf_counter()
        if rows_expected:
            done = max(done, rows.count(rows_expected, 120))
        heard.close()
    assert node.member
    pid = node.member.pid
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    cpu = (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")
    time.sleep(1)
    return Begun(done - began, cpu, pss(pid))


def ready_socket(node: Node) -> socket.socket:
    """Where a member says that it is ready, as to systemd."""
    path = node.folder / "notify.sock"
    path.unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind(str(path))
    return made


def pss(pid: int) -> float:
    """A process's share of memory, in MiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def started(cluster: Cluster) -> tuple[Node, Network]:
    """A host with a pod, in the cluster, and its network."""
    node = cluster.nodes[0]
    cluster.join()
    cluster.add(node, conf(families="4"))
    cluster.settle()
    (network,) = [it for it in cluster.listing() if isinstance(it, Network)]
    return node, network


# --- allocations


def allocations(lab: Lab) -> None:
    """Addresses of one network that 16 hosts take from one etcd at once."""
    print(f"\n{f'{ALLOCATORS} hosts take addresses':<44}{'a second':>10}{'ratio':>8}")
    found: dict[str, float] = {}
    for way in ("one pool, compare and swap", "blocks, each address told", "blocks, told a hundred at a time"):
        with Cluster(lab, hosts=0) as cluster:
            began = [_allocating(cluster, way, number) for number in range(ALLOCATORS)]
            for process in began:
                assert process.stdout
                assert process.stdout.readline() == "ready\n"
            for process in began:
                assert process.stdin
                process.stdin.write("go\n")
                process.stdin.flush()
            found[way] = sum(int(process.communicate(timeout=120)[0]) for process in began) / SECONDS
        print(f"{way:<44}{found[way]:10.0f}{found[way] / next(iter(found.values())):8.1f}")


def _allocating(cluster: Cluster, way: str, number: int) -> subprocess.Popen[str]:
    command = [
        "nsenter",
        f"--net={cluster.keepers[0].path}",
        PYTHON,
        __file__,
        "allocate",
        json.dumps([way, number, *cluster.etcd.endpoints]),
    ]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def allocate(way: str, number: int, url: str) -> int:
    """Take addresses for some seconds; how many."""
    taking = (
        _pooled(number, url) if way.startswith("one pool") else _blocked(number, url, 100 if "hundred" in way else 1)
    )
    next(taking)
    print("ready", flush=True)
    sys.stdin.readline()
    taken, end = 0, time.monotonic() + SECONDS
    while time.monotonic() < end:
        taken += next(taking)
    return taken


def _blocked(number: int, url: str, together: int) -> Iterator[int]:
    """As a member does: a block at a time, its addresses given by the host and told to the store."""
    store = EtcdStore(EtcdConfig((url,)), LONG)
    known = Known(f"far-{number}", f"{number:032x}", f"198.51.100.{number + 1}", f"02:fe:00:00:00:{number:02x}")
    session = store.join(known, "far")
    whole = ip_network(subnet(4))
    pool = Pool(str(whole), str(whole[1]), str(whole[-2]), str(whole[1]))
    network = store.declare(session, Network("net", (pool,), BLOCK))
    taken: set[str] = set()
    yield 0
    while True:
        span = next_block(network, pool, known.name, taken)
        assert span
        taken.add(span)
        block = Block("net", span, known.name, known.machine)
        if store.claim(session, block):
            pods = pods_of(network, block, session, BLOCK - 1)
            for at in range(0, len(pods), together):
                assert store.publish(session, block, pods[at : at + together], [])
                yield len(pods[at : at + together])


def _pooled(number: int, url: str) -> Iterator[int]:
    """One object that says who has what, changed by whoever read its last version."""
    from base64 import b64decode, b64encode
    from http.client import HTTPConnection

    etcd, key = HTTPConnection(url.removeprefix("http://")), b64encode(b"/pool").decode()

    def ask(verb: str, **body: Any) -> dict[str, Any]:
        etcd.request("POST", f"/v3/kv/{verb}", json.dumps(body))
        return dict(json.loads(etcd.getresponse().read()))

    yield 0
    while True:
        found = ask("range", key=key).get("kvs", [{}])[0]
        holders = json.loads(b64decode(found.get("value", "")) or "{}")
        address = next(str(ip) for ip in ip_network(subnet(4)).hosts() if str(ip) not in holders)
        value = b64encode(json.dumps(holders | {address: f"far-{number}"}).encode()).decode()
        same = {"key": key, "target": "MOD", "result": "EQUAL", "mod_revision": found.get("mod_revision", "0")}
        done = ask("txn", compare=[same], success=[{"request_put": {"key": key, "value": value}}])
        yield int(bool(done.get("succeeded")))


# --- calls


def calls(lab: Lab) -> list[Aim]:
    """ADD and DEL of a pod in a cluster's network and in one of this host, in pairs, with the node agent."""
    from agents import serving

    with Cluster(lab, hosts=1) as cluster:
        cluster.join()
        node = cluster.nodes[0]
        agent = serving(node)
        try:
            done = node.run(PYTHON, __file__, "calls", "[]", env=os.environ | {"CNI_NETNS": ""})
        finally:
            agent.process.terminate()
            agent.process.communicate(timeout=60)
    found = json.loads(done.stdout)
    print(
        f"\n{f'{PAIRS} pairs (ms), a bridge with an overlay':<44}{'cluster':>9}{'p95':>8}{'own':>9}{'p95':>8}{'ratio':>8}"
    )
    ratios = {}
    for what, taken in found.items():
        ours, own = taken["cluster"], taken["own"]
        ratios[what] = statistics.median(one / other for one, other in zip(ours, own, strict=True))
        columns = (f"{statistics.median(it):9.2f}{sorted(it)[int(len(it) * 0.95)]:8.2f}" for it in (ours, own))
        print(f"{what:<44}{''.join(columns)}{ratios[what]:8.3f}")
    return [Aim("ADD with cluster: true, of one without, pair by pair", ratios["ADD"], 1.05)]


def pairs() -> dict[str, dict[str, list[float]]]:
    """The calls themselves, on the host."""
    from bench_calls import Side, attached, in_turn

    shared = conf(families="4")
    own = conf(families="4", name="own", bridge="br1", vxlan={"id": 101})
    own["ipam"] = {"type": "agent-ipam", "ranges": [[{"subnet": "10.20.0.0/16"}]]}
    own["vxlan"].pop("mode")
    for one in (shared, own):  # what is there before the first pod is no part of it
        first = Side("first", [one])
        sh("ip", "netns", "add", f"first-{one['name']}")
        first.add(f"first-{one['name']}")
    sides = [Side("cluster", [shared]), Side("own", [own])]
    rested = in_turn(sides, PAIRS, lambda side, number: attached(side, number, REST))
    return rested | {f"{verb}, right after": taken for verb, taken in in_turn(sides, PAIRS, attached).items()}


# --- traffic


def traffic(lab: Lab, encryption: str = "") -> list[Aim]:
    """Pods of two hosts, over what a member made and over what a hand made of the same shape."""
    import bench_modes

    samples: dict[str, list[dict[str, float]]] = {}

    def build(lab: Lab, held: ExitStack) -> bench_modes.Ways:
        cluster = held.enter_context(Cluster(lab, hosts=2))
        cluster.join(**({"encryption": encryption} if encryption else {}))
        ours = [cluster.add(node, conf(families="4")) for node in cluster.nodes]
        cluster.settle()
        cluster.meshed()
        pods = by_hand(cluster, encryption, held)
        ways: bench_modes.Ways = {}
        for name, (client, server), target in (
            ("by hand", pods, "10.30.0.2"),
            ("by members", [it.pod for it in ours], ours[1].address(4)),
        ):
            held.enter_context(bench_modes.Server(["nsenter", f"--net={server.path}"], bench_modes.PORT))
            ways[name] = lambda client=client, target=target, name=name: (
                samples.setdefault(name, []).append(
                    one := bench_modes.sample(["nsenter", f"--net={client.path}"], target, bench_modes.PORT)
                )
                or one
            )
        return ways

    bench_modes.compared(build, f"two hosts{', ' + encryption if encryption else ''}", lab)
    hand, members = ([one["throughput"] for one in samples[name][1:]] for name in ("by hand", "by members"))
    pairs = sorted(one / other for one, other in zip(hand, members, strict=True))
    low, middle, high = statistics.quantiles(pairs, n=4)
    said = f"throughput by hand / by members{', ' + encryption if encryption else ''}"
    return [Aim(f"{said} (median of {len(pairs)} pairs, the middle half {low:.2f} to {high:.2f})", middle, 1.05)]


def by_hand(cluster: Cluster, encryption: str, held: ExitStack) -> list[Pod]:
    """The same shape: a bridge, a tunnel that learns nothing, and of the far pod its rows; inside WireGuard where asked."""
    ends = encrypted(cluster, held) if encryption else [node.underlay(4) for node in cluster.nodes]
    pods = []
    for number, node in enumerate(cluster.nodes):
        pod, far = cluster.lab.pod(), 1 - number
        pods.append(pod)
        mtu = 1500 - 50 if not encryption else 1440 - 70
        name, mac = node.name, "02:00:00:00:00:0{}"
        link = ("type", "vxlan", "id", 200, "dstport", 4790, "local", ends[number], "nolearning")
        sh("ip", "-n", name, "link", "add", "br200", "mtu", mtu, "type", "bridge")
        sh("ip", "-n", name, "link", "add", "vxlan200", "mtu", mtu, "master", "br200", *link)
        sh("ip", "-n", name, "link", "add", "hand0", "mtu", mtu, "master", "br200", "type", "veth", "peer", "name", "eth0",
           "netns", pod.name, "mtu", mtu, "address", mac.format(number + 1))  # fmt: skip
        for one in ("br200", "vxlan200", "hand0"):
            sh("ip", "-n", name, "link", "set", one, "up")
        sh("bridge", "-n", name, "link", "set", "dev", "vxlan200", "neigh_suppress", "on", "learning", "off")
        sh("bridge", "-n", name, "fdb", "replace", mac.format(far + 1), "dev", "vxlan200", "self", "master", "static",
           "dst", ends[far])  # fmt: skip
        sh("ip", "-n", name, "neigh", "replace", f"10.30.0.{far + 1}", "lladdr", mac.format(far + 1), "dev", "br200",
           "nud", "permanent")  # fmt: skip
        sh("ip", "-n", pod.name, "addr", "add", f"10.30.0.{number + 1}/24", "dev", "eth0")
        sh("ip", "-n", pod.name, "link", "set", "eth0", "up")
    assert eventually(lambda: pods[0].pings("10.30.0.2", 1))
    return pods


def encrypted(cluster: Cluster, held: ExitStack) -> list[str]:
    """WireGuard between two hosts, by hand: its addresses, which only go through it."""
    wg, keys = WIREGUARD / "wg", [sh(WIREGUARD / "wg", "genkey").stdout for _ in cluster.nodes]
    for number, node in enumerate(cluster.nodes):
        device, far = f"wg-hand{number}", 1 - number
        command = [*node.prefix(), str(WIREGUARD / "wireguard-go"), "-f", device]
        served = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        held.callback(
            served.kill
        )  # in a session of its own, as a member's: processors are shared out by sessions (sched_autogroup)
        assert eventually(lambda node=node, device=device: node.link(device))
        public = sh(wg, "pubkey", input=keys[far]).stdout.strip()
        node.run(wg, "set", device, "private-key", "/dev/stdin", "listen-port", 51900, "peer", public,
                 "allowed-ips", f"fd99::{far + 1}", "endpoint", f"{cluster.nodes[far].underlay(4)}:51900", input=keys[number])  # fmt: skip
        sh("ip", "-n", node.name, "addr", "add", f"fd99::{number + 1}/64", "dev", device, "nodad")
        sh("ip", "-n", node.name, "link", "set", device, "mtu", 1440, "up")
    return ["fd99::1", "fd99::2"]


if __name__ == "__main__":
    parts: dict[str, Callable[..., Any]] = {"allocate": allocate, "calls": pairs}
    print(json.dumps(parts[sys.argv[1]](*json.loads(sys.argv[2]))))
