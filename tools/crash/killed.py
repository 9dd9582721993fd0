"""Calls that are killed at each of their effects, and what a runtime may do next."""

from __future__ import annotations

import copy
import itertools
import tempfile
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from effects import AFTER, BEFORE, DURING
from killing import SYSCALLS, Killed, Node, Seen, differences, inside
from lab import REFERENCE_DIR, Lab, Pod, eventually

from crash.story import Told

WHAT = "each effect of a call, SIGKILL before and after it, and while a program runs"
FIXED = ("ADD bridge-vxlan warm", "DEL bridge-vxlan warm")

RANGES = [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]
SPAN = {"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.100", "rangeEnd": "192.0.2.199", "gateway": "192.0.2.1"}
POLICY = {"policy": {"ingress": ["10.0.0.0/8"], "egress": ["0.0.0.0/0", "::/0"]}}
PLAIN = {"type": "bridge-vxlan", "bridge": "br0", "isGateway": True, "ipam": {"subnet": "10.1.0.0/24"}}
DUAL = PLAIN | {"isDefaultGateway": True, "ipam": {"ranges": RANGES}}
VXLAN = {"vxlan": {"id": 9, "remotes": ["192.0.2.12"]}}
NFT, IPTABLES = {"ipMasq": True, "ipMasqBackend": "nftables"}, {"ipMasq": True, "ipMasqBackend": "iptables"}
FOREIGN = {
    "cniVersion": "1.0.0",
    "ipam": {"type": "host-local", "subnet": "10.1.0.0/24", "dataDir": "/run/agent-cni/host-local"},
}  # speaks no later version
NETWORKS: dict[str, tuple[dict[str, Any], ...]] = {
    "bridge-vxlan": (PLAIN,),
    "bridge-vxlan-full": (DUAL | VXLAN | NFT | POLICY,),
    "bridge-vxlan-iptables": (DUAL | IPTABLES | {"sidecar": {}},),
    "bridge-vxlan-names": (DUAL | {"names": {"domain": "killed.test"}},),
    "bridge-vxlan-foreign": (PLAIN | NFT | FOREIGN,),
    "macvlan": ({"type": "macvlan", "master": "eth0", "hostAccess": True, "ipam": SPAN} | POLICY,),
    "custom-plugin": ({"type": "custom-plugin", "ipam": {"ranges": RANGES}} | NFT | POLICY,),
    "custom-plugin-tproxy": ({"type": "custom-plugin", "ipam": {"ranges": RANGES}, "sidecar": {"mode": "tproxy"}},),
    "chained-policy": (DUAL, {"type": "custom-plugin"} | POLICY),
    "chained-sidecar": (DUAL, {"type": "sidecar-redirect"}),
    "agent-ipam": ({"type": "agent-ipam", "ipam": {"type": "agent-ipam", "ranges": RANGES}},),
}
EDITED: dict[str, Any] = {"bridge": "br9", "ipam": {"subnet": "10.99.0.0/24"}}


@dataclass
class Kill:
    """A pod one of whose calls was killed, beside a neighbour."""

    node: Node
    pod: Pod
    neighbour: Pod
    call: Killed
    others: tuple[Pod, ...] = ()
    found: list[str] = field(default_factory=list)

    def must(self, wrong: str) -> None:
        """Note what was wrong with what follows, if anything was."""
        if wrong:
            self.found.append(wrong)


def again(kill: Kill) -> None:
    """The runtime repeats the ADD, and has what it asked for."""
    whole, last = kill.node.is_complete(kill.pod), len(kill.node.chain) - 1
    if wrong := kill.node.add(kill.pod, first=last):
        kill.must("" if whole and '"code": 105' in wrong else wrong)
    else:
        kill.must(kill.node.check(kill.pod))
    here, there = (set(it.addresses("eth0")) if it.link("eth0") else set() for it in (kill.pod, kill.neighbour))
    kill.must(f"an address twice: {here & there}" if here & there else "")
    kill.must(kill.node.delete(kill.pod))


def deleted(kill: Kill) -> None:
    """It gives up, and says nothing of a result."""
    kill.must(kill.node.delete(kill.pod, previous=False))


def deleted_fully(kill: Kill) -> None:
    """It gives up, and says what it knows."""
    kill.must(kill.node.delete(kill.pod))


def deleted_unnamed(kill: Kill) -> None:
    """It does not say where the namespace is, which is there."""
    kill.must(kill.node.delete(kill.pod, CNI_NETNS=""))


def deleted_edited(kill: Kill) -> None:
    """Its configuration is another by now."""
    kill.must(kill.node.delete(kill.pod, edit=EDITED))


