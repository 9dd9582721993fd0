"""Hosts that are one cluster: an underlay, a store they reach over it, a member on each, and what must be so of all of them.

lab -> Cluster(lab, hosts=3) -> join -> add pods -> settle -> faults, duplicates -> leave -> left
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self

from answers import ASKED, Answers, faults, within
from etcd import Etcd
from interception import address_of
from lab import AGENT_CNI, PATIENCE, ROOT, Answer, Host, Lab, Namespace, Pod, eventually, sh

from cni.cluster.etcd import EtcdStore
from cni.cluster.model import Block, Endpoint, Item
from cni.errors import TryAgainLater
from cni.state import FILE, Store
from cni.state.membership import HELD, LOST, Unsaid

PREFIX = "/agent-cni"
WIREGUARD = ROOT / ".cache/wireguard/usr/bin"
#: Where the first member of the store is on the underlay, and where the first host.
STORE, FIRST = 2, 11
UNDERLAY = {4: "192.0.2.{}", 6: "fd00:2::{:x}"}
#: How long a session lasts in tests, in seconds: no wait, but what a pause must exceed.
SESSION = 5


def subnet(family: int, number: int = 0) -> str:
    """That of a network."""
    return f"10.{10 + number}.0.0/16" if family == 4 else f"fd00:{10 + number}::/64"


def conf(
    mode: str = "l2", *, name: str = "net", families: str = "46", block: int = 0, number: int = 0, **keys: Any
) -> dict[str, Any]:
    """A network of the cluster, the same on every host; another `number` is another network, on a bridge and a VNI of its own."""
    ranges = [[{"subnet": subnet(int(family), number)}] for family in families]
    ipam = {"type": "agent-ipam", "cluster": True, "ranges": ranges} | ({"blockSize": block} if block else {})
    base = {
        "cniVersion": "1.1.0",
        "name": name,
        "type": "bridge-vxlan",
        "bridge": f"br{number}",
        "isDefaultGateway": True,
    }
    return (
        base
        | {"vxlan": {"id": 100 + number, "mode": mode} | keys.pop("vxlan", {}), "ipam": ipam | keys.pop("ipam", {})}
        | keys
    )


@dataclass
class Node(Host):
    """A host of the cluster: what runs on it sees its own /etc/agent-cni and its own machine id."""

    number: int = FIRST
    machine: str = ""
    member: subprocess.Popen[bytes] | None = None
    #: Whether a member that ends is started again, as systemd does.
    wanted: bool = False
    #: What the member's command line begins with, where a test lets it run otherwise.
    around: tuple[str, ...] = ()
    #: Its `agent-cni`, today's unless a test has another release.
    program: Path = AGENT_CNI
    #: By how many seconds CLOCK_BOOTTIME is ahead, for what is started from now on.
    slept: int = 0

    @property
    def etc(self) -> Path:
        """What is laid over /etc on this host."""
        return Path("/run/hosts-etc") / self.name

    @property
    def log(self) -> Path:
        """What its members said, one after the other."""
        return self.folder.with_suffix(".log")

    def create(self) -> None:
        super().create()
        for folder in ("agent-cni", "wireguard"):
            (self.etc / folder).mkdir(parents=True)
        Path("/run/wireguard").mkdir(exist_ok=True)  # where wireguard-go has its sockets, by the names of devices
        self.identify(self.machine or f"{self.number:032x}")

    def identify(self, machine: str) -> None:
        """Be another machine, or the same as another."""
        self.machine = machine
        (self.etc / "machine-id").write_text(f"{machine}\n")

    def delete(self) -> None:
        self.kill()
        super().delete()
        shutil.rmtree(self.etc)

    def within(self) -> list[str]:
        """What is laid over /etc changes, and no overlay is told of it."""
        return self.prefix()

    def prefix(self) -> list[str]:
        layers = 'mount -t overlay overlay -o "lowerdir=$1:/etc" /etc && mount --bind "$1/agent-cni" /etc/agent-cni'
        layers += ' && mount --bind "$1/wireguard" /run/wireguard'
        layers += f' && mount --bind "$0" /run/agent-cni && mount --bind {self.names} /run/agent-cni-names'
        bind = f'{layers} && shift && exec "$@"'
        return [
            "nsenter",
            f"--net={self.path}",
            "unshare",
            *(("--time", "--boottime", str(self.slept)) if self.slept else ()),
            "--mount",
            "sh",
            "-c",
            bind,
            str(self.folder),
            str(self.etc),
        ]

    def underlay(self, family: int = 4) -> str:
        """Its address on the wire."""
        return UNDERLAY[family].format(self.number)

    def sleep(self, seconds: int) -> None:
        """Have slept: no process of it ran, and the time since boot went on (time_namespaces(7)). Its agent does not come back."""
        (self.folder / "agent.sock").unlink(missing_ok=True)
        self.slept += seconds

    # --- its member

    def start(self, *words: str) -> None:
        """Start a member, by the configuration that is there, or by a command's words."""
        with self.log.open("ab") as log:
            command = [*self.prefix(), *self.around, str(self.program), "join", *words]
            environ = os.environ | {"PATH": f"{WIREGUARD}:{os.environ['PATH']}"}
            self.member = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ)
        self.wanted = True

    def revive(self) -> None:
        """Start its member again where it ended by itself."""
        if self.wanted and not self.running:
            self.start()

    @property
    def running(self) -> bool:
        """Whether its member is."""
        return self.member is not None and self.member.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send its member a signal."""
        assert self.member
        self.member.send_signal(number)

    def pause(self) -> None:
        """Let its member do nothing, as a machine without a processor to spare would."""
        self.signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let a paused member go on."""
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """End its member as the kernel would that has no memory left."""
        self.wanted = False
        if self.member:
            self.member.kill()
            self.member.wait(PATIENCE)

    def stop(self) -> int:
        """End its member as systemd does; its exit code."""
        self.wanted = False
        self.signal(signal.SIGTERM)
        assert self.member
        return self.member.wait(PATIENCE)

    def said(self) -> str:
        """The end of what its members said, for who looks why."""
        return self.log.read_text()[-3000:] if self.log.exists() else ""

    # --- what it has of the cluster

    def remembered(self, asked: Callable[[Store], Any]) -> Any:
        """What a question to a copy of its state answers; None where there is no state."""
        if not (self.folder / FILE).exists():
            return None
        store = Store(self.folder / FILE, PATIENCE)
        try:
            store.copy()
            return asked(store) if store.layout() else None  # it is being made
        except TryAgainLater:
            return None
        finally:
            store.close()

    def holdings(self, *states: str) -> set[str]:
        """Its blocks, as `network span`; of certain states."""
        held = self.remembered(lambda store: store.blocks()) or []
        return {f"{item.block.network} {item.block.span}" for item in held if not states or item.state in states}

    def unsaid(self) -> list[Unsaid]:
        """What the cluster is still to be told by it."""
        return self.remembered(lambda store: store.unsaid()) or []

    def lost(self) -> Callable[[str, str], bool]:
        """Whether an address of a network is of a block that is somebody else's by now: who has it here is cut off."""
        blocks = self.remembered(lambda store: [item.block for item in store.blocks() if item.state == LOST]) or []
        return lambda network, address: any(
            it.network == network and ip_address(address) in it.addresses for it in blocks
        )

    def leases(self) -> dict[str, str]:
        """Who has each address by its state, those of lost blocks apart: `network address` -> container."""
        lost = self.lost()
        said = self.state()["leases"] if (self.folder / FILE).exists() else []
        return {
            f"{item['network']} {item['address']}": item["container"]
            for item in said
            if not lost(item["network"], item["address"])
        }


