"""Calls that are killed at each of their effects, and what a runtime may do next."""

from __future__ import annotations

import copy
import itertools
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from cluster import Cluster
from effects import AFTER, BEFORE, DURING
from killing import SYSCALLS, Node
from lab import Lab, Pod

from crash.afterwards import THEN, Kill
from crash.chains import FED_NETWORKS, NETWORKS, SHARED_NETWORKS, say
from crash.several import several, several_stories
from crash.sharing import joined, leaves
from crash.story import Told
from crash.trial import Trial

WHAT = "each effect of a call, SIGKILL before and after it, and while a program runs; several of these, one after the other or at once"
FIXED = ("ADD bridge-vxlan warm", "DEL bridge-vxlan warm")

#: What is put right by a command; an IPAM makes nothing that could be hurt.
_REPAIR = ("repair", "--all", "--conf-dir", "/nowhere")
_COMMANDS = {"hurt": _REPAIR, "lost": _REPAIR, "flushed": _REPAIR, "refresh": ("refresh",)}
_MODES = ("cold", "warm", "served", "traced")
_OF_COMMANDS = ("cold", "traced")


def stories() -> Iterator[str]:
    for verb, name, mode in itertools.product(THEN, NETWORKS, _MODES):
        if verb == "GC" and NETWORKS[name][-1].get("cniVersion", "1.1.0") < "1.1.0":
            continue
        if verb not in _COMMANDS or (verb != "refresh" and mode in _OF_COMMANDS and name != "agent-ipam"):
            yield f"{verb} {name} {mode}"
    yield from (f"refresh {name} {mode}" for name in FED_NETWORKS for mode in _OF_COMMANDS)
    yield from (" ".join(said) for said in itertools.product(("ADD", "DEL", "GC"), SHARED_NETWORKS, _MODES))
    yield from (f"leave {name} cold" for name in SHARED_NETWORKS)
    yield from several_stories()


def tell(story: str, seed: str) -> Told:
    verb, name, mode = story.split()
    lab = Lab(story)
    counts: Counter[str] = Counter()
    faults: list[str] = []
    say(changed=False)
    with ExitStack() as held:
        held.callback(lab.close)
        orders = Path(held.enter_context(tempfile.TemporaryDirectory()))
        chain = copy.deepcopy((NETWORKS | FED_NETWORKS | SHARED_NETWORKS)[name])
        try:
            cluster = joined(held.enter_context(Cluster(lab, 2)), chain[0]) if name in SHARED_NETWORKS else None
            if cluster and verb == "leave":
                faults += (f"{story}, {it}" for it in leaves(cluster, chain[0], orders, counts))
                return Told(dict(counts), faults)
            node = Node(lab, chain, mode == "warm", orders, cluster.nodes[0] if cluster else None)
            astray = cluster.disagreements if cluster else list
            one = Story(node, counts, astray, verb, zlib.crc32(seed.encode()), mode)
            found = one.run() if verb in THEN else several(node, counts, astray, verb, f"{story} {seed}")
            faults += (f"{story}, {it} (make crash-test PARTS=killed STORIES='{story}' SEED={seed})" for it in found)
        except AssertionError as error:
            faults.append(f"{story} could not be told to its end: {error}")
    return Told(dict(counts), faults)


@dataclass
class Story(Trial):
    """One verb of one network, killed at each of its effects, or system calls."""

    verb: str
    offset: int
    mode: str
    last: str = ""

    def run(self) -> Iterator[str]:
        """Each fault."""
        if self.verb == "FIRST":
            neighbour = self.node.lab.pod()
            self.settle()
            before = self.seen(neighbour)
        else:
            neighbour, before = self.begun()
        turns = itertools.count(self.offset)
        for axis, step in SYSCALLS.items() if self.mode in ("served", "traced") else [("", 1)]:
            for number, when in self._places(axis, step):
                then = THEN[self.verb][next(turns) % len(THEN[self.verb])]
                with self.pods(1 + (self.verb == "GC")) as pods:
                    kill = self._kill(pods, neighbour, number, when)
                    self.last = kill.call.last
                    if not self.last:
                        for pod in pods:
                            assert not (wrong := self.node.delete(pod)), wrong
                        continue
                    self.counts["kills"] += 1
                    self.counts["system calls" if axis else "effects"] += when in (axis, BEFORE)
                    found = self.follows(kill, then)
                    if self.verb == "FIRST":
                        self.settle()
                    found += self.left(neighbour, before)
                if found:
                    yield f"killed {when} {number} ({self.last}), then {then.__name__}: {'; '.join(found)}"
                    before = self.seen(neighbour)

    def _places(self, axis: str, step: int) -> Iterator[tuple[int, str]]:
        """Where a call is to be killed, one after the other. Whoever is not had less than that, and this is the end."""
        self.last = "its beginning"
        for number in itertools.count(1 + self.offset % step, step):
            for when in (axis,) if axis else (BEFORE, AFTER):
                yield number, when
                if not self.last:
                    return
            for _ in THEN[self.verb] if " run " in self.last and not axis else ():
                yield number, DURING

    def _kill(self, pods: list[Pod], neighbour: Pod, number: int, when: str) -> Kill:
        node, pod = self.node, pods[0]
        if self.verb == "FIRST":
            node.wipe()
        for item in pods:
            wrong = node.add(item, last=-1 if self.verb in ("ADD", "FIRST") else 0)
            assert not wrong, wrong
        way = {"served": node.served, "traced": node.traced}.get(self.mode, node.killed)
        if self.verb in _COMMANDS:
            _HURTS[self.verb](node, pod)
            command = node.traced_command if self.mode == "traced" else node.killed_command
            call = command(number, when, *_COMMANDS[self.verb])
        elif self.verb == "GC":
            valid = {"cni.dev/valid-attachments": [{"containerID": neighbour.container, "ifname": "eth0"}]}
            call = way("GC", None, number, when, valid)
        else:
            call = way(self.verb.replace("FIRST", "ADD"), pod, number, when)
        return Kill(node, pod, neighbour, call, tuple(pods[1:]))


def _hurt(node: Node, pod: Pod) -> None:
    """Take away what is of a pod, and the rules of all."""
    pod.run("ip", "addr", "flush", "dev", "eth0")
    pod.run("nft", "flush", "ruleset")
    for table in node.host.run("nft", "list", "tables").stdout.splitlines():
        node.host.run("nft", "flush", *table.split())


def _flush(node: Node, pod: Pod) -> None:
    """Take away all tables, as who starts a firewall anew."""
    node.host.run("nft", "flush", "ruleset")


def _lose(node: Node, pod: Pod) -> None:
    pod.run("ip", "link", "del", "eth0")


def _change(node: Node, pod: Pod) -> None:
    say(changed=True)


_HURTS: dict[str, Callable[[Node, Pod], None]] = {"hurt": _hurt, "flushed": _flush, "lost": _lose, "refresh": _change}
