"""Whose addresses other hosts' endpoints are: what becomes of that in the books of feeds, and what the store is asked for."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cluster_memory import Memory, MemoryStore
from member_host import network

from cni.cluster.document import Document as Said
from cni.cluster.model import Block, Endpoint
from cni.cluster.store import Change, Listing, Sparing
from cni.member import far_pods
from cni.member.elements import Elements
from cni.member.far_pods import FarPods
from cni.member.run import needs_endpoints
from cni.naming import Attachment
from cni.policy.cluster_feed import told
from cni.policy.effects import Effects
from cni.policy.feeds import book_of
from cni.resources import World
from cni.state import Record, Store, uses
from cni.state.documents import FILE, Documents

NET = network()


def kube_pod(name: str, *addresses: str) -> dict[str, Any]:
    status = {"podIPs": [{"ip": text} for text in addresses]}
    return {"kind": "Pod", "metadata": {"namespace": "shop", "name": name, "labels": {"app": name}}, "status": status}


def endpoint(number: int, pod: str = "shop/web", node: str = "b", net: str = "net") -> Endpoint:
    return Endpoint(net, f"10.10.0.{number}", node, "0a:00:00:00:00:01", f"c{number}", "eth0", pod)


class Scene:
    """A host, ``a``, that knows of pods by their objects; what of its sets is changed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room = FarPods("a")
        self.changed: list[set[str]] = []
        self.touched: set[tuple[str, str]] = set()
        self.filled = 0
        monkeypatch.setattr(far_pods, "put_in_sets", self._put)
        monkeypatch.setattr(far_pods, "fill_sets", self._fill)

    def _put(self, _: World, __: Path, effects: Effects) -> Elements:
        self.changed.append(effects.addresses)
        self.touched = effects.pods
        return Elements(Path(), effects)

    def _fill(self, *_: Any) -> Elements:
        self.filled += 1
        return Elements(Path())

    def know(self, *pods: dict[str, Any]) -> None:
        names = [item["metadata"]["name"] for item in pods]
        with closing(Documents.open()) as documents:
            told(
                documents,
                {f"Pod shop {name}": (f"Pod shop/{name}", pod) for name, pod in zip(names, pods, strict=True)},
                whole=True,
            )

    def hear(self, *news: Listing | Change) -> None:
        for item in news:
            self.room.heard(item)
        with closing(Documents.open()) as documents:
            self.room.keep(documents, {"cluster": book_of("cluster")}, None, Path())  # type: ignore[arg-type]

    def pods(self) -> dict[str, tuple[str, ...]]:
        return {pod.name: pod.addresses for pod in book_of("cluster").pods()}


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


def test_a_pod_elsewhere_has_the_addresses_its_host_says_it_has(scene: Scene):
    scene.know(kube_pod("web"), kube_pod("db"))
    scene.hear(Listing(5, (NET, endpoint(20), endpoint(21, "shop/db"), endpoint(22, "shop/none"), endpoint(23, ""))))
    assert scene.pods() == {"web": ("10.10.0.20",), "db": ("10.10.0.21",)}
    assert scene.changed == [{"10.10.0.20", "10.10.0.21", "10.10.0.22"}], "of whom nobody knows who it is yet, too"
    scene.hear(Change(6, (endpoint(24),), (endpoint(21).key,)))
    assert scene.pods() == {"web": ("10.10.0.20", "10.10.0.24"), "db": ()}
    assert scene.changed[1] == {"10.10.0.20", "10.10.0.24", "10.10.0.21"}
    scene.hear(Listing(9, (NET, endpoint(21, "shop/web"))))
    assert scene.pods() == {"web": ("10.10.0.21",), "db": ()}
    scene.hear(Listing(9, (NET, endpoint(21, "shop/web"))))
    assert len(scene.changed) == 3, "nothing is otherwise"


def test_what_it_says_of_its_own_network_is_believed_and_its_objects_word_for_the_rest(scene: Scene):
    scene.know(kube_pod("web", "10.10.0.99", "192.0.2.7"), kube_pod("db", "10.10.0.20"), kube_pod("new", "10.10.0.30"))
    scene.hear(Listing(5, (NET, endpoint(20))))
    assert scene.pods() == {"web": ("10.10.0.20", "192.0.2.7"), "db": (), "new": ("10.10.0.30",)}


