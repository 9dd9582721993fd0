"""Two hosts of a cluster to which many calls come at once, while their members end, or are killed, and come back."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import Event

from cluster import SESSION, Cluster, Node, conf
from lab import Lab, Pod, Site, eventually
from warm import stop

from crash.crowd import Call, Conf, Crowd, at_once

#: Rounds of so many pods a host; each has its block of eight addresses full, so calls wait for a member that has one more.
ROUNDS, PODS, BLOCK = 4, 12, 8
#: A call waits a second for its block, and a member takes some to come back.
TRIES = 30


def networks() -> list[Conf]:
    """One of each mode."""
    small = {"families": "4", "block": BLOCK}
    return [conf("l2", **small), conf("l3", name="routed", number=1, **small)]


@contextmanager
def hosts(name: str, *, warm: bool) -> Iterator[tuple[Cluster, list[Crowd]]]:
    """Two nodes with a member each, who leave in the end."""
    lab = Lab(name)
    try:
        with Cluster(lab, hosts=2) as cluster, ExitStack() as held:
            cluster.join()
            crowds = [Crowd(lab, Site(node, node, cluster.switch), warm, tries=TRIES) for node in cluster.nodes]
            for made in crowds:
                if made.host.agent:
                    stop(made.host.agent)
                    made.host.agent = 0
                if warm:
                    made.restart(signal.SIGTERM)
                held.callback(made.end)
            yield cluster, crowds
            cluster.leave()
    finally:
        lab.close()


def members_end(name: str, chance: random.Random, *, warm: bool) -> list[Crowd]:
    """Pods come to both and go again; no address is had twice, and in the end the store says what the hosts say."""
    with hosts(name, warm=warm) as (cluster, crowds):
        there: list[tuple[Crowd, Conf, Pod]] = []
        for _ in range(ROUNDS):
            coming = [(crowd, chance.choice(networks()), crowd.lab.pod()) for crowd in crowds for _ in range(PODS)]
            moves = [partial(_left, *it) for it in there] + [partial(_come, *it) for it in coming]
            chance.shuffle(moves)
            over = Event()
            with ThreadPoolExecutor(len(crowds)) as pool:
                ending = [
                    pool.submit(_ended, cluster, node, random.Random(chance.random()), over) for node in cluster.nodes
                ]
                made = {it.who: it for it in at_once(moves) if it.verb == "ADD"}
                over.set()
                for it in ending:
                    it.result()
            _judge(cluster, coming, made)
            there = coming
        for move in there:
            _left(*move)
        cluster.settle()
    return crowds


def _judge(cluster: Cluster, coming: list[tuple[Crowd, Conf, Pod]], made: dict[str, Call]) -> None:
    results = {name: call.answer.json for name, call in made.items() if not call.code}
    given = Counter((net["name"], ip["address"]) for _, net, pod in coming if pod.name in results for ip in results[pod.name]["ips"])  # fmt: skip
    faults = coming[0][0].faults
    faults += [f"{address} was given {count} times" for address, count in given.items() if count > 1]
    cluster.settle()
    faults += cluster.duplicates()
    for crowd in {id(it[0]): it[0] for it in coming}.values():
        own = [(net, pod) for of, net, pod in coming if of is crowd]
        crowd.faults += [f"{pod.name} is not attached" for _, pod in own if pod.name not in results]
        crowd.checked(own, results, 4)
        crowd.reached(own, results, 4)
    _across(coming, results)


def _across(coming: list[tuple[Crowd, Conf, Pod]], results: dict[str, dict]) -> None:
    """Whether the first of each network on one host reaches the first on the other."""
    for name in {net["name"] for _, net, _ in coming}:
        ends = {id(crowd): (crowd, pod) for crowd, net, pod in coming if net["name"] == name and pod.name in results}
        if len(ends) == len((coming[0], coming[-1])):
            (crowd, pod), (_, other) = ends.values()
            address = results[other.name]["ips"][0]["address"].partition("/")[0]
            if not eventually(lambda pod=pod, address=address: pod.pings(address, 2)):
                crowd.faults.append(f"{pod.name} on {name} does not reach {address} on the other host")


def _come(crowd: Crowd, net: Conf, pod: Pod) -> Call:
    return crowd.until_done("ADD", net, pod)


def _left(crowd: Crowd, net: Conf, pod: Pod) -> Call:
    made = crowd.until_done("DEL", net, pod)
    crowd.bury([pod])
    return made


def _ended(cluster: Cluster, node: Node, chance: random.Random, over: Event) -> None:
    """A member that ends in each of two ways and comes back within its session, again once it has joined, until it is over."""
    while not over.wait(chance.random() * 2):
        if chance.random() < 0.5:
            node.kill()
        else:
            node.stop()
        time.sleep(chance.random() * SESSION / 4)
        node.start()
        eventually(lambda: over.is_set() or cluster.joined(node))
