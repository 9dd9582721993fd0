"""What `agent-cni reach` says beside what packets do: pods as a random number has them, something broken, and every kind of question.

World(lab, random) -> breaks -> questions -> said (by reach) | done (by packets) -> differences
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import product
from random import Random
from typing import Any, NamedTuple, Self

from cluster import Cluster, conf
from interception import address_of
from lab import ROOT, Host, Lab, Namespace, eventually, sh
from prober import FAMILIES, _enter

from cni.kernel import listening

#: What is served everywhere, and what nowhere.
OPEN, CLOSED = 80, 99
CALLED = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={}"
KINDS = socket.SOCK_STREAM, socket.SOCK_DGRAM
NODE, OUTSIDE = "node", "outside"
#: How long an answer is waited for, at first and where it is not what was said, in seconds.
SOON, LONG = 1.3, 4.5
#: By which it is known that a packet arrived.
ARRIVED = listening.ANSWERED, listening.REFUSED


class Question(NamedTuple):
    """Who asks whom, by which address and what; `protocol` is tcp, udp or icmp."""

    source: str
    target: str
    address: str
    protocol: str
    port: int

    @property
    def words(self) -> list[str]:
        """As the command line has it."""
        end = f"[{self.address}]" if ":" in self.address else self.address
        port = f":{self.port}" if self.port else ""
        return [self.source if self.source == NODE else f"shop/{self.source}", f"{end}{port}/{self.protocol}"]


class Difference(NamedTuple):
    """A question that packets answer otherwise than `reach`."""

    question: Question
    said: dict[str, Any]
    done: str

    def __str__(self) -> str:
        hops = "".join(f"\n    {hop['where']}: {hop['says']}" for hop in (*self.said["hops"], *self.said["back"]))
        return f"{self.question}: packet {self.done}, reach {self.said['says']}{hops}"


@dataclass
class Traffic:
    """Sockets in namespaces: servers of TCP and UDP at OPEN, and questions. Use it with `with`."""

    _inside: dict[str, ThreadPoolExecutor] = field(default_factory=dict)
    _served: dict[str, list[socket.socket]] = field(default_factory=dict)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name, inside in self._inside.items():
            for one in self._served[name]:
                one.close()
            inside.shutdown()

    def join(self, name: str, where: Namespace, addresses: Iterable[str]) -> None:
        """Serve at addresses of a namespace, and ask from it. A server for any address would answer by another than it was asked at."""
        self._inside[name] = ThreadPoolExecutor(1, initializer=_enter, initargs=(where.path,))
        self._served[name] = (
            self._inside[name]
            .submit(lambda: list(map(_server, *zip(*product(addresses, KINDS), strict=True))))
            .result()
        )

    def done(self, questions: Iterable[Question], seconds: float) -> dict[Question, str]:
        """What becomes of each, all asked at once."""
        asked = {it: self._inside[it.source].submit(_Asking, it).result() for it in questions}
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and (
            waiting := [it for it in asked.values() if not it.outcome]
        ):
            readers = [it.made for it in waiting if it.question.protocol != "tcp"]
            writers = [it.made for it in waiting if it.question.protocol == "tcp"]
            served = [one for every in self._served.values() for one in every]
            ready, writable, _ = select.select([*readers, *served], writers, [], left)
            for one in ready:
                if one in served:
                    _serve(one)
            for it in waiting:
                if it.made in (*ready, *writable):
                    it.hear()
        for it in asked.values():
            it.made.close()
        return {question: it.outcome or listening.SILENT for question, it in asked.items()}


def _server(address: str, kind: int) -> socket.socket:
    one = socket.socket(FAMILIES[6 if ":" in address else 4], kind | socket.SOCK_NONBLOCK)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind((address, OPEN))
    if kind == socket.SOCK_STREAM:
        one.listen(1000)
    return one


def _serve(one: socket.socket) -> None:
    with suppress(OSError):
        if one.type == socket.SOCK_STREAM:
            one.accept()[0].close()
        else:
            mark, sender = one.recvfrom(64)
            one.sendto(mark, sender)


class _Asking:
    """A question that was sent, and its outcome."""

    def __init__(self, question: Question) -> None:
        self.question, self.outcome, self._mark = (
            question,
            "",
            os.urandom(4),
        )  # conntrack knows an echo by its identifier
        family = 6 if ":" in question.address else 4
        self.made = listening._socket(question.protocol, family)
        self.made.setblocking(False)
        try:
            self._send(family)
        except OSError as error:
            self._end(error)

    def _send(self, family: int) -> None:
        protocol, address, port = self.question.protocol, self.question.address, self.question.port
        if protocol == "tcp":
            self.made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            failed = self.made.connect_ex((address, port))
            if failed not in (0, 115):
                raise OSError(failed, "")
            return
        self.made.setsockopt(*listening._ERRORS[family], 1)
        self.made.connect((address, port))
        if protocol == "udp":
            self.made.send(self._mark)
            return
        _, request, _, _ = listening._ECHO[family]
        head = struct.pack("!BBH", request, 0, 0) + self._mark
        self.made.send(struct.pack("!BBH", request, 0, listening._checksum(head)) + self._mark)

    def hear(self) -> None:
        """Take in what came."""
        family = 6 if ":" in self.question.address else 4
        try:
            if self.question.protocol == "tcp":
                failed = self.made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                self.outcome = listening._name(OSError(failed, "")) if failed else listening.ANSWERED
                return
            said = self.made.recv(128)
            at = listening._ECHO[family][3]
            if self.question.protocol == "udp" or (
                said[at] == listening._ECHO[family][2] and said[at + 4 : at + 8] == self._mark
            ):
                self.outcome = listening.ANSWERED
        except OSError as error:
            self._end(error)

    def _end(self, error: OSError) -> None:
        self.outcome = listening._name(error)


#: `agent-cni reach` of many, in one process: a line for each.
REACH = """
import json, sys
from cni.command.main import main
for asked in json.load(sys.stdin):
    main(["reach", "--json", *asked])
    print("\\0")