def test_whose_object_says_what_is_somebody_elses_by_now_is_touched_too(scene: Scene):
    scene.know(kube_pod("stale", "10.10.0.20"), kube_pod("web"))
    scene.hear(Listing(5, (NET,)), Change(6, (endpoint(20),), ()))
    assert scene.pods() == {"stale": (), "web": ("10.10.0.20",)}
    assert scene.touched == {("shop", "stale"), ("shop", "web")}, "its sets have the address"
    scene.hear(Change(7, (), (endpoint(20).key,)))
    assert scene.pods() == {"stale": ("10.10.0.20",), "web": ()}
    assert scene.touched == {("shop", "stale"), ("shop", "web")}


def test_an_address_that_two_have_is_nobodys_and_an_attachments_is_its_own(scene: Scene):
    scene.know(kube_pod("web"), kube_pod("db"), kube_pod("near"))
    scene.hear(
        Listing(
            5,
            (
                NET,
                endpoint(20),
                endpoint(20, "shop/db", net="other"),
                endpoint(21),
                endpoint(22, "shop/near", node="a"),
            ),
        )
    )
    record = Record(Attachment("net", "c", "eth0"), "bridge", "", "shop/near", {})
    with closing(Store.open(uses.DEFAULT_FOLDER)) as store, store.transaction():
        store.put(record)
        store.put_uses(record, ["10.10.0.21"])
    assert scene.pods() == {"web": (), "db": (), "near": ("10.10.0.21",)}


def test_what_a_store_lost_with_its_memory_is_where_it_was(scene: Scene):
    scene.know(kube_pod("web"))
    scene.hear(Listing(5, (NET, endpoint(20))))
    scene.hear(Listing(1, (), replaced=True))
    assert scene.pods() == {"web": ("10.10.0.20",)}
    scene.hear(Change(2, (endpoint(20, "", node="c"),), ()))
    assert scene.pods() == {"web": ()}


def test_of_many_sets_are_filled(scene: Scene):
    scene.know(*(kube_pod(f"p{number}") for number in range(250)))
    scene.hear(Listing(5, tuple(endpoint(number, f"shop/p{number}") for number in range(250))))
    assert (scene.filled, scene.changed) == (1, [])
    assert scene.pods()["p17"] == ("10.10.0.17",)


def test_who_follows_no_pods_documents_hears_of_no_endpoint_where_routes_go_by_blocks():
    memory, l3 = Memory(), network(mode="l3")
    for item in (l3, Block("net", "10.10.0.0/28", "b", "m"), endpoint(5)):
        memory.put_text(item.key, json.dumps(item.value))
    fed: list[bool] = []
    sparing = Sparing("a", needs_endpoints, lambda: bool(fed))
    changes = MemoryStore(memory, beat=0.01).changes(sparing)
    assert not _endpoints(next(changes))
    memory.put_text(("documents", "NetworkPolicy", "shop", "one"), "{}")
    assert not _endpoints(next(changes))
    pod = Said("Pod", "shop", "web", json.dumps(kube_pod("web")))
    memory.put_text(pod.key, pod.text)
    again = next(changes)
    assert isinstance(again, Listing)
    assert _endpoints(again) == ["10.10.0.5"]
    memory.write({}, [pod.key])
    changes = MemoryStore(memory, beat=0.01).changes(sparing)
    assert not _endpoints(next(changes))
    fed.append(True)
    assert _endpoints(next(changes)) == ["10.10.0.5"]


def _endpoints(news: Listing | Change) -> list[str]:
    items = news.items if isinstance(news, Listing) else news.put
    return [item.address for item in items if isinstance(item, Endpoint)]


@pytest.mark.parametrize("news", [Change(6, (endpoint(21, "shop/db"),), ()), None], ids=["with more", "with nothing"])
def test_what_is_known_of_them_is_known_again_where_that_is_lost(scene: Scene, news: Change | None):
    """The file of documents is no state: who finds it damaged, or another release's, begins it anew."""
    scene.know(kube_pod("web"), kube_pod("db"))
    scene.hear(Listing(5, (NET, endpoint(20))))
    for file in uses.DEFAULT_FOLDER.glob(f"{FILE}*"):
        file.unlink()
    scene.know(kube_pod("web"), kube_pod("db"))
    scene.hear(*filter(None, [news]))
    assert scene.pods() == {"web": ("10.10.0.20",), "db": ("10.10.0.21",) if news else ()}
    scene.hear(Change(7, (), (endpoint(20).key,)))
    assert scene.pods()["web"] == ()