@dataclass
class Placed:
    """A pod on a host, and its result."""

    host: Node
    pod: Pod
    conf: dict[str, Any]
    result: dict[str, Any]

    @property
    def addresses(self) -> list[str]:
        return [item["address"].split("/")[0] for item in self.result["ips"]]

    def address(self, family: int) -> str:
        return address_of(self.result, family)


@dataclass
class Cluster:
    """Hosts .11, .12, … on one underlay with a store's members at .2, …, which they reach by `family`. Use it with `with`."""

    lab: Lab
    hosts: int = 3
    stores: int = 1
    family: int = 4
    mtu: int = 1500
    session: int = SESSION
    #: What its store's members are started with besides.
    options: Sequence[str] = ()
    kind: type[Node] = Node
    nodes: list[Node] = field(default_factory=list)
    #: Hosts on the wire that are in no cluster.
    spare: list[Node] = field(default_factory=list)
    placed: list[Placed] = field(default_factory=list)
    answers: Answers = field(default_factory=Answers)

    def __post_init__(self) -> None:
        if self.lab.transcript:
            self.lab.transcript.drop()  # which block a host gets first depends on the instant
        self.keepers = [self.lab.add(Namespace(self.lab.name("store"))) for _ in range(self.stores)]
        self.switch = self.lab.underlay(*self.keepers, mtu=self.mtu, first=STORE)
        sh("ip", "-n", self.switch.name, "addr", "add", f"{UNDERLAY[6].format(1)}/64", "dev", "sw0", "nodad")
        for number, keeper in enumerate(self.keepers, STORE):
            self._dual(keeper, number)
        for _ in range(self.hosts):
            self.more()
        addresses = [UNDERLAY[self.family].format(STORE + number) for number in range(self.stores)]
        places = [(it, f"[{at}]" if ":" in at else at) for it, at in zip(self.keepers, addresses, strict=True)]
        self.etcd = Etcd(Path("/run/hosts-etcd") / self.switch.name, places=places, options=self.options)

    def __enter__(self) -> Self:
        self.etcd.__enter__()
        self.answers.__enter__()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.answers.__exit__()
        for node in self.nodes:
            if kind:
                print(f"--- {node.name}\n{node.said()}")
            node.kill()
        self.etcd.__exit__()

    def more(self, machine: str = "") -> Node:
        """One more host, in no cluster yet."""
        number = FIRST + len(self.nodes)
        node = self.lab.add(self.kind(self.lab.name("host"), self.lab.transcript, number=number, machine=machine))
        self.lab.wire(self.switch, node, number, mtu=self.mtu)
        self._dual(node, number)
        self.nodes.append(node)
        return node

    def _dual(self, where: Namespace, number: int) -> None:
        sh("ip", "-n", where.name, "addr", "add", f"{UNDERLAY[6].format(number)}/64", "dev", "eth0", "nodad")

    # --- members

    def join(self, *nodes: Node, wait: bool = True, **options: Any) -> None:
        """Start the members of hosts, all unless it says which; `options` are keys of cluster.json."""
        for node in nodes or self.nodes:
            self.configure(node, **options)
            node.start()
        for node in (nodes or self.nodes) if wait else ():
            assert eventually(lambda node=node: self.joined(node)), node.said()

    def configure(self, host: Node, **options: Any) -> None:
        """Write a host's cluster.json."""
        known = {
            "node": host.name, "etcd": {"endpoints": list(self.etcd.endpoints)}, "vtep": host.underlay(self.family),
            "session": self.session,
        }  # fmt: skip
        (host.etc / "agent-cni/cluster.json").write_text(json.dumps(known | options))

    def joined(self, node: Node) -> bool:
        """Whether a host is in the cluster and nothing troubles its member."""
        member = node.remembered(lambda store: store.member())
        return bool(node.running and member and not (member.trouble or member.no_tunnel) and self.alive(node))

    def alive(self, node: Node) -> bool:
        """Whether the store has heard of a host in the time of a session."""
        return f"{PREFIX}/alive/{node.name}" in self.written()

    def partition(self, *nodes: Node) -> None:
        """Let nothing pass between these hosts and the store; the hosts still reach each other."""
        ends = [node.underlay(family) for node in nodes for family in UNDERLAY]
        rules = "".join(f"add rule inet cut in ip{'6' * (':' in it)} saddr {it} drop\n" for it in ends)
        self.heal()
        chain = "add chain inet cut in { type filter hook input priority 0; }"
        for keeper in self.keepers:
            keeper.run("nft", "-f", "-", input=f"add table inet cut\n{chain}\n{rules}")

    def heal(self) -> None:
        """Let everything pass again."""
        for keeper in self.keepers:
            keeper.run("nft", "delete", "table", "inet", "cut", check=False)

    # --- pods

    def add(self, node: Node, conf: dict[str, Any], **options: Any) -> Placed:
        """A pod on a host, which from now on answers with its name."""
        pod = self.lab.pod()
        placed = Placed(node, pod, conf, self.attached(node, conf, pod, **options))
        self.placed.append(placed)
        self.answers.say(pod)
        return placed

    def attached(self, node: Node, conf: dict[str, Any], pod: Pod, **options: Any) -> dict[str, Any]:
        """What an ADD says, which must succeed; one that is to be tried again (11), as while a block is late, is, as a runtime does."""
        answers: list[Answer] = []

        def said() -> bool:
            answers.append(node.cni("ADD", conf, pod, **options))
            return not answers[-1].code or answers[-1].json["code"] != TryAgainLater.code

        eventually(said)
        return answers[-1].ok()

    def remove(self, placed: Placed, bury: bool = True) -> None:
        """DEL, and the namespace goes with it."""
        placed.host.delete_pod(placed.conf, placed.pod)
        self.forget(placed)
        if bury:
            placed.pod.delete()
            self.lab.made.remove(placed.pod)

    def forget(self, placed: Placed) -> None:
        """A pod that answers no more."""
        self.answers.forget(placed.pod.name)
        self.placed.remove(placed)

    # --- what must be so

    def listing(self) -> list[Item]:
        """All there is in the store."""
        found = within(self.keepers[0], lambda: EtcdStore(self.etcd.config(), self.session).listing())
        assert not found.refused, found.refused
        return list(found.items)

    def written(self) -> list[str]:
        """Every key of ours in the store, but for what networks are like, which outlives all hosts."""
        return [key for key in self._keys() if not key.startswith(f"{PREFIX}/networks/")]

    def _keys(self) -> list[str]:
        return self.etcd.ctl("get", "--prefix", PREFIX, "--keys-only").split()

    def holders(self) -> list[tuple[str, str]]:
        """Who wears which address, those apart who are cut off."""
        lost = {node.name: node.lost() for node in self.nodes}
        return [
            (address, placed.pod.name)
            for placed in self.placed
            for address in placed.addresses
            if not lost[placed.host.name](placed.conf["name"], address)
        ]

    def faults(self, *, asked: int = ASKED) -> list[str]:
        """Whom pods and hosts of the cluster do not reach, or whom they reach instead: everybody asks every pod's addresses."""
        return faults(
            [*(it.pod for it in self.placed), *(it for it in self.nodes if it.wanted)], dict(self.holders()), asked
        )

    def meshed(self, seconds: float = PATIENCE) -> None:
        """Wait until everybody reaches every pod; nobody may ever be answered by another one."""
        last: list[str] = []

        def reached() -> bool:
            last[:] = self.faults(asked=2)
            assert all(line.endswith("no answer") for line in last), last
            return not last

        assert eventually(reached, seconds), last

    def settle(self, nodes: Iterable[Node] = (), seconds: float = PATIENCE) -> None:
        """Wait until the store says of hosts what they say of themselves, and they nothing else."""
        last: list[str] = []

        def settled() -> bool:
            for node in self.nodes:
                node.revive()
            last[:] = self.disagreements(nodes)
            return not last

        assert eventually(settled, seconds), [*last, *(node.said() for node in self.nodes)]

    def disagreements(self, nodes: Iterable[Node] = ()) -> list[str]:
        """Where hosts and the store say different things."""
        items, found = self.listing(), []
        for node in nodes or self.nodes:
            if left := node.unsaid():
                found.append(f"{node.name}: {len(left)} not said, such as {left[0]}")
            theirs = {f"{it.network} {it.span}" for it in items if isinstance(it, Block) and it.node == node.name}
            if (own := node.holdings(HELD)) != theirs:
                found.append(f"{node.name}: holds {sorted(own)}, by the store {sorted(theirs)}")
            said = {f"{it.network} {it.address}" for it in _endpoints(items) if it.node == node.name and it.container}
            if (own := set(node.leases())) != said:
                found.append(f"{node.name}: leases and endpoints differ in {sorted(own ^ said)[:10]}")
        return found

    def duplicates(self) -> list[str]:
        """Addresses that two have: by the hosts' states, by the store, and by the pods themselves."""
        holders: dict[str, set[str]] = defaultdict(set)
        for node in self.nodes:
            for address, container in node.leases().items():
                holders[address].add(f"{container} on {node.name}")
        wearing: dict[str, set[str]] = defaultdict(set)
        for address, pod in self.holders():
            wearing[address].add(pod)
        return [
            f"{address}: {sorted(who)}" for many in (holders, wearing) for address, who in many.items() if len(who) > 1
        ]

    def sound(self, seconds: float = PATIENCE) -> None:
        """What must be so in the end, whatever happened: no address twice, all hosts agree with the store, everybody reached."""
        assert self.duplicates() == []
        self.settle([node for node in self.nodes if node.running], seconds)
        assert self.duplicates() == []
        self.meshed(seconds)

    # --- the end

    def leave(self, *nodes: Node) -> None:
        """Take pods away and leave the cluster, all hosts unless it says which; nothing of them may be left."""
        going = [node for node in nodes or self.nodes if node.wanted]
        for placed in [it for it in self.placed if it.host in going]:
            self.remove(placed)
        for node in going:
            node.run(node.program, "leave")
            node.wanted = False
            if node.member:
                node.member.wait(PATIENCE)
        left = {node.name: found for node in going if (found := self.left(node))}
        assert not left, left

    def left(self, node: Node) -> list[str]:
        """What is left of a host that left: in the store, in its state, in its kernel."""
        found = [key for key in self.written() if node.name in key.split("/")]
        found += [f"{item}" for item in self.listing() if getattr(item, "node", "") == node.name]
        found += [f"state: {what}" for what in (node.holdings(), node.unsaid()) if what]
        if node.remembered(lambda store: store.member()):
            found.append("state: it is still a member")
        links = [
            item
            for item in node.ip("link", "show")
            if item["ifname"] not in ("lo", "eth0", "eth1", "br0", "br1", "br2")
        ]
        found += [f"link {item['ifname']}" for item in links if item.get("linkinfo", {}).get("info_kind") != "vxlan"]
        for link in (item["ifname"] for item in links):
            rows = sh("bridge", "-n", node.name, "fdb", "show", "dev", link).stdout.splitlines()
            found += [f"fdb {link} {row}" for row in rows if " dst " in row]
        for family in (4, 6):
            rows = sh("ip", "-n", node.name, f"-{family}", "neigh", "show", "nud", "permanent").stdout.splitlines()
            found += [f"neighbour {row}" for row in rows]
            known = ("192.0.2.", "fd00:2:", "fe80:", "ff00:", "default", "127.", "::1")
            for route in node.routes(family):
                if not route["dst"].startswith(known) and route.get("protocol") != "kernel":
                    found.append(f"route {route['dst']} dev {route.get('dev')} proto {route.get('protocol')}")
        return found + node.run("nft", "list", "tables").stdout.splitlines()


def _endpoints(items: Iterable[Item]) -> Iterable[Endpoint]:
    return (item for item in items if isinstance(item, Endpoint))