def deleted_gone(kill: Kill) -> None:
    """The namespace is gone."""
    kill.pod.delete()
    kill.must(kill.node.delete(kill.pod, previous=False))


def deleted_replaced(kill: Kill) -> None:
    """Another namespace is at the same path, with a link of that name."""
    kill.pod.delete()
    kill.pod.create()
    kill.pod.run("ip", "link", "add", "eth0", "type", "bridge")
    kill.pod.run("ip", "addr", "add", "10.1.0.77/24", "dev", "eth0")
    before = inside(kill.pod)
    kill.must(kill.node.delete(kill.pod, previous=False))
    after = inside(kill.pod)
    kill.must(f"another's namespace was changed: {before ^ after}" if before != after else "")


def collected(kill: Kill) -> None:
    """Nothing but the neighbour is valid. There is no GC before 1.1.0."""
    again = kill.node.delete if kill.node.chain[-1]["cniVersion"] < "1.1.0" else None
    kill.must(again(kill.pod) if again else kill.node.collect(kill.neighbour))


def swept(kill: Kill) -> None:
    """An operator takes away what is of no namespace any more."""
    for pod in (kill.pod, *kill.others):
        pod.delete()
    kill.must(kill.node.command("gc", "--cni-path", str(REFERENCE_DIR)))


def elsewhere(kill: Kill) -> None:
    """The pod is made anew under its path, and attached. An IPAM plugin does not look at namespaces."""
    if kill.node.chain[-1]["type"] == "agent-ipam":
        kill.must(kill.node.delete(kill.pod))
    kill.pod.delete()
    kill.pod.create()
    kill.node.results.pop(kill.pod.name, None)
    kill.must(kill.node.add(kill.pod) or kill.node.check(kill.pod))
    kill.must(kill.node.delete(kill.pod))


def checked(kill: Kill) -> None:
    """What was not to be changed is as it was."""
    kill.must(kill.node.check(kill.pod))
    kill.must(kill.node.delete(kill.pod))


def mended(kill: Kill) -> None:
    """The repair is repeated, and nothing is wrong any more."""
    kill.must(kill.node.command("repair", "--all", "--conf-dir", "/nowhere"))
    kill.must(kill.node.check(kill.pod) or kill.node.check(kill.neighbour))
    kill.must(kill.node.delete(kill.pod))


def given_up(kill: Kill) -> None:
    """The pod is deleted half repaired; the neighbour is repaired."""
    kill.must(kill.node.delete(kill.pod))
    kill.must(kill.node.command("repair", "--all", "--conf-dir", "/nowhere"))
    kill.must(kill.node.check(kill.neighbour))


#: How long a program stands still whose call is dead, in seconds: what follows would be over by then if nobody waited for it.
_ASLEEP = 1.5
Then = Callable[[Kill], None]
ENDS: tuple[Then, ...] = (
    deleted,
    deleted_gone,
    deleted_replaced,
    deleted_unnamed,
    deleted_edited,
    collected,
    swept,
    deleted_fully,
)
THEN: dict[str, tuple[Then, ...]] = {
    "ADD": (again, *ENDS[:3], elsewhere, *ENDS[3:]),
    "FIRST": (again, *ENDS[:2], elsewhere, collected),
    "DEL": (again, *ENDS[:3], elsewhere, *ENDS[3:]),
    "CHECK": (checked, *ENDS),
    "GC": (*ENDS,),
    "hurt": (mended, given_up),
    "lost": (mended, given_up),
}
#: What is repaired, by the command; an IPAM makes nothing that could be hurt.
_REPAIRED = ("hurt", "lost")


def stories() -> Iterator[str]:
    for verb, name, mode in itertools.product(THEN, NETWORKS, ("cold", "warm", "traced")):
        if verb == "GC" and NETWORKS[name][-1].get("cniVersion", "1.1.0") < "1.1.0":
            continue
        if verb not in _REPAIRED or (mode == "cold" and name != "agent-ipam"):
            yield f"{verb} {name} {mode}"


def tell(story: str, seed: str) -> Told:
    verb, name, mode = story.split()
    lab = Lab(story)
    counts: Counter[str] = Counter()
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as orders:
        node = Node(lab, copy.deepcopy(NETWORKS[name]), mode == "warm", Path(orders))
        try:
            found = Story(node, verb, zlib.crc32(seed.encode()), counts, mode == "traced").run()
            faults += (f"{story}, {it} (make crash-test PARTS=killed STORIES='{story}' SEED={seed})" for it in found)
        except AssertionError as error:
            faults.append(f"{story} could not be told to its end: {error}")
        finally:
            lab.close()
    return Told(dict(counts), faults)


