"""Names over the hosts of a cluster: each answers for all, of who is there and is heard of, and of its own network alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from cluster import Cluster, Node, Placed, conf
from lab import Lab, eventually
from names import Names, asked


def named(mode: str, **keys: Any) -> dict[str, Any]:
    return conf(mode, **keys) | {"names": {}}


def attached(cluster: Cluster, node: Node, net: dict[str, Any], name: str, *aliases: str) -> Placed:
    net = net | {"runtimeConfig": {"aliases": {net["name"]: list(aliases)}}} if aliases else net
    return cluster.add(node, net, CNI_ARGS=f"IgnoreUnknown=1;K8S_POD_NAME={name}")


def answers(placed: Placed, name: str, kind: str = "A") -> list[str]:
    """What a pod is answered by its own resolver, in any order; nothing while nobody answers."""
    try:
        return sorted(asked(placed.pod, placed.result["dns"]["nameservers"][0], name, kind))
    except TimeoutError:
        return []


@contextmanager
def two_that_know_each_other(lab: Lab, net: dict[str, Any]) -> Iterator[tuple[Cluster, Placed, Placed]]:
    """A pod on each of two hosts, `p0` and `p1`, of which the first finds the other by name."""
    with Cluster(lab, 2) as cluster, Names(cluster.nodes[0]):
        cluster.join()
        first, second = (attached(cluster, node, net, f"p{number}") for number, node in enumerate(cluster.nodes))
        assert eventually(lambda: answers(first, "p1") == [second.address(4)])
        yield cluster, first, second


@pytest.mark.parametrize("mode", ["l2", "l3"])
def test_every_pod_finds_every_other_by_name_wherever_it_is(lab: Lab, mode: str):
    with Cluster(lab, 3) as cluster, ExitStack() as daemons:
        cluster.join()
        for node in cluster.nodes:
            daemons.enter_context(Names(node))
        net, other = named(mode, block=16), named(mode, name="other", number=1, block=16)
        pods = [attached(cluster, node, net, f"p{number}", "all") for number, node in enumerate(cluster.nodes)]
        stranger = attached(cluster, cluster.nodes[0], other, "stranger", "all")
        cluster.meshed()
        for asking in pods:
            for number, pod in enumerate(pods):
                for name in (f"p{number}", f"p{number}.net"):
                    assert eventually(lambda a=asking, n=name, p=pod: answers(a, n) == [p.address(4)]), name
                    assert answers(asking, name, "AAAA") == [pod.address(6)]
                assert answers(asking, pod.address(4), "PTR") == [f"p{number}.net"]
            assert answers(asking, "all") == sorted(pod.address(4) for pod in pods)
            assert answers(asking, "stranger") == []
        assert eventually(lambda: answers(stranger, "all") == [stranger.address(4)])
        assert answers(stranger, "p1") == []

        first, second, third = pods
        cluster.remove(third)
        assert eventually(lambda: answers(first, "p2") == answers(second, "p2") == [])
        cluster.nodes[0].kill()  # who is not heard of is not answered, and who hears of nobody knows what he knew
        assert eventually(lambda: answers(second, "p0") == [])
        assert answers(first, "p1") == [second.address(4)]
        cluster.join(cluster.nodes[0])
        assert eventually(lambda: answers(second, "p0") == [first.address(4)])
        cluster.partition(*cluster.nodes)
        assert answers(first, "p1") == [second.address(4)]
        cluster.heal()

        for placed in list(cluster.placed):
            cluster.remove(placed)
        cluster.leave()
        for node in cluster.nodes:
            assert [file for file in node.names.rglob("*") if file.is_file()] == []


@pytest.mark.parametrize("mode", ["l2", "l3"])
def test_a_network_may_have_names_later_than_pods(lab: Lab, mode: str):
    with Cluster(lab, 2) as cluster, ExitStack() as daemons:
        one, two = cluster.nodes
        cluster.join()
        for node in cluster.nodes:
            daemons.enter_context(Names(node))
        net = conf(mode, block=16)
        for number, node in enumerate(cluster.nodes):
            attached(cluster, node, net, f"old{number}")
        first = attached(cluster, one, net | {"names": {}}, "new0")
        second = attached(cluster, two, net | {"names": {}}, "new1")
        assert eventually(lambda: answers(first, "new1") == [second.address(4)])
        assert eventually(lambda: answers(second, "new0") == [first.address(4)])


@pytest.mark.parametrize("told", [True, False])
def test_a_pod_whose_state_is_lost_is_answered_by_its_names(lab: Lab, told: bool):
    net = named("l2", block=16)
    with two_that_know_each_other(lab, net) as (cluster, first, second):
        two = cluster.nodes[1]
        two.kill()
        if not told:
            late = attached(cluster, two, net, "late")
        two.lose_state()
        cluster.join(two)
        name, pod = ("p1", second) if told else ("late", late)
        assert eventually(lambda: answers(first, name) == [pod.address(4)]), name
        cluster.remove(pod)
        assert eventually(lambda: answers(first, name) == []), name


def test_a_member_that_begins_again_finds_what_is_and_leaves_nothing_of_what_was(lab: Lab):
    net = named("l2", block=16)
    with two_that_know_each_other(lab, net) as (cluster, first, second):
        one, two = cluster.nodes
        one.kill()
        late = attached(cluster, two, net, "late")
        cluster.remove(second)
        cluster.join(one)
        assert eventually(lambda: answers(first, "late") == [late.address(4)])
        assert answers(first, "p1") == []
