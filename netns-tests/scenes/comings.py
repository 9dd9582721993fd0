"""Pods of a cluster that come and go, by networks of both modes and one that has hardly room for them, held by policies; all of it witnessed."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

from calamity import LOSES
from cluster import Cluster, Placed, conf
from lab import AGENT_CNI, ROOT, eventually, sh
from shop import FRIEND, network_policy
from witness import Named, Witness, Witnessed, probe

#: Pods a node has at most while they come and go; and of what is asked for, how much is killed before it answers.
MOST, KILLED = 5, 0.12
#: A pod that is held hears friends only. The network that has hardly room; how long it is waited until all is well, in seconds.
APPS, FRIENDS = ("held", "friend", "plain"), ["friend"]
SMALL, PATIENCE = "small", 120.0
#: "No address is left", and how often a node is to say so.
TAKEN, ASKED = 103, 3


class Comings:
    """A cluster whose pods come and go, by networks of both modes and one that has hardly room for them, held by policies."""

    def __init__(self, cluster: Cluster, witness: Witness, chance: random.Random) -> None:
        self.cluster, self.witness, self.chance = cluster, witness, chance
        small = {"ranges": [[{"subnet": "10.12.0.0/26"}], [{"subnet": "fd00:12::/64"}]], "blockSize": 8}
        self.confs = [
            conf("l2", policy={"cluster": True}),
            conf("l3", name="routed", number=1, policy={"cluster": True}),
            conf("l2", name=SMALL, number=2, policy={"cluster": True}, ipam=small),
        ]
        self.names = {f"{app}-{number}": app for app in APPS for number in range(len(cluster.nodes) * MOST)}
        self.free = set(self.names)

    def introduce(self, story: str, seed: str) -> None:
        """Say whose history this is."""
        networks = [
            {
                "name": it["name"],
                "mode": it["vxlan"]["mode"],
                "scarce": it["name"] == SMALL,
                "ranges": [one["subnet"] for some in it["ipam"]["ranges"] for one in some],
            }
            for it in self.confs
        ]
        commit = sh("git", "-C", ROOT, "describe", "--always", "--dirty").stdout.strip()
        self.witness.write("history", story=story, seed=seed, commit=commit, networks=networks)
        for node in self.cluster.nodes:
            node.introduce()

    def named(self, app: str) -> Named:
        """A pod that is to come."""
        called = min(name for name in list(self.free) if name.startswith(app))
        self.free.discard(called)
        return self.cluster.lab.add(Named(self.cluster.lab.name("pod"), app=app, called=called))

    def say_policy(self) -> None:
        """Have it said whom pods that are held hear."""
        self.say()
        self.witness.write("policy", held="held", **{"from": FRIENDS})

    def say(self) -> None:
        """Have the cluster know its policy, and which pods there may be."""
        pods = [
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": name, "labels": {"app": app}}}
            for name, app in self.names.items()
        ]  # fmt: skip
        policy = network_policy("held", podSelector={"matchLabels": {"app": "held"}}, ingress=[FRIEND])
        file = Path("/run/documents.json")
        file.write_text(json.dumps({"kind": "List", "apiVersion": "v1", "items": [policy, *pods]}))
        node = self.cluster.nodes[0]
        last: list[str] = []

        def said() -> bool:
            done = node.run(AGENT_CNI, "policy", "apply", file, check=False)
            last[:] = [done.stdout + done.stderr]
            return done.returncode == 0

        assert eventually(said), last

    def come(self, node: Witnessed, conf: dict[str, Any], chance: random.Random) -> bool:
        """Have a pod come; whether it did. One that is refused, or killed on its way, is deleted, as a runtime does."""
        pod = self.named(chance.choice(APPS))
        if chance.random() < KILLED:
            node.killed(conf, pod, chance.random() * 0.3)
            answer = None
        else:
            answer = node.call("ADD", conf, pod)
        if not answer or answer.code:
            node.ended(conf, pod)
            self.bury(pod)
            return False
        self.cluster.answers.say(pod)
        self.cluster.placed.append(Placed(node, pod, conf, answer.json))
        return True

    def go(self, placed: Placed) -> None:
        """Have a pod go."""
        placed.host.ended(placed.conf, placed.pod)
        self.cluster.forget(placed)
        self.bury(placed.pod)

    def bury(self, pod: Named) -> None:
        pod.delete()
        self.cluster.lab.made.remove(pod)
        if pod.called in self.names:
            self.free.add(pod.called)

    @contextmanager
    def churning(self, seed: str) -> Iterator[None]:
        """Pods come and go on every node meanwhile."""
        over, broke = Event(), list[BaseException]()

        def churn(node: Witnessed) -> None:
            chance = random.Random(f"{seed} {node.number}")
            try:
                while not over.wait(chance.random() * 0.4):
                    with node.busy:
                        mine = [placed for placed in self.cluster.placed if placed.host is node]
                        if mine and (len(mine) >= MOST or chance.random() < 0.5):
                            self.go(chance.choice(mine))
                        else:
                            self.come(node, chance.choice(self.confs), chance)
            except (AssertionError, OSError) as error:
                broke.append(error)

        threads = [Thread(target=churn, args=(node,)) for node in self.cluster.nodes]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()
        if broke:
            raise broke[0]

    def befall(self, seed: str, group: dict[str, Any]) -> None:
        """Let one of a group befall the cluster, after a while."""
        chance = random.Random(f"{seed} {min(group)}")
        time.sleep(chance.random() * 3)
        what = chance.choice(sorted(group))
        with self.witness.fault(what, loses=what in LOSES):
            group[what](self.cluster, chance.choice(self.cluster.nodes), chance)

    def rest(self) -> None:
        """Nothing befalls it: ask until all is well, or for so long that it never will be."""
        self.say()
        self.witness.write("rest")
        end = time.monotonic() + PATIENCE
        while not self.is_well() and time.monotonic() < end:
            time.sleep(1)
        for node in self.cluster.nodes:
            self.witness.write("kernel", **node.seen())
        for node in self.cluster.nodes:
            lost = node.lost()
            astray = [
                it.pod.container
                for it in self.cluster.placed
                if it.host is node and any(lost(it.conf["name"], at) for at in it.addresses)
            ]
            if astray:
                self.witness.write("astray", containers=astray, node=node.name)
        self.witness.write("awake")

    def is_well(self) -> bool:
        """Whether nodes and store agree, and everybody is answered for by who is to."""
        with suppress(OSError):
            for node in self.cluster.nodes:
                node.revive()
            if self.cluster.disagreements():
                return False
        holders = dict(self.cluster.holders())
        containers = {it.pod.name: it.pod for it in self.cluster.placed}
        networks = {it.pod.name: it.conf["name"] for it in self.cluster.placed}
        well, holds = True, {node.name: node.has_addresses() for node in self.cluster.nodes}
        hosts = {it.pod.name: it.host.name for it in self.cluster.placed}
        astray = {it.pod.name for it in self.cluster.placed if not holders.keys() >= {*it.addresses}}
        holders = {address: name for address, name in holders.items() if name not in astray}
        for asker in [*(pod for name, pod in containers.items() if name not in astray), *self.cluster.nodes]:
            answers = probe(self.witness, asker, list(holders))
            app = getattr(asker, "app", "")
            for address, name in holders.items():
                denied = containers[name].app == "held" and app not in FRIENDS and asker is not containers[name]
                family = 6 if ":" in address else 4
                there = f"{networks[name]} {family}" in holds[hosts.get(asker.name, asker.name)]
                back = not app or f"{networks[asker.name]} {family}" in holds[hosts[name]]
                if there and back and not (denied and not app):
                    well &= answers.get(address) == (None if denied else f"container-{name}")
        return well

    def leave(self) -> None:
        """Have every node leave the cluster, and look what there is still."""
        left = list[str]()
        for node in self.cluster.nodes:
            node.run(node.program, "leave")
            node.wanted = False
            assert node.member
            node.member.wait(PATIENCE)
            left += [f"{node.name}: {what}" for what in self.cluster.left(node)]
        left += [f"the store: {key}" for key in self.cluster.written() if "/documents/" not in key]
        self.witness.write("left", what=left)

    def fill(self) -> None:
        """Have every address there is of the small network, and let go of them."""
        conf, given, lab = self.confs[-1], list[tuple[Witnessed, Named, str]](), self.cluster.lab

        def fill(node: Witnessed) -> None:
            refused = 0
            while refused < ASKED:
                pod = lab.add(Named(lab.name("pod"), app="plain", called="filling"))
                if (answer := node.call("ADD", conf, pod)).code:
                    refused += answer.json["code"] == TAKEN
                    node.ended(conf, pod)
                    self.bury(pod)
                else:
                    given.append((node, pod, answer.json["ips"][0]["address"]))

        def let_go(node: Witnessed) -> None:
            for pod in [pod for where, pod, _ in given if where is node]:
                node.ended(conf, pod)
                self.bury(pod)

        with ThreadPoolExecutor(len(self.cluster.nodes)) as pool:
            list(pool.map(fill, self.cluster.nodes))
            self.witness.write("filled", network=SMALL, addresses=sorted(address for _, _, address in given))
            list(pool.map(let_go, self.cluster.nodes))