"""


def said(host: Host, questions: list[Question], *, packet: bool = False) -> dict[Question, dict[str, Any]]:
    """What `agent-cni reach` says of each, by what it knows alone, or with a packet."""
    words = json.dumps([question.words + ["--no-packet"] * (not packet) for question in questions])
    done = host.run(ROOT / ".venv/bin/python3", "-I", "-c", REACH, input=words)
    answers = [json.loads(answer) for answer in done.stdout.split("\0")[:-1]]
    assert len(answers) == len(questions), done.stderr
    for question, answer in zip(questions, answers, strict=True):
        assert isinstance(answer, list), (question, answer, done.stderr)
    return {question: answer[0] for question, answer in zip(questions, answers, strict=True)}


@dataclass
class Member:
    """Somebody who asks and is asked."""

    where: Namespace
    kind: str
    addresses: dict[int, str]
    conf: dict[str, Any] = field(default_factory=dict)


Break = Callable[["World"], "str | None"]


class World:
    """A node, a machine outside on its wire, and pods of random kinds. Use it with `with`."""

    breaks: dict[str, Break]

    def __init__(self, lab: Lab, random: Random) -> None:
        self.lab, self.random, self.broken, self.breaks = lab, random, list[str](), BREAKS
        self.members: dict[str, Member] = {}

    def __enter__(self) -> Self:
        self.traffic = Traffic().__enter__()
        self.build()
        return self

    def __exit__(self, *_: object) -> None:
        self.traffic.__exit__()
        for name, member in self.members.items():
            if member.conf:
                self.host_of(name).cni("DEL", member.conf, member.where, CNI_ARGS=CALLED.format(name))

    def build(self) -> None:
        """Make all of it."""
        site = self.lab.site()
        self.host = site.host
        for name, where, number in ((NODE, site.host, 11), (OUTSIDE, site.outside, 12)):
            self.join(name, Member(where, name, {4: f"192.0.2.{number}", 6: f"fd00:2::{number}"}))
        for family, subnets in ((4, ("10.1.0.0/24", "10.3.0.0/24")), (6, ("fd00:1::/64", "fd00:3::/64"))):
            for subnet in subnets:
                site.outside.run(
                    "ip", f"-{family}", "route", "add", subnet, "via", self.members[NODE].addresses[family]
                )
        self.host.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1", "net.ipv4.ip_forward=1")
        kinds = self.random.choices(
            ["bridge", "isolated", "routed", "shut", "macvlan", "mesh"], [4, 3, 3, 2, 3, 1], k=5
        )
        masquerade = self.random.random() < 0.5
        for number, kind in enumerate(kinds):
            self.attach(f"{kind}{number}", kind, masquerade=masquerade)

    def attach(self, name: str, kind: str, *, masquerade: bool = False) -> None:
        """Attach a pod."""
        net, pod = network(kind, self.random, masquerade=masquerade), self.lab.pod()
        result = self.host_of(name).add(net, pod, CNI_ARGS=CALLED.format(name))
        self.join(name, Member(pod, kind, {family: address_of(result, family) for family in FAMILIES}, net))

    def join(self, name: str, member: Member) -> None:
        """Have somebody ask and be asked."""
        self.members[name] = member
        self.traffic.join(name, member.where, member.addresses.values())

    def host_of(self, name: str) -> Host:
        """Whose pod one is."""
        return self.host

    @property
    def pods(self) -> list[str]:
        """The pods of the node."""
        return [name for name, member in self.members.items() if member.conf and self.host_of(name) is self.host]

    def spoil(self, most: int = 3) -> None:
        """Break something, and say what."""
        self.traffic.done(self.questions(20), 0.3)  # who is known by then is known
        for _ in range(min(self.random.randint(0, most + 1), most)):
            name = self.random.choice(list(self.breaks))
            done = self.breaks[name](self)
            self.broken.append(f"{name} {done or ''}")

    def questions(self, count: int) -> list[Question]:
        """Questions that nothing has answered yet."""
        found: dict[Question, None] = {}
        while len(found) < count:
            source = self.random.choice([*self.pods, *self.pods, NODE])
            target = self.random.choice([it for it in self.members if it != source or source != NODE])
            address = self.random.choice(list(self.members[target].addresses.values()))
            protocol = self.random.choice(["tcp", "tcp", "udp", "icmp"])
            port = self.random.choice([OPEN, OPEN, CLOSED]) if protocol != "icmp" else 0
            found[Question(source, target, address, protocol, port)] = None
        return list(found)

    def compare(self, count: int) -> tuple[int, int, list[Difference]]:
        """How many agree, how many nobody knows, and those that differ."""
        questions = self.questions(count)
        words = said(self.host, questions)
        done = self.traffic.done(questions, SOON)
        again = [it for it in questions if _differ(it, words[it], done[it])]
        done |= self.traffic.done(again, LONG) if again else {}
        differ = [Difference(it, words[it], done[it]) for it in again if _differ(it, words[it], done[it])]
        unknown = sum(answer["state"] == "unknown" for answer in words.values())
        answered = [it for it in questions if it.protocol != "udp" and done[it] in ARRIVED]  # nobody serves meanwhile
        answered = [it for it in answered if "redirected" not in words[it]["says"]]
        proven = said(self.host, self.random.sample(answered, min(5, len(answered))), packet=True)
        faults = {it: any("a fault of agent-cni" in note for note in word["notes"]) for it, word in proven.items()}
        differ += [
            Difference(it, proven[it], done[it]) for it in faults if faults[it] or proven[it]["state"] != "reached"
        ]
        self.unknown = [answer["says"] for answer in words.values() if answer["state"] == "unknown"]
        return count - unknown - len(differ), unknown, differ


def _differ(question: Question, word: dict[str, Any], done: str) -> bool:
    """Whether a packet contradicts what was said; what was refused arrived, unless rules refuse it, or a proxy's own port."""
    if word["state"] == "unknown":
        return False
    reached = done in ARRIVED
    if done == listening.REFUSED and word["state"] != "reached":
        return "redirected" not in word["says"] and "reject" not in word["says"]
    if not reached or word["state"] != "reached":
        return reached is not (word["state"] == "reached")
    return question.protocol != "icmp" and word["expected"]["listens"] is not (done == listening.ANSWERED)


