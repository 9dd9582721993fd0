"""A host's member killed, or refused, at each of its effects: writes to the store, its state, the kernel; other hosts are undisturbed beside it."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import effects
from cluster import Cluster, Node, Placed, conf
from lab import AGENT_CNI, Lab, eventually, sh
from shop import DENY, FROM_FRIEND, NAMED
from town import serving
from traffic import TIMED_OUT, Actor

from crash.ordered import DOORS, told, undesigned
from crash.story import Told

#: By which a member writes and speaks, and at how many of them a story has it killed.
CALLS = ("sendto", "sendmsg", "pwrite64", "write", "rename", "unlink", "fdatasync", "openat", "connect")
STRUCK = 5


class Town:
    """Three hosts held by one document; `web`, which only a friend reaches, is to be on the first, whose member is tried."""

    def __init__(self, cluster: Cluster, mode: str, held: ExitStack) -> None:
        self.cluster, self._held, self.tried = cluster, held, cluster.nodes[0]
        self.conf = conf(mode, families="4", block=16, policy={"cluster": True})
        self._actors: dict[str, Actor] = {}
        self.placed: dict[str, Placed] = {}
        cluster.join(*cluster.nodes[1:])
        self.say(DENY, FROM_FRIEND, *(pod(app) for app in ("web", "friend", "stranger")))
        self.attach("friend", cluster.nodes[1])
        self.attach("stranger", cluster.nodes[2])

    def say(self, *documents: dict[str, Any]) -> None:
        file = Path("/run/documents.json")
        file.write_text(json.dumps({"kind": "List", "apiVersion": "v1", "items": list(documents)}))
        self.cluster.nodes[1].run(AGENT_CNI, "policy", "apply", file)

    def attach(self, app: str, node: Node) -> None:
        self.placed[app] = self.cluster.add(node, self.conf, CNI_ARGS=NAMED + app)
        actor = Actor(self.placed[app].pod)
        self._actors[app] = serving(self._held.enter_context(actor))

    def detach(self, app: str) -> None:
        self._actors.pop(app).__exit__(None, None, None)
        self.cluster.remove(self.placed.pop(app))

    def gets_in(self, who: str) -> bool:
        return bool(self._actors[who].connect(self.placed["web"].address(4), 80) != TIMED_OUT)

    def soon(self, who: str, gets_in: bool) -> list[str]:
        if eventually(lambda: self.gets_in(who) is gets_in, 40):
            return []
        return [f"{who} {'does not get' if gets_in else 'gets'} in"]

    # --- the story, and what must be so

    def told(self) -> Iterator[list[str]]:
        """What is wrong after each of its steps."""
        self.attach("web", self.tried)
        yield self.soon("friend", True) + ["a stranger gets in"] * self.gets_in("stranger")
        self.say(pod("stranger", "friend"))
        yield self.soon("stranger", True)
        self.say(pod("stranger"))
        yield self.soon("stranger", False)
        self.detach("friend")
        self.attach("friend", self.cluster.nodes[1])
        yield self.soon("friend", True) + ["a stranger gets in"] * self.gets_in("stranger")
        yield self.wrong()
        self.detach("web")

    def wrong(self) -> list[str]:
        """Whatever hosts, store and kernels do not agree about."""
        found: list[str] = []
        if not eventually(lambda: not self._disagreements(found), 40):
            return found
        return self.cluster.duplicates()

    def _disagreements(self, found: list[str]) -> list[str]:
        found[:] = self.cluster.disagreements()
        others, two = self.cluster.nodes[1:], dict[str, set[str]]()
        for one, other in ((self.tried, others[0]), (self.tried, others[1])):
            third = next(node for node in others if node is not other)
            two = {node.name: rows(node, other) for node in (one, third)}
            found += [f"{one.name} has {two[one.name]} of {other.name}, and {third.name} {two[third.name]}"] * (two[one.name] != two[third.name])  # fmt: skip
        two = {node.name: rows(node, self.tried) for node in others}
        found += [f"of {self.tried.name}: {two}"] * (len({frozenset(it) for it in two.values()}) > 1)
        return found


def pod(app: str, label: str = "") -> dict[str, Any]:
    """Its labels."""
    metadata = {"namespace": "shop", "name": app, "labels": {"app": label or app}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}


def rows(node: Node, other: Node) -> set[str]:
    """What a host's kernel has of another's pods and blocks: FDB, neighbours, routes."""
    fdb = sh("bridge", "-n", node.name, "fdb", "show").stdout.splitlines()
    theirs = {line.split()[0] for line in fdb if f"dst {other.underlay()} " in f"{line} "}
    neighbours = [
        line.split() for line in sh("ip", "-n", node.name, "neigh", "show", "nud", "permanent").stdout.splitlines()
    ]
    known = {
        (it[0], it[it.index("lladdr") + 1])
        for it in neighbours
        if "lladdr" in it and it[it.index("lladdr") + 1] in theirs
    }
    gateways = {address for address, _ in known}
    ways = {f"{it['dst']} by {it['gateway']}" for it in node.routes() if it.get("gateway") in gateways}
    return theirs | {" ".join(it) for it in known} | ways


@contextmanager
def revived(node: Node) -> Iterator[None]:
    """A member that ends is started again, by itself."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            node.revive()

    thread = threading.Thread(target=watch)
    thread.start()
    yield
    over.set()
    thread.join()


def tell(story: str, seed: str) -> Told:
    """`member killed in l2, 1 of 24`: at the first effect, the 25th ..."""
    mode, lab = "l3" if " in l3" in story else "l2", Lab(story)
    try:
        with Cluster(lab, 3) as cluster, ExitStack() as held:
            town = Town(cluster, mode, held)
            if " traced" in story:
                found = traced(story, seed, town)
            else:
                found = told(story, seed, lambda order: once(town, obeying(order)))
            held.close()
            cluster.leave()
    finally:
        lab.close()
    return found


def traced(story: str, seed: str, town: Town) -> Told:
    """By strace, which needs no seam: at one of some system calls, counted for each thread, early or late."""
    chance, faults, log = random.Random(f"{story} {seed}"), list[str](), Path("/run/strace")
    for _ in range(STRUCK):
        name, number = chance.choice(CALLS), int(10 ** chance.uniform(0, 2.3))
        inject = ("-e", f"trace={name}", "-e", f"inject={name}:signal=KILL:when={number}")
        wrong = once(town, ("strace", "-D", "-f", "-qq", "-o", str(log), *inject))
        was_killed = "+++ killed by SIGKILL +++" in log.read_text(errors="replace")
        faults += [f"{story}: {it} (at {name} {number}, {'' if was_killed else 'not '}killed)" for it in wrong]
    return Told({"kills": STRUCK}, faults)


def obeying(order: effects.Order) -> tuple[str, ...]:
    """What a member's command line begins with that obeys an order."""
    return ("env", *(f"{name}={value}" for name, value in order.environ.items()), *DOORS)


def once(town: Town, around: tuple[str, ...]) -> list[str]:
    """The story with something around its first member's first life; what was wrong."""
    node, found = town.tried, list[str]()
    said = node.log.stat().st_size if node.log.exists() else 0
    node.around = around
    town.cluster.configure(node)
    node.start()
    node.around = ()
    with revived(node):
        try:
            for wrong in town.told():
                found += wrong
        except AssertionError as error:
            found.append(str(error)[:500])
            for app in {"web"} & {*town.placed}:
                town.detach(app)
    try:
        town.cluster.leave(node)
    except AssertionError as error:
        found.append(str(error)[:500])
    return [*found, *undesigned(node.log, said)]