@dataclass
class Story:
    """One verb of one network."""

    node: Node
    verb: str
    offset: int
    counts: Counter[str]
    traced: bool
    last: str = ""

    def run(self) -> Iterator[str]:
        """Each fault."""
        neighbour = self.node.lab.pod()
        if self.verb != "FIRST":
            assert not (wrong := self.node.add(neighbour)), wrong
        self._settle()
        before, turns = self._seen(neighbour), itertools.count(self.offset)
        for axis in SYSCALLS if self.traced else ("",):
            for number, when in self._places(axis):
                then = THEN[self.verb][next(turns) % len(THEN[self.verb])]
                with self._pods() as pods:
                    kill = self._kill(pods, neighbour, number, when)
                    self.last = kill.call.last
                    if not self.last:
                        for pod in pods:
                            assert not (wrong := self.node.delete(pod)), wrong
                        continue
                    self.counts["kills"] += 1
                    self.counts["system calls" if axis else "effects"] += when in (axis, BEFORE)
                    wrong = list(self._judged(kill, then, before))
                if wrong:
                    yield f"killed {when} {number} ({self.last}), then {then.__name__}: {'; '.join(wrong)}"
                    before = self._seen(neighbour)

    def _places(self, axis: str) -> Iterator[tuple[int, str]]:
        """Where a call is to be killed, one after the other. Whoever is not had less than that, and this is the end."""
        self.last = "its beginning"
        for number in itertools.count(1):
            for when in (axis,) if axis else (BEFORE, AFTER):
                yield number, when
                if not self.last:
                    return
            for _ in THEN[self.verb] if " run " in self.last and not axis else ():
                yield number, DURING

    @contextmanager
    def _pods(self) -> Iterator[list[Pod]]:
        """Pods that a kill is about."""
        lab, pods = self.node.lab, [self.node.lab.pod() for _ in range(1 + (self.verb == "GC"))]
        yield pods
        for pod in pods:
            pod.delete()
            lab.made.remove(pod)

    def _settle(self) -> None:
        """What the first pod of a network makes and nobody takes away is there."""
        with self._pods() as pods:
            for pod in pods:
                assert not (wrong := self.node.add(pod) or self.node.delete(pod)), wrong

    def _seen(self, neighbour: Pod) -> Seen:
        reached = {
            item
            for item in neighbour.addresses("eth0")
            if neighbour.link("eth0") and self.node.host.pings(item.split("/")[0], 2)
        }
        return self.node.seen(neighbour) | {"reached": reached}

    def _kill(self, pods: list[Pod], neighbour: Pod, number: int, when: str) -> Kill:
        node, pod = self.node, pods[0]
        if self.verb == "FIRST":
            node.wipe()
        for item in pods:
            wrong = node.add(item, last=-1 if self.verb in ("ADD", "FIRST") else 0)
            assert not wrong, wrong
        if self.verb in _REPAIRED:
            _HURTS[self.verb](node, pod)
            call = node.killed_command(number, when, "repair", "--all", "--conf-dir", "/nowhere")
        elif self.verb == "GC":
            valid = {"cni.dev/valid-attachments": [{"containerID": neighbour.container, "ifname": "eth0"}]}
            call = (node.traced if self.traced else node.killed)("GC", None, number, when, valid)
        else:
            call = (node.traced if self.traced else node.killed)(self.verb.replace("FIRST", "ADD"), pod, number, when)
        return Kill(node, pod, neighbour, call, tuple(pods[1:]))

    def _judged(self, kill: Kill, then: Then, before: Seen) -> Iterable[str]:
        asleep = _ASLEEP
        if then in (collected, swept):  # who collects waits for nobody, and comes again
            self.node.wake(kill.call)
            asleep = 0
        waking = threading.Timer(asleep, self.node.wake, [kill.call])
        waking.start()
        then(kill)
        for pod in kill.others:
            kill.must(self.node.delete(pod, previous=False))
        waking.join()
        if self.verb == "FIRST":
            self._settle()
        left: list[str] = []

        def same() -> bool:
            left[:] = differences(before, self._seen(kill.neighbour))
            return not left

        eventually(same, 3)
        return kill.found + left[:6]


def _hurt(node: Node, pod: Pod) -> None:
    """Take away what is of a pod, and the rules of all; with its tables nobody would know any more what was ours."""
    pod.run("ip", "addr", "flush", "dev", "eth0")
    pod.run("nft", "flush", "ruleset")
    for table in node.host.run("nft", "list", "tables").stdout.splitlines():
        node.host.run("nft", "flush", *table.split())


def _lose(node: Node, pod: Pod) -> None:
    pod.run("ip", "link", "del", "eth0")


_HURTS = {"hurt": _hurt, "lost": _lose}