def network(kind: str, random: Random, *, masquerade: bool) -> dict[str, Any]:
    """The configuration of a kind of pod."""
    conf: dict[str, Any] = {"cniVersion": "1.1.0", "name": kind}
    if kind in ("routed", "shut"):
        conf |= {"name": "routed", "type": "custom-plugin"}
        conf["ipam"] = {"ranges": [[{"subnet": "10.3.0.0/24"}], [{"subnet": "fd00:3::/64"}]]}
    elif kind == "macvlan":
        conf |= {"type": "macvlan", "master": "eth0", "hostAccess": random.random() < 0.4}
        four = {
            "subnet": "192.0.2.0/24",
            "rangeStart": "192.0.2.100",
            "rangeEnd": "192.0.2.199",
            "gateway": "192.0.2.1",
        }
        six = {"subnet": "fd00:2::/64", "rangeStart": "fd00:2::100", "rangeEnd": "fd00:2::199"}
        conf["ipam"] = {"ranges": [[four], [six]]}
    else:
        conf |= {"name": "net", "type": "bridge-vxlan", "bridge": "br0", "isDefaultGateway": True}
        conf["ipam"] = {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]}
        conf |= {"ipMasq": masquerade, "portIsolation": random.random() < 0.2}
    if kind in ("isolated", "shut") or (kind == "macvlan" and random.random() < 0.5):
        conf["policy"] = policy(random)
    if kind == "mesh":
        conf["sidecar"] = {"excludeOutboundPorts": [CLOSED]}
    return conf


