"""The Kubernetes API as a cluster's store, against a server that fails in every way a real one does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Queue
from typing import Any

import pytest
from kube_api import KubeApi, node

from cni.cluster.config import KubernetesConfig
from cni.cluster.document import Document
from cni.cluster.kubernetes import KubernetesStore
from cni.cluster.model import LAYER_2, LAYER_3, Alive, Block, Endpoint, Network, Node, Pool
from cni.cluster.store import Change, Listing, Sparing
from cni.errors import Forbidden
from cni.overlay.peers import goes_by_endpoints
from cni.values import replace

A = Node("node-a", "machine-a", "192.0.2.1", "0a:00:00:00:00:01")
B = Node("node-b", "machine-b", "192.0.2.2", "0a:00:00:00:00:02")
NET = Network("pods", (Pool("10.10.0.0/16", "10.10.0.1", "10.10.255.254", ""),), 64, LAYER_3, 100)
FLAT = replace(NET, mode=LAYER_2)
SPARING = Sparing("node-a", goes_by_endpoints)
SOON = 10.0


@pytest.fixture
def api() -> Iterator[KubeApi]:
    with KubeApi() as made:
        made.put(node("node-a", "10.10.0.0/26", address="192.0.2.1"))
        made.put(node("node-b", "10.10.0.64/26", address="192.0.2.2"))
        yield made


def store_at(api: KubeApi, me: str = "node-a", **config: str) -> KubernetesStore:
    return KubernetesStore(KubernetesConfig(api.url, **config), me, 15)


def joined(api: KubeApi, network: Network = NET) -> KubernetesStore:
    """Both hosts are in the cluster, with a network; this is a's store."""
    for host in (B, A):
        store = store_at(api, host.name)
        store.declare(store.join(host, f"boot-{host.name}:1"), network)
    return store


class Told:
    """What a store tells, known so far."""

    def __init__(self, store: KubernetesStore, sparing: Sparing | None) -> None:
        self.items: dict[Any, Any] = {}
        self.news = Queue[Any]()
        self.listings = 0
        self._changes = store.changes(sparing)
        threading.Thread(target=self._listen, daemon=True).start()
        self.hear()

    def _listen(self) -> None:
        try:
            for news in self._changes:
                self.news.put(news)
        except Exception as error:  # noqa: BLE001
            self.news.put(error)

    def hear(self) -> Listing | Change:
        news = self.news.get(timeout=SOON)
        if isinstance(news, Exception):
            raise news
        if isinstance(news, Listing):
            self.listings += 1
            self.items = {item.key: item for item in news.items}
        else:
            for key in news.gone:
                self.items.pop(key, None)
            self.items |= {item.key: item for item in news.put}
        return news

    def until(self, key: Any, wanted: Any) -> None:
        """Hear on until something is so."""
        while self.items.get(key) != wanted:
            self.hear()

    def of(self, kind: type) -> set[Any]:
        return {item for item in self.items.values() if isinstance(item, kind)}


@contextmanager
def told(store: KubernetesStore, sparing: Sparing | None = SPARING) -> Iterator[Told]:
    yield Told(store, sparing)


def test_nodes_are_hosts_with_the_blocks_they_were_given(api: KubeApi):
    api.put(node("stranger", "10.10.0.128/26"))
    with told(joined(api)) as heard:
        assert heard.of(Node) == {A, B}
        assert heard.of(Network) == {NET}
        assert heard.of(Block) == {
            Block("pods", "10.10.0.0/26", "node-a", "machine-a"), Block("pods", "10.10.0.64/26", "node-b", "machine-b"),
        }  # fmt: skip
        assert heard.of(Alive) == {Alive("node-a", "boot-node-a:1"), Alive("node-b", "boot-node-b:1")}
        assert heard.of(Endpoint) == heard.of(Document) == set()
    assert [path for verb, path in api.requests if verb == "list" and "/pods" in path] == []


def test_a_host_is_told_its_blocks_whatever_networks_there_are(api: KubeApi):
    store = store_at(api)
    session = store.join(A, "boot:1")
    assert store.assigned(session) == ("10.10.0.0/26",)
    api.put(node("node-a", "10.10.0.0/26", "fd00::/64") | {"metadata": api.get("Node", "node-a")["metadata"]})
    store.look("node-a")
    assert store.assigned(session) == ("10.10.0.0/26", "fd00::/64")


@pytest.mark.parametrize(("before", "patches"), [("True", 1), ("Unknown", 1), ("False", 0), (None, 0)])
def test_a_node_that_waits_for_a_network_hears_once_that_there_is_one(api: KubeApi, before: str | None, patches: int):
    store = store_at(api)
    session = store.join(A, "boot:1")
    raw = api.get("Node", "node-a")
    raw["status"]["conditions"] += [{"type": "NetworkUnavailable", "status": before}] if before else []
    api.put(raw)
    store.look("node-a")
    api.requests.clear()
    store.serves(session)
    store.serves(session)
    assert [path for verb, path in api.requests if verb == "patch"] == ["/api/v1/nodes/node-a/status"] * patches
    conditions = {one["type"]: one["status"] for one in api.get("Node", "node-a")["status"]["conditions"]}
    assert conditions == {"Ready": "True"} | ({"NetworkUnavailable": "False"} if before else {})


def test_who_may_not_say_that_there_is_a_network_is_told_which_right_is_lacking(api: KubeApi):
    store = store_at(api)
    session = store.join(A, "boot:1")
    raw = api.get("Node", "node-a")
    raw["status"]["conditions"].append({"type": "NetworkUnavailable", "status": "True"})
    api.put(raw)
    store.look("node-a")
    api.forbidden = {("patch", "nodes/status")}
    with pytest.raises(Forbidden, match="does not let this host patch nodes/status"):
        store.serves(session)
