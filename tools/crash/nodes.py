"""Nodes of one cluster: faults at random, several at a time, while pods come and go; a history of it all, and a judge that reads only that."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from calamity import GROUPS, HOSTS, KERNELS, Befalls
from cluster import Cluster, Node
from comings import Comings
from lab import Lab
from witness import Probing, Witness, Witnessed, witnessed

from crash.history import History, faults
from crash.second import Second
from crash.story import Told

ROOT = Path(__file__).resolve().parents[2]
WHAT = "nodes of a cluster, faults at random and several at a time while pods come and go; a history judged by who reads only that"
HISTORIES = ROOT / ".cache/crash/histories"
#: Commits of earlier releases. The older ones have faults of their own: what they are spared is what they are not up to.
EARLIER, OLDER = ("702ff2b", "c350c73"), ("617a6b9", "60366d0")
SPARED = frozenset({*KERNELS, "the store restored from an older backup"})
#: How often a node's first pod of a network is tried.
TRIED = 20
#: So that the store can be filled, in bytes.
QUOTA = ("--quota-backend-bytes", "16000000")


@dataclass(frozen=True)
class Kind:
    """What a story's nodes are."""

    nodes: int = 5
    rounds: int = 6
    at_once: int = 3
    keys: dict[str, Any] = field(default_factory=dict)
    releases: tuple[str, ...] = ()
    spared: frozenset[str] = frozenset()
    fills: bool = True

    @property
    def groups(self) -> list[dict[str, Befalls]]:
        """What befalls them, of each group one at a time."""
        more = {"a host of another release": self.upgraded} if self.releases else {}
        groups = [group | (more if group is HOSTS else {}) for group in GROUPS]
        left = [{name: it for name, it in group.items() if name not in self.spared} for group in groups]
        return [group for group in left if group]

    def upgraded(self, cluster: Cluster, node: Node, chance: random.Random) -> None:
        """A host gets another release, daemons and all, perhaps an earlier one, and its pods live on."""
        assert isinstance(node, Witnessed)
        with node.busy:
            node.become(chance.choice(("", *self.releases)))
            node.stop()
            node.start()


KINDS = {
    "five nodes": (8, Kind()),
    "two releases": (4, Kind(releases=EARLIER, fills=False)),
    "older releases": (2, Kind(releases=OLDER, spared=SPARED, fills=False)),
    "encrypted": (3, Kind(3, 5, keys={"encryption": "wireguard"})),
    "three nodes": (1, Kind(3, 2, 2, fills=False)),
}
FIXED = ("three nodes 1",)


def stories() -> Iterator[str]:
    """Each kind so many times, every other time with node agents."""
    return (f"{kind} {number}" for kind, (many, _) in KINDS.items() for number in range(1, many + 1))


def tell(story: str, seed: str) -> Told:
    began, (name, _, number) = time.monotonic(), story.rpartition(" ")
    witness, broke = Witness(HISTORIES / f"{story.replace(' ', '-')}-{seed}.jsonl"), list[str]()
    kind = KINDS[name][1]
    with closing(Lab(f"{story} {seed}")) as lab:
        cluster = witnessed(
            lab, witness, warm=bool(int(number) % 2), hosts=kind.nodes + 1, stores=3, options=QUOTA, family=4
        )
        cluster.spare.append(cluster.nodes.pop())
        try:
            with cluster:
                town = Comings(cluster, witness, random.Random(f"{story} {seed}"))
                town.introduce(story, seed)
                _told(town, kind)
        except (AssertionError, OSError) as error:
            broke.append(f"the story broke: {type(error).__name__}: {str(error)[:600]}")
    lines = witness.file.read_text().splitlines()
    history = History(lines)
    found = broke + faults(history, is_over=not broke)
    found += [] if found else [f"the second judge: rule {rule}: {what}" for rule, what in Second(lines).opinion()]
    again = f"make crash-test PARTS=nodes STORIES={story!r} SEED={seed}; its history: {witness.file.relative_to(ROOT)}"
    counts = {
        "calls": sum(1 for _ in history.of("call")),
        "faults": sum(1 for _ in history.of("fault")),
        "questions": sum(len(line["answers"]) for line in history.of("probe")),
        "rounds": sum(1 for _ in history.rests()),
        "seconds": round(time.monotonic() - began),
    }
    return Told(counts, [f"{story}: {line} ({again})" for line in found[:12]])


def _told(town: Comings, kind: Kind) -> None:
    _begin(town, kind)
    for number in range(1, kind.rounds + 1):
        seed = f"{town.chance.random()} {number}"
        with town.churning(seed), Probing(town.cluster, town.witness, seed), ThreadPoolExecutor(kind.at_once) as pool:
            list(pool.map(partial(town.befall, seed), town.chance.sample(kind.groups, kind.at_once)))
        town.rest()
        print(f"{number}/{kind.rounds}: {len(town.cluster.placed)} pods", file=sys.stderr, flush=True)
    for placed in list(town.cluster.placed):
        town.go(placed)
    if kind.fills:
        town.fill()
    town.leave()


def _begin(town: Comings, kind: Kind) -> None:
    """Nodes join, some with another release; each has its part of a network from its first pod on."""
    town.cluster.join(**kind.keys)
    for node in town.cluster.nodes[1::2] if kind.releases else ():
        node.become(town.chance.choice(kind.releases))
        node.stop()
        node.start()
    town.say_policy()
    if kind.fills:
        town.fill()
    for node in town.cluster.nodes:
        for conf in town.confs[:-1]:  # the small one may have no block for a node that never had one
            assert any(town.come(node, conf, town.chance) for _ in range(TRIED)), f"no pod comes to {node.name}"
    town.rest()