def policy(random: Random) -> dict[str, Any]:
    """A section of rules."""
    cidrs = ["10.0.0.0/8", "10.1.0.0/24", "10.3.0.0/24", "192.0.2.0/24", "fd00::/16", "fd00:1::/64", "fd00:3::/64"]
    section: dict[str, Any] = {"hostAccess": random.random() < 0.5, "antiSpoof": random.random() < 0.7}
    for direction, side in (("ingress", "from"), ("egress", "to")):
        if random.random() < 0.6:
            rules = []
            for _ in range(random.randint(0, 2)):
                rule: dict[str, Any] = {}
                if random.random() < 0.8:
                    rule[side] = [{"ipBlock": {"cidr": it}} for it in random.sample(cidrs, random.randint(1, 2))]
                if random.random() < 0.5:
                    rule["ports"] = [
                        {"port": random.choice([OPEN, CLOSED]), "protocol": random.choice(["TCP", "TCP", "UDP"])}
                    ]
                rules.append(rule)
            section[direction] = rules
    return section


# --- what breaks


def _pod(world: World) -> tuple[str, Member]:
    name = world.random.choice(world.pods)
    return name, world.members[name]


def _family(world: World) -> int:
    return world.random.choice([4, 6])


def route_gone(world: World) -> str:
    name, member = _pod(world)
    family = _family(world)
    routes = [it for it in member.where.routes(family) if not it["dst"].startswith("fe80")]
    if not routes:
        return "nothing"
    dst = world.random.choice(routes)["dst"]
    member.where.run("ip", f"-{family}", "route", "del", dst)
    return f"{name} {dst}"


def link_down(world: World) -> str:
    name, member = _pod(world)
    member.where.run("ip", "link", "set", "eth0", "down")
    return name


def address_gone(world: World) -> str:
    name, member = _pod(world)
    family = _family(world)
    held = [it for it in member.where.addresses("eth0") if (":" in it) is (family == 6)]
    for address in held:
        member.where.run("ip", "addr", "del", address, "dev", "eth0")
    return f"{name} {held}"


def neighbour_wrong(world: World) -> str:
    """In a pod, of its gateway or of another pod; or of a pod on the node."""
    name, member = _pod(world)
    other = world.members[world.random.choice(world.pods)]
    address = other.addresses[_family(world)]
    where: Namespace = member.where
    link = "eth0"
    if world.random.random() < 0.4:
        where = world.host_of(name)
        way = json.loads(where.run("ip", "-j", "route", "get", address).stdout)
        link = way[0].get("dev", "lo")
    where.run(
        "ip", "neigh", "replace", address, "lladdr", "02:00:00:00:00:77", "dev", link, "nud", "permanent", check=False
    )
    return f"{where.name} {address} dev {link}"


def _host_end(world: World, member: Member) -> str:
    """The node's end of a pod's link, or nothing."""
    item = member.where.link("eth0")
    if not item or "link_index" not in item or item.get("linkinfo", {}).get("info_kind") != "veth":
        return ""
    return next((it["ifname"] for it in world.host.ip("link", "show") if it["ifindex"] == item["link_index"]), "")


def host_end_down(world: World) -> str:
    name, member = _pod(world)
    if end := _host_end(world, member):
        world.host.run("ip", "link", "set", end, "down")
    return f"{name} {end}"


def host_end_unplugged(world: World) -> str:
    name, member = _pod(world)
    if end := _host_end(world, member):
        world.host.run("ip", "link", "set", end, "nomaster")
    return f"{name} {end}"


