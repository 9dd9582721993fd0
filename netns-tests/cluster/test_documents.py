"""Documents of a cluster over three hosts: peers are where the hosts say they are, and no trouble of the store opens what is shut."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from cluster import PREFIX, Cluster, Node, Placed, conf
from lab import AGENT_CNI, Lab, eventually
from shop import DENY, FROM_FRIEND, NAMED
from town import serving
from traffic import TIMED_OUT, Actor

APPS = ("web", "friend", "stranger")


def kube_pod(app: str) -> dict[str, Any]:
    """Its labels; nothing of where it is."""
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": app, "labels": {"app": app}}}


class Town:
    """A pod on each of three hosts, held by the documents of their cluster."""

    def __init__(self, cluster: Cluster, mode: str, folder: Path, held: ExitStack) -> None:
        self.cluster, self._folder, self._held = cluster, folder, held
        self.conf = conf(mode, block=16, policy={"cluster": True})
        self.placed: dict[str, Placed] = {}
        self.actors: dict[str, Actor] = {}

    def say(self, *documents: dict[str, Any], verb: str = "apply") -> None:
        file = self._folder / "documents.json"
        file.write_text(json.dumps({"kind": "List", "apiVersion": "v1", "items": list(documents)}))
        self.cluster.nodes[0].run(AGENT_CNI, "policy", verb, file)

    def attach(self, app: str, node: Node) -> None:
        self.placed[app] = self.cluster.add(node, self.conf, CNI_ARGS=NAMED + app)
        self.actors[app] = serving(self._held.enter_context(Actor(self.placed[app].pod)))

    def gets_in(self, who: str) -> bool:
        """Whether a pod reaches the web server, in both families alike."""
        answers = [self.actors[who].connect(self.placed["web"].address(family), 80) for family in (4, 6)]
        assert len({answer == TIMED_OUT for answer in answers}) == 1, answers
        return answers[0] != TIMED_OUT

    def soon(self, gets_in: bool, who: str) -> bool:
        def seen() -> bool:
            with suppress(AssertionError):
                return self.gets_in(who) is gets_in
            return False

        return bool(eventually(seen))

    def holds(self) -> bool:
        return self.gets_in("friend") and not self.gets_in("stranger")

    def faults(self, app: str = "web") -> str:
        """What its host's list of documents names."""
        return self.placed[app].host.run(AGENT_CNI, "policy", "list", check=False).stderr


@pytest.fixture(params=["l2", "l3"])
def town(request: pytest.FixtureRequest, lab: Lab, tmp_path: Path) -> Iterator[Town]:
    with Cluster(lab, 3) as cluster, ExitStack() as held:
        cluster.join()
        made = Town(cluster, request.param, tmp_path, held)
        made.say(DENY, FROM_FRIEND, *map(kube_pod, APPS))
        for app, node in zip(APPS, cluster.nodes, strict=True):
            made.attach(app, node)
        yield made
        held.close()
        cluster.leave()


def test_a_peer_on_another_host_is_where_that_host_says_it_is(town: Town):
    assert town.soon(True, "friend")
    assert not town.gets_in("stranger")
    friend, web = town.placed["friend"], town.placed["web"]
    for node in town.cluster.nodes:
        assert "changed 0 of" in node.run(AGENT_CNI, "refresh").stdout
    for family in (4, 6):
        said = web.host.run(AGENT_CNI, "policy", "why", friend.address(family), "shop/web:80", check=False)
        assert (said.returncode, "shop/friend" in said.stdout) == (0, True), said.stdout

    town.cluster.remove(friend)
    town.attach("friend", town.cluster.nodes[2])
    assert town.soon(True, "friend"), "it is elsewhere by now"
    assert not town.gets_in("stranger")
    anybody = kube_pod("stranger")
    anybody["metadata"]["labels"] = {"app": "friend"}
    town.say(anybody)
    assert town.soon(True, "stranger")
    town.say(kube_pod("stranger"))
    assert town.soon(False, "stranger")

    web.host.kill()
    web.host.start()
    assert eventually(lambda: town.cluster.joined(web.host))
    assert town.holds()


def test_a_store_that_is_emptied_or_spoiled_opens_nothing(town: Town):
    assert town.soon(True, "friend")
    town.cluster.etcd.put(f"{PREFIX}/documents/NetworkPolicy/shop/deny", "{ no json")
    assert eventually(lambda: "NetworkPolicy shop/deny: not a Kubernetes object" in town.faults())
    assert town.holds()
    town.cluster.etcd.wipe()
    assert eventually(lambda: all("the store has lost it" in town.faults(app) for app in APPS))
    assert town.holds()
    web = town.placed["web"].host
    web.kill()
    web.start()
    assert eventually(lambda: town.cluster.joined(web))
    assert town.holds()
    town.say(DENY, *map(kube_pod, APPS))
    assert eventually(lambda: "shop/deny" not in town.faults() and "shop/friend" in town.faults())
    assert town.holds()
    town.say(FROM_FRIEND)
    town.say(FROM_FRIEND, verb="delete")
    assert town.soon(False, "friend")
    assert town.faults() == ""
