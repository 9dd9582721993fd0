"""A member among so many hosts and pods: what it keeps in memory, and what it computes.

    tools/isolated .venv/bin/python3 tools/simulate.py [--nodes 5000] [--pods 100] [--mode l3] [--rate 280] [--seconds 20]

The member is the real one, with a real kernel under it; its store is a generator, which has nothing else to do. What the store's
own client would add (HTTP, JSON) is measured by `make bench PARTS=cluster`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "netns-tests/scenes"))

from cluster import conf  # noqa: E402
from lab import BIN_DIR, eventually, sh  # noqa: E402

from cni.cluster.config import ClusterConfig, EtcdConfig  # noqa: E402
from cni.cluster.model import Alive, Block, Endpoint, Item, Key, Network, Node  # noqa: E402
from cni.cluster.store import Change, Listing, Session, Sparing  # noqa: E402
from cni.state import DEFAULT_FOLDER  # noqa: E402

BLOCK, NETWORK, SUBNET = 64, "net", "10.0.0.0/8"
#: Of a member that has done all it had to, how many seconds it uses no processor.
QUIET = 6


class Far(NamedTuple):
    """A host of the generator's: its blocks one after the other."""

    number: int
    pods: int

    @property
    def node(self) -> Node:
        mac = f"02:fe:00:{self.number >> 16:02x}:{self.number >> 8 & 255:02x}:{self.number & 255:02x}"
        return Node(f"far-{self.number}", f"{self.number:032x}", str(ip_address("100.64.0.0") + self.number), mac)

    @property
    def spans(self) -> list[str]:
        """Its blocks: as many as its pods need, the first address of each being its own."""
        count = -(-self.pods // (BLOCK - 1))
        first = int(ip_network(SUBNET)[0]) + (1 + self.number * count) * BLOCK * 2
        return [str(ip_network((first + number * BLOCK, 32 - BLOCK.bit_length() + 1))) for number in range(count)]

    def endpoints(self) -> Iterator[Endpoint]:
        """Its pods."""
        addresses = (address for span in self.spans for address in list(ip_network(span))[1:])
        for _, address in zip(range(self.pods), addresses, strict=False):
            yield self.endpoint(str(address))

    def endpoint(self, address: str) -> Endpoint:
        """One of them."""
        number = int(ip_address(address))
        mac = "02:01:" + ":".join(f"{number >> shift & 255:02x}" for shift in (24, 16, 8, 0))
        return Endpoint(NETWORK, address, self.node.name, mac, f"c{number:x}", "eth0")

    def items(self) -> Iterator[Item]:
        """All the store has of it."""
        yield from self.rows()
        yield from self.endpoints()

    def rows(self) -> Iterator[Item]:
        """But for its pods."""
        yield self.node
        yield Alive(self.node.name, "token")
        for span in self.spans:
            yield Block(NETWORK, span, self.node.name, self.node.machine)


class Generated:
    """A ClusterStore of so many hosts and pods, of which some come and go."""

    def __init__(self, nodes: int, pods: int, rate: float, told: Path) -> None:
        self.far = [Far(number, pods) for number in range(1, nodes + 1)]
        self.rate, self.told, self.own = rate, told, dict[Key, Item]()

    def join(self, me: Node, token: str) -> Session:
        self.own[me.key] = me
        return Session(me, token, "1", "1", 3600)

    def renew(self, session: Session) -> None:
        """It is always heard."""

    def announce(self, session: Session, me: Node) -> Session:
        return session._replace(node=me)

    def leave(self, session: Session) -> None:
        self.own.clear()

    def remove(self, node: str) -> list[Block]:
        return []

    def declare(self, session: Session, network: Network) -> Network:
        self.own[network.key] = network
        return network

    def claim(self, session: Session, block: Block) -> bool:
        self.own[block.key] = block
        return True

    def give_up(self, session: Session, block: Block) -> bool:
        return self.own.pop(block.key, None) is not None

    def publish(self, session: Session, block: Block, there: Sequence[Endpoint], gone: Sequence[Endpoint]) -> bool:
        self.own |= {item.key: item for item in there}
        return True

    def turn(self, session: Session, what: str, seconds: float) -> bool:
        return True

    def listing(self) -> Listing:
        return Listing(1, tuple(self.own.values()))

    def changes(self, sparing: Sparing | None = None) -> Iterator[Listing | Change]:
        """Everything when the file says "all", then what comes and goes when it says "churn": pods, or, where a host is not told of
        them, hosts' sessions.
        """
        yield self.listing()
        while "all" not in self.told.read_text():
            time.sleep(0.05)
            yield Change(1, (), ())
        own = tuple(self.own.values())
        spares = sparing is not None and sparing.is_enough(own)
        every = (item for far in self.far for item in (far.rows() if spares else far.items()))
        yield Listing(2, (*own, *every))
        revision = 2
        while "churn" not in self.told.read_text():
            time.sleep(1)
            yield Change(revision, (), ())
        some: list[Item] = [
            Alive(far.node.name, "token") if spares else next(far.endpoints()) for far in self.far[:500]
        ]
        while True:
            for one in some:  # it goes, and comes again
                for change in (Change(revision + 1, (), (one.key,)), Change(revision + 2, (one,), ())):
                    time.sleep(1 / self.rate)
                    yield change
                revision += 2


class Used(NamedTuple):
    """Of a process: seconds of processor, its share of memory now, and the most it had resident (MiB)."""

    cpu: float
    pss: float
    most: float

    @classmethod
    def by(cls, pid: int) -> Used:
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        rollup, status = (Path(f"/proc/{pid}/{name}").read_text() for name in ("smaps_rollup", "status"))
        return cls(
            (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK"), _mib(rollup, "Pss:"), _mib(status, "VmHWM:")
        )


def _mib(text: str, name: str) -> float:
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(name)) / 1024


def main() -> int:
    options = _options()
    if options.member:
        member(options)
        return 0
    told = Path("/run/told")
    told.write_text("")
    sh("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "wire0")
    for words in (("addr", "add", "192.0.2.11/24", "dev", "eth0"), ("link", "set", "eth0", "up"), ("link", "set", "wire0", "up"),
                  ("route", "add", "default", "via", "192.0.2.1")):  # fmt: skip
        sh("ip", *words)
    process = subprocess.Popen([sys.executable, __file__, "--member", told, *sys.argv[1:]])
    pid = process.pid
    try:
        _attach(options.mode)
        alone = _settled(pid)
        print(
            f"{options.nodes} hosts, {options.pods} pods each, {options.mode}; alone: {alone.pss:.1f} MiB; the kernel: {_kernel()}"
        )
        began = time.monotonic()
        told.write_text("all")
        there = _settled(pid)
        wall = time.monotonic() - began - QUIET
        print(f"all of them heard: {there.cpu - alone.cpu:.2f} s of processor in {wall:.1f} s, then {there.pss:.1f} MiB,"
              f" {there.most:.1f} at most; the kernel: {_kernel()}")  # fmt: skip
        told.write_text("all churn")
        time.sleep(2)
        before = Used.by(pid)
        time.sleep(options.seconds)
        after = Used.by(pid)
        print(f"{options.rate:.0f} changes a second: {(after.cpu - before.cpu) / options.seconds * 100:.1f} % of a processor"
              f" ({(after.cpu - before.cpu) / options.seconds / options.rate * 1e6:.0f} µs each), {after.pss:.1f} MiB")  # fmt: skip
    finally:
        process.terminate()
        process.wait(60)
    return 0


def member(options: argparse.Namespace) -> None:
    """Be it."""
    from cni.member.run import serve

    config = ClusterConfig("here", EtcdConfig(("http://192.0.2.2:2379",)), vtep="192.0.2.11")
    serve(config, Generated(options.nodes, options.pods, options.rate, options.member), DEFAULT_FOLDER)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--member", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--pods", type=int, default=100)
    parser.add_argument("--mode", choices=("l2", "l3"), default="l3")
    parser.add_argument("--rate", type=float, default=50, help="changes a second")
    parser.add_argument("--seconds", type=float, default=20, help="for how long")
    return parser.parse_args()


def _attach(mode: str) -> None:
    """One pod, so that the network is there."""
    netconf = conf(mode, families="4")
    netconf["ipam"]["ranges"] = [[{"subnet": SUBNET}]]
    sh("ip", "netns", "add", "pod")
    env = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "pod", "CNI_NETNS": "/run/netns/pod", "CNI_IFNAME": "eth0",
           "CNI_PATH": str(BIN_DIR), "PATH": os.environ["PATH"]}  # fmt: skip

    def added() -> bool:
        done = subprocess.run(
            [BIN_DIR / "bridge-vxlan"], input=json.dumps(netconf), env=env, capture_output=True, text=True, check=False
        )
        return not done.returncode or print(done.stdout)  # type: ignore[func-returns-value]

    assert eventually(added, 20)


def _settled(pid: int, seconds: float = 600) -> Used:
    """What it has used when it uses no more."""
    deadline, before, still = time.monotonic() + seconds, Used.by(pid), 0.0
    while still < QUIET and time.monotonic() < deadline:
        time.sleep(1)
        now = Used.by(pid)
        still = still + 1 if now.cpu - before.cpu < 0.03 else 0
        before = now
    return before


def _kernel() -> str:
    """How many rows there are, and what they take."""
    counts = {
        "FDB": len(sh("bridge", "fdb", "show").stdout.splitlines()),
        "neighbours": len(sh("ip", "neigh", "show", "nud", "permanent").stdout.splitlines()),
        "routes": len(sh("ip", "route").stdout.splitlines()),
    }
    slab = next(
        int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("Slab:")
    )
    return ", ".join([*(f"{count} {name}" for name, count in counts.items()), f"slab {slab // 1024} MiB"])


if __name__ == "__main__":
    sys.exit(main())