def host_end_isolated(world: World) -> str:
    name, member = _pod(world)
    if end := _host_end(world, member):
        world.host.run("bridge", "link", "set", "dev", end, "isolated", "on", check=False)
    return f"{name} {end}"


def fdb_wrong(world: World) -> str:
    """A pod's MAC behind another's port."""
    name, member = _pod(world)
    end = _host_end(world, world.members[world.random.choice(world.pods)])
    mac = (member.where.link("eth0") or {}).get("address", "")
    if end:
        world.host.run("bridge", "fdb", "replace", mac, "dev", end, "master", "static", check=False)
    return f"{name} {mac} {end}"


def no_forwarding(world: World) -> str:
    key = world.random.choice(["net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0"])
    world.host.run("sysctl", "-qw", key)
    return key


def source_filter(world: World) -> str:
    name, member = _pod(world)
    where = world.random.choice([world.host, member.where])
    key = f"net.ipv4.conf.{world.random.choice(['all', 'eth0'])}.rp_filter={world.random.choice([1, 1, 2])}"
    where.run("sysctl", "-qw", key)
    return f"{where.name} {name} {key}"


def silent_echo(world: World) -> str:
    name, member = _pod(world)
    member.where.run("sysctl", "-qw", "net.ipv4.icmp_echo_ignore_all=1")
    return name


def rules_flushed(world: World) -> str:
    name, member = _pod(world)
    where = world.random.choice([world.host, world.host, member.where])
    where.run("nft", "flush", "ruleset")
    return f"{where.name} {name}"


def a_table_gone(world: World) -> str:
    tables = world.host.run("nft", "list", "tables").stdout.split("\n")[:-1]
    if tables:
        world.host.run("nft", "delete", *(table := world.random.choice(tables)).split())
        return table
    return "none"


def a_set_emptied(world: World) -> str:
    listed = json.loads(world.host.run("nft", "-j", "list", "maps").stdout)["nftables"]
    maps = [item["map"] for item in listed if "map" in item]
    if maps:
        it = world.random.choice(maps)
        world.host.run("nft", "flush", "map", it["family"], it["table"], it["name"])
        return it["name"]
    return "none"


def _foreign(world: World, where: Namespace) -> str:
    hook = world.random.choice(["input", "output", "forward"])
    rule = world.random.choice(
        [
            f"tcp dport {OPEN} drop",
            f"udp dport {{ {OPEN}, {CLOSED} }} drop",
            "ip saddr 10.1.0.0/24 drop",
            "meta l4proto { icmp, ipv6-icmp } icmpv6 type echo-request drop",
            "ip protocol icmp drop",
            "ct state new drop",
            "ct state established,related drop",
            "iifname br0 drop",
            f"tcp dport {CLOSED} reject",
        ]
    )
    chain = f"type filter hook {hook} priority {world.random.choice([-10, 0, 10])};"
    table = f"inet foreign{len(world.broken)}"
    where.run("nft", f"add table {table}; add chain {table} c {{ {chain} }}; add rule {table} c {rule}")
    return f"{where.name} {hook} {rule}"


def foreign_rule(world: World) -> str:
    _, member = _pod(world)
    return _foreign(world, world.random.choice([world.host, world.host, member.where]))


def foreign_iptables(world: World) -> str:
    """As Docker and firewalls have it."""
    program = world.random.choice(["iptables-nft", "iptables-legacy", "ip6tables-nft"])
    rule = world.random.choice(
        [
            "-P FORWARD DROP",
            f"-A FORWARD -p tcp -m tcp --dport {OPEN} -j DROP",
            "-A INPUT -m conntrack --ctstate NEW -j DROP",
            "-A FORWARD -i br0 ! -o br0 -j DROP",
            f"-A OUTPUT -p udp -m multiport --dports {OPEN},{CLOSED} -j DROP",
        ]
    )
    if "ip6" in program and "icmp" in rule:
        rule = "-P FORWARD DROP"
    world.host.run(program, *rule.split())
    return f"{program} {rule}"


def bridge_down(world: World) -> str:
    world.host.run("ip", "link", "set", "br0", "down", check=False)
    return "br0"


def gateway_gone(world: World) -> str:
    world.host.run("ip", "addr", "del", "10.1.0.1/24", "dev", "br0", check=False)
    return "10.1.0.1"


def host_route_gone(world: World) -> str:
    _, member = _pod(world)
    address = member.addresses[_family(world)]
    world.host.run("ip", f"-{6 if ':' in address else 4}", "route", "del", address, check=False)
    return address


