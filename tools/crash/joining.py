"""A host's member killed, or refused, at each of its effects: writes to the store, its state, the kernel; other hosts are undisturbed beside it."""

from __future__ import annotations

import errno
import json
import random
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import effects
from cluster import Cluster, Node, Placed, conf
from lab import AGENT_CNI, ROOT, Lab, eventually, sh
from shop import DENY, FROM_FRIEND, NAMED
from town import serving
from traffic import TIMED_OUT, Actor

from crash.story import Told

DOORS = (str(ROOT / ".venv/bin/python3"), "-I", str(Path(__file__).with_name("member_doors.py")))
#: What the kernel, and the disk, refuse with; the store is out of reach instead.
ERRORS = (errno.EPERM, errno.ENOBUFS, errno.ENOMEM, errno.EBUSY)
WHEN = (effects.BEFORE, effects.AFTER)


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
    found = re.fullmatch(r"member (\w+) in (\w+), (\d+) of (\d+)", story)
    assert found
    how, mode, first, step = found[1], found[2], int(found[3]), int(found[4])
    chance, lab = random.Random(f"{story} {seed}"), Lab(story)
    faults, number, many, strikes = [], 0, 0, 0
    try:
        with Cluster(lab, 3) as cluster, ExitStack() as held:
            town = Town(cluster, mode, held)
            while number <= many:
                error = 0 if how == "killed" or not number else chance.choice(ERRORS)
                order = effects.Order(Path(f"/run/order-{number}"), number, chance.choice(WHEN), error)
                strikes += number > 0
                what = [f"{story}: {wrong}" for wrong in once(town, order)]
                made = order.told()
                many = many or len(made)
                at = made[number - 1] if 0 < number <= len(made) else "nothing"
                faults += [f"{it} ({how} {order.when} {at}, errno {error})" for it in what]
                number += step if number else first
            held.close()
            cluster.leave()
    finally:
        lab.close()
    return Told(counted(how, many if first == 1 else 0, strikes), faults)


def counted(how: str, effects: int, strikes: int) -> dict[str, int]:
    """How many there were, said by one of several stories that share them, and how many this one has struck."""
    return ({"effects": effects} if effects else {}) | {"kills" if how == "killed" else "refusals": strikes}


def once(town: Town, order: effects.Order) -> list[str]:
    """The story with one order for its first member; what was wrong."""
    node, found = town.tried, list[str]()
    variables = [f"{name}={value}" for name, value in order.environ.items()]
    node.around = ("env", *variables, *DOORS)
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
    return found