def uplink_down(world: World) -> str:
    world.host.run("ip", "link", "set", "eth0", "down")
    return "eth0"


BREAKS: dict[str, Break] = {
    function.__name__: function
    for function in (
        route_gone, link_down, address_gone, neighbour_wrong, host_end_down, host_end_unplugged, host_end_isolated, fdb_wrong,
        no_forwarding, source_filter, silent_echo, rules_flushed, a_table_gone, a_set_emptied, foreign_rule, foreign_iptables,
        bridge_down, gateway_gone, host_route_gone, uplink_down,
    )
}  # fmt: skip


class Overlay(World):
    """Two hosts of a cluster, in a mode of its network; the first is asked. Its member sleeps once something is broken: it would mend it."""

    def __init__(self, lab: Lab, random: Random, mode: str) -> None:
        super().__init__(lab, random)
        self.mode, self._held = mode, ExitStack()
        self.breaks = {
            it: BREAKS[it] for it in ("link_down", "neighbour_wrong", "no_forwarding", "foreign_rule", "uplink_down")
        }
        self.breaks |= {it.__name__: it for it in (tunnel_row_gone, tunnel_down, neighbour_gone, tunnel_route_gone)}

    def __exit__(self, *_: object) -> None:
        for node in self.cluster.nodes:
            with suppress(ProcessLookupError):
                node.go_on()
        super().__exit__()
        self._held.close()

    def build(self) -> None:
        self.cluster = self._held.enter_context(Cluster(self.lab, hosts=2))
        self.cluster.join()
        self.host = self.cluster.nodes[0]
        self.join(NODE, Member(self.host, NODE, {family: self.host.underlay(family) for family in FAMILIES}))
        for number in range(4):
            self.attach(f"{'far' if number % 2 else 'near'}{number}", self.mode)
        far = [Question(NODE, name, address, "icmp", 0) for name, member in self.members.items() if name.startswith("far")
               for address in member.addresses.values()]  # fmt: skip
        assert eventually(lambda: set(self.traffic.done(far, SOON).values()) == {listening.ANSWERED})
        self.cluster.nodes[0].pause()

    def attach(self, name: str, kind: str, *, masquerade: bool = False) -> None:
        closed = {"policy": policy(self.random)} if self.random.random() < 0.3 and name.startswith("near") else {}
        net, pod = conf(kind, **closed), self.lab.pod()
        result = self.cluster.attached(self.host_of(name), net, pod, CNI_ARGS=CALLED.format(name))
        self.join(name, Member(pod, kind, {family: address_of(result, family) for family in FAMILIES}, net))

    def host_of(self, name: str) -> Host:
        return self.cluster.nodes[1 if name.startswith("far") else 0]


def _far(world: World) -> tuple[str, Member]:
    name = world.random.choice([name for name in world.members if name.startswith("far")])
    return name, world.members[name]


def _tunnel(world: World) -> str:
    return next(it["ifname"] for it in world.host.ip("link", "show", "type", "vxlan"))


def tunnel_row_gone(world: World) -> str:
    """Of a pod elsewhere, or of the host it is on."""
    name, _ = _far(world)
    rows = json.loads(sh("bridge", "-n", world.host.name, "-j", "fdb", "show", "dev", _tunnel(world)).stdout)
    row = world.random.choice([row for row in rows if "dst" in row] or [{}])
    if row:
        world.host.run(
            "bridge", "fdb", "del", row["mac"], "dev", _tunnel(world), "dst", row["dst"], "self", check=False
        )
    return f"{name} {row.get('mac', 'none')}"


def tunnel_down(world: World) -> str:
    world.host.run("ip", "link", "set", _tunnel(world), "down")
    return _tunnel(world)


def neighbour_gone(world: World) -> str:
    _, member = _far(world)
    address = member.addresses[_family(world)]
    for link in ("br0", _tunnel(world)):
        world.host.run("ip", "neigh", "del", address, "dev", link, check=False)
    return address


def tunnel_route_gone(world: World) -> str:
    family = _family(world)
    routes = [it["dst"] for it in world.host.routes(family) if it.get("dev") == _tunnel(world)]
    if routes:
        world.host.run("ip", f"-{family}", "route", "del", routes[0], "dev", _tunnel(world))
    return str(routes[:1])
