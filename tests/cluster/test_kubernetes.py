"""The Kubernetes API as a cluster's store, against a server that fails in every way a real one does."""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from queue import Queue
from typing import Any

import cluster_contract
import pytest
from kube_api import CUSTOM, KINDS, KubeApi, namespace, node, pod, policy

from cni.cluster.config import KubernetesConfig
from cni.cluster.document import Document
from cni.cluster.kubernetes import KubernetesStore
from cni.cluster.kubernetes import api as kubernetes_api
from cni.cluster.kubernetes.objects import PODS, POLICIES
from cni.cluster.kubernetes.streams import News, Streams
from cni.cluster.model import LAYER_2, LAYER_3, Alive, Block, Endpoint, Network, Node
from cni.cluster.pools import Pool
from cni.cluster.store import Change, ClusterStore, Listing, Sparing
from cni.errors import Conflict, Forbidden, NameTaken, SessionLost, Unavailable, Unreachable
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
        made.mute = False
        for heard in TOLD:
            heard.end(made)
        TOLD.clear()


#: Who listens in a test, and ends with it.
TOLD = list["Told"]()


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
        self._ends = False
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        TOLD.append(self)
        self.hear()

    def end(self, api: KubeApi) -> None:
        self._ends = True
        while self._thread.is_alive():
            api.mark()
            self._thread.join(0.1)

    def _listen(self) -> None:
        try:
            for news in self._changes:
                self.news.put(news)
                if self._ends:
                    break
        except Exception as error:  # noqa: BLE001
            self.news.put(error)
        self._changes.close()

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


# --- hosts


def test_who_joins_says_so_on_its_own_node_and_no_other(api: KubeApi):
    before = api.get("Node", "node-b")
    session = store_at(api).join(A, "boot:1")
    said = api.get("Node", "node-a")["metadata"]["annotations"]
    assert said == {
        "agent-cni.dev/machine": "machine-a",
        "agent-cni.dev/vtep": "192.0.2.1",
        "agent-cni.dev/mac": A.mac,
        "agent-cni.dev/session": "boot:1",
    }
    assert api.get("Node", "node-b") == before
    moved = replace(A, vtep="192.0.2.9", wireguard="key", underlay="192.0.2.1:51820")
    assert store_at(api).announce(session, moved).node == moved
    assert api.get("Node", "node-a")["metadata"]["annotations"]["agent-cni.dev/vtep"] == "192.0.2.9"
    store_at(api).leave(session)
    assert api.get("Node", "node-a")["metadata"]["annotations"] == {}
    store_at(api).leave(session)


def test_a_host_is_where_its_node_says(api: KubeApi):
    store = joined(api)
    assert store.reached_at("node-a") == "192.0.2.1"
    with told(store):
        known = api.get("Node", "node-a")
        known["status"]["addresses"] = [
            {"type": "Hostname", "address": "node-a"}, {"type": "ExternalIP", "address": "203.0.113.1"},
            {"type": "InternalIP", "address": "192.0.2.9"}, {"type": "InternalIP", "address": "2001:db8::9"},
        ]  # fmt: skip
        api.put(known)
        until = time.monotonic() + SOON
        while store.reached_at("node-a") != "192.0.2.9":
            assert time.monotonic() < until
            time.sleep(0.01)
        asked = len([1 for verb, _ in api.requests if verb == "get"])
        assert [store.reached_at("node-a") for _ in range(3)] == ["192.0.2.9"] * 3
        assert len([1 for verb, _ in api.requests if verb == "get"]) == asked, "who is told need not ask"
    for addresses in (
        [{"type": "InternalIP", "address": "nowhere"}],
        [{"type": "Hostname", "address": "node-a"}],
        None,
    ):
        known["status"]["addresses"] = addresses
        api.put(known)
        assert store_at(api).reached_at("node-a") == ""
    assert store_at(api, "nobody").reached_at("nobody") == ""


def test_without_its_node_a_host_is_in_no_cluster(api: KubeApi):
    with pytest.raises(Unavailable, match="Kubernetes has no Node node-x: its kubelet makes it"):
        store_at(api, "node-x").join(replace(A, name="node-x"), "boot:1")


def test_another_machine_has_a_name_only_when_its_kubelet_says_so(api: KubeApi):
    session = store_at(api).join(A, "boot:1")
    other = replace(A, machine="another")
    with pytest.raises(NameTaken, match="another machine"):
        store_at(api).join(other, "boot:2")
    known = api.get("Node", "node-a")
    known["status"]["nodeInfo"]["machineID"] = "another"
    api.put(known)
    assert store_at(api).join(other, "boot:2").node == other
    store = store_at(api)
    with pytest.raises(SessionLost):
        store.renew(session)
    with pytest.raises(NameTaken):
        store.leave(session)


def test_another_life_of_a_machine_waits_until_its_kubelet_speaks_for_it(api: KubeApi):
    known = api.get("Node", "node-a")
    known["status"]["nodeInfo"]["bootID"] = "first"
    api.put(known)
    session = store_at(api).join(A, "first:1")
    assert store_at(api).join(A, "first:1") == session
    with pytest.raises(NameTaken, match="speaks for boot first"):
        store_at(api).join(A, "second:1")
    known = api.get("Node", "node-a")
    known["status"]["nodeInfo"]["bootID"] = "second"
    api.put(known)
    store_at(api).join(A, "second:1")
    with pytest.raises(SessionLost):
        store_at(api).renew(session)


def test_a_session_ends_with_its_node_also_if_that_comes_again(api: KubeApi):
    store = store_at(api)
    session = store.join(A, "boot:1")
    api.delete("Node", "node-a")
    store.saw(None)
    with pytest.raises(SessionLost):
        store.renew(session)
    api.put(node("node-a", "10.10.0.0/26"))
    with pytest.raises(SessionLost):
        store.claim(session, Block("pods", "10.10.0.0/26", "node-a", "machine-a"))
    again = store.join(A, "boot:1")
    assert again.fence != session.fence
    store.renew(again)


@pytest.mark.parametrize("asked", ["get", "annotate"])
def test_what_is_heard_of_a_node_while_it_is_asked_for_counts(
    api: KubeApi, monkeypatch: pytest.MonkeyPatch, asked: str
):
    store = store_at(api)
    session = store.join(A, "boot-a:1")
    asks = {
        "get": lambda: store.look("node-a"),
        "annotate": lambda: store.announce(session, replace(A, vtep="192.0.2.9")),
    }
    answer = getattr(store.api, asked)

    def late(*args: Any) -> Any:
        found = answer(*args)
        api.delete("Node", "node-a")
        store.saw(None)  # as a watch does, which hears of it before the answer is read
        monkeypatch.setattr(store.api, asked, answer)
        return found

    monkeypatch.setattr(store.api, asked, late)
    asks[asked]()
    with pytest.raises(SessionLost):
        store.renew(session)


def test_to_be_heard_of_costs_a_host_that_is_told_of_nodes_no_request(api: KubeApi):
    store = joined(api)
    session = store.join(A, "boot-node-a:1")
    before = len(api.requests)
    for _ in range(5):
        store.renew(session)
        store.speak(session)
    assert len(api.requests) == before


@pytest.mark.parametrize("change", [{"vtep": "192.0.2.66"}, {"vtep": None, "mac": None}, {"wireguard": "somebody's"}])
def test_what_somebody_else_has_a_node_say_is_said_right_again(api: KubeApi, change: dict[str, str | None]):
    """Whoever may patch Nodes could lead the pods' traffic of all hosts to himself, until the member began again."""
    store = joined(api)
    session = store.join(A, "boot-node-a:1")
    said = api.get("Node", "node-a")
    right = said["metadata"]["annotations"]
    wrong = {f"agent-cni.dev/{name}": text for name, text in change.items()}
    wrong = {name: text for name, text in (right | wrong).items() if text}
    store.saw(None)
    api.put(said | {"metadata": said["metadata"] | {"annotations": wrong}})
    store.renew(session)
    assert api.get("Node", "node-a")["metadata"]["annotations"] == right
    asked = len(api.requests)
    store.renew(session)
    assert len(api.requests) == asked


def test_who_changes_a_node_meanwhile_loses_nothing(api: KubeApi, monkeypatch: pytest.MonkeyPatch):
    store, looked = store_at(api), list[str]()
    look = store.look

    def meanwhile(name: str) -> Any:
        found = look(name)
        if len(looked) < 3:
            looked.append(name)
            known = api.get("Node", name)
            known["metadata"]["annotations"] = {"others": str(len(looked))}
            api.put(known)
        return found

    monkeypatch.setattr(store, "look", meanwhile)
    store.join(A, "boot:1")
    said = api.get("Node", "node-a")["metadata"]["annotations"]
    assert (said["others"], said["agent-cni.dev/machine"]) == ("3", "machine-a")


# --- blocks


def test_a_block_is_a_hosts_when_its_node_was_given_it(api: KubeApi):
    store = joined(api)
    session = store.join(A, "boot-node-a:1")
    mine, theirs = (
        Block("pods", "10.10.0.0/26", "node-a", "machine-a"),
        Block("pods", "10.10.0.64/26", "node-a", "machine-a"),
    )
    assert store.claim(session, mine)
    assert not store.claim(session, theirs)
    assert not store.claim(session, replace(mine, network="others"))
    at = Endpoint("pods", "10.10.0.5", "node-a", "0a:58:0a:0a:00:05", "c1", "eth0")
    assert store.publish(session, mine, [at], [])
    assert not store.publish(session, theirs, [], [])
    with told(store) as heard:
        assert heard.of(Endpoint) == {at}


def test_a_podcidr_is_cut_into_a_networks_blocks(api: KubeApi):
    six = replace(NET, pools=(*NET.pools, Pool("fd00:10::/48", "fd00:10::1", "fd00:10:0:ffff:ffff:ffff:ffff:ffff", "")))
    api.put(node("node-a", "10.10.4.0/24", "fd00:10:0:1::/64"))
    with told(joined(api, six)) as heard:
        spans = {item.span for item in heard.of(Block) if item.node == "node-a"}
    assert {span for span in spans if "." in span} == {f"10.10.4.{part}/26" for part in (0, 64, 128, 192)}
    assert len(spans) == 4 + 4096 // 64
    assert {"fd00:10:0:1::/122", "fd00:10:0:1::fc0/122"} <= spans


def test_what_no_block_fits_into_is_named(api: KubeApi):
    api.put(node("node-a", "10.10.0.0/27"))
    with told(joined(api)) as heard:
        assert {item.node for item in heard.of(Block)} == {"node-b"}
    found = store_at(api).listing().refused
    assert any(
        "podCIDR 10.10.0.0/27 is smaller than a block of pods, 64 addresses (blockSize)" in line for line in found
    )


def test_a_block_that_is_withdrawn_is_gone_and_another_is_there(api: KubeApi):
    with told(joined(api)) as heard:
        known = api.get("Node", "node-b")
        known["spec"] = {"podCIDR": "10.10.9.0/26", "podCIDRs": ["10.10.9.0/26"]}
        api.put(known)
        block = Block("pods", "10.10.9.0/26", "node-b", "machine-b")
        heard.until(block.key, block)
        heard.until(("blocks", "pods", "10.10.0.64/26"), None)
        assert heard.listings == 1


def test_of_two_nodes_with_one_podcidr_the_older_has_it(api: KubeApi):
    api.put(node("node-c", "10.10.0.64/26"))
    store_at(api, "node-c").join(Node("node-c", "machine-c", "192.0.2.3", "0a:00:00:00:00:03"), "boot:1")
    with told(joined(api)) as heard:
        assert {item.node for item in heard.of(Block)} == {"node-a", "node-b"}


def test_a_deleted_nodes_block_is_free_when_that_was_said_twice_and_no_pod_lives_there(
    api: KubeApi, monkeypatch: pytest.MonkeyPatch
):
    now = [0.0]
    monkeypatch.setattr("cni.cluster.kubernetes.roster.Roster.__init__.__defaults__", (lambda: now[0],))
    key = ("blocks", "pods", "10.10.0.64/26")
    api.put(pod("late", "node-b", "10.10.0.70"))
    with told(joined(api)) as heard:

        def watched(ready: str) -> None:
            known = api.get("Node", "node-a")
            known["status"]["conditions"] = [{"type": "Ready", "status": ready}]
            api.put(known)
            heard.until(("alive", "node-a"), None if ready == "Unknown" else Alive("node-a", "boot-node-a:1"))

        api.delete("Node", "node-b")
        watched("Unknown")
        now[0] += 601
        while not [path for verb, path in api.requests if "spec.nodeName" in path]:
            time.sleep(0.05)
        watched("True")
        assert key in heard.items, "a pod lives there"
        api.delete("Pod", "late", "default")
        watched("Unknown")
        assert key in heard.items
        now[0] += 601
        heard.until(key, None)
        assert ("nodes", "node-b") not in heard.items


def test_a_deleted_nodes_block_is_not_free_because_all_is_listed_anew(api: KubeApi):
    """A first policy takes another listing; an API that was away takes another watch."""
    key, store = ("blocks", "pods", "10.10.0.64/26"), joined(api)
    with told(store) as heard:
        api.delete("Node", "node-b")
        api.put(policy("first"))
        heard.until(("documents", "NetworkPolicy", "default", "first"), _said("NetworkPolicy", "first"))
        assert (heard.listings, heard.items[key].node) == (2, "node-b")
    with told(store) as heard:
        heard.hear()
        assert heard.items[key].node == "node-b"
        other = node("node-c", "10.10.0.64/26")
        api.put(other)
    store_at(api, "node-c").join(Node("node-c", "machine-c", "192.0.2.3", "0a:00:00:00:00:03"), "boot:1")
    with told(store) as heard:
        heard.hear()
        assert heard.items[key].node == "node-c"
        assert ("nodes", "node-b") not in heard.items


def test_a_deleted_node_that_comes_back_keeps_all_and_one_that_has_its_block_takes_it(api: KubeApi):
    key = ("blocks", "pods", "10.10.0.64/26")
    with told(joined(api)) as heard:
        api.delete("Node", "node-b")
        heard.hear()
        assert heard.items[key].node == "node-b"
        api.put(node("node-c", "10.10.0.64/26"))
        other = Node("node-c", "machine-c", "192.0.2.3", "0a:00:00:00:00:03")
        store_at(api, "node-c").join(other, "boot:1")
        heard.until(key, Block("pods", "10.10.0.64/26", "node-c", "machine-c"))
        assert ("nodes", "node-b") not in heard.items


def test_who_is_away_is_who_kubelet_does_not_speak_for(api: KubeApi):
    with told(joined(api)) as heard:
        known = api.get("Node", "node-b")
        known["status"]["conditions"] = [{"type": "Ready", "status": "Unknown"}]
        api.put(known)
        heard.until(("alive", "node-b"), None)
        assert heard.items["blocks", "pods", "10.10.0.64/26"].node == "node-b"


# --- pods and policies


def test_in_a_stretched_network_pods_elsewhere_and_hosts_are_endpoints(api: KubeApi):
    api.put(pod("far", "node-b", "10.10.0.70"))
    api.put(pod("done", "node-b", "10.10.0.71", phase="Succeeded"))
    api.put(pod("near", "node-a", "10.10.0.7"))
    api.put(pod("host", "node-b", "192.0.2.2") | {"spec": {"nodeName": "node-b", "hostNetwork": True}})
    with told(joined(api, FLAT)) as heard:
        far = Endpoint("pods", "10.10.0.70", "node-b", "0a:58:0a:0a:00:46", pod="default/far")
        itself = Endpoint("pods", "10.10.0.64", "node-b", B.mac)
        assert heard.of(Endpoint) == {far, itself}
        api.put(pod("next", "node-b", "10.10.0.70"))  # its former pod's object is there still
        heard.until(far.key, far._replace(pod="default/next"))
        api.delete("Pod", "far", "default")
        api.put(pod("last", "node-b", "10.10.0.72"))
        heard.until(
            ("addresses", "pods", "10.10.0.72"),
            Endpoint("pods", "10.10.0.72", "node-b", "0a:58:0a:0a:00:48", pod="default/last"),
        )
        assert heard.items[far.key].pod == "default/next"


def test_pods_are_heard_of_once_a_policy_goes_by_them(api: KubeApi):
    api.put(pod("web", "node-b", "10.10.0.70", app="web"))
    api.put(namespace("default", team="x"))
    with told(joined(api)) as heard:
        assert heard.of(Document) == set()
        api.put(policy("shut"))
        heard.until(("documents", "NetworkPolicy", "default", "shut"), _said("NetworkPolicy", "shut"))
        assert heard.listings == 2
        assert {(item.kind, item.name) for item in heard.of(Document)} == {
            ("NetworkPolicy", "shut"), ("Pod", "web"), ("Namespace", "default"), ("Node", "node-a"), ("Node", "node-b"),
        }  # fmt: skip
        place = Endpoint("pods", "10.10.0.70", "node-b", "0a:58:0a:0a:00:46", pod="default/web")
        assert heard.of(Endpoint) == {place}, "who is selected is where the cluster says"
        web = heard.items["documents", "Pod", "default", "web"].value
        assert web["metadata"] == {"name": "web", "namespace": "default", "labels": {"app": "web"}}
        assert web["spec"]["containers"] == [{"ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]}]
        assert web["status"] == {"phase": "Running", "podIPs": [{"ip": "10.10.0.70"}], "podIP": "10.10.0.70"}
        api.put(pod("web", "node-b", "10.10.0.70", app="db"))
        while heard.items["documents", "Pod", "default", "web"].value["metadata"]["labels"] != {"app": "db"}:
            heard.hear()


def test_who_is_fed_by_a_folder_hears_where_pods_are(api: KubeApi):
    api.put(pod("web", "node-b", "10.10.0.70"))
    fed = list[bool]()
    with told(joined(api), Sparing("node-a", lambda _: False, lambda: bool(fed))) as heard:
        assert heard.of(Endpoint) == set()
        fed.append(True)
        while not heard.of(Endpoint):
            heard.hear()
        assert heard.of(Document) == set()


def _said(kind: str, name: str) -> Any:
    class Same:
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Document) and (other.kind, other.name) == (kind, name)

        __hash__ = None

    return Same()


def test_a_change_of_what_nobody_asks_for_is_no_news(api: KubeApi):
    api.put(policy("shut"))
    api.put(pod("web", "node-b", "10.10.0.70"))
    with told(joined(api)) as heard:
        known = api.get("Pod", "web", "default")
        api.put(known | {"status": known["status"] | {"conditions": [{"type": "Ready", "status": "True"}]}})
        api.put(pod("mark", "node-b"))
        news = heard.hear()
        while not news.put:
            news = heard.hear()
        assert [item.name for item in news.put] == ["mark"]


def test_an_administrators_kind_is_heard_of_once_it_is_served(api: KubeApi, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("cni.cluster.kubernetes.streams._SERVED", 0.1)
    spec = {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, "ingress": []}
    version = "policy.networking.k8s.io/v1alpha2"
    with told(joined(api)) as heard:
        api.absent.discard(CUSTOM)
        api.put({"kind": "ClusterNetworkPolicy", "apiVersion": version, "metadata": {"name": "top"}, "spec": spec})
        key = ("documents", "ClusterNetworkPolicy", "default", "top")
        heard.until(key, _said("ClusterNetworkPolicy", "top"))
        assert heard.items[key].value["apiVersion"] == version


def test_until_then_it_costs_a_request_for_each_version(api: KubeApi, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("cni.cluster.kubernetes.streams._SERVED", 0.1)
    versions = {f"{one.path(version)}" for one in POLICIES[1:] for version in one.versions}
    with told(joined(api)):
        deadline = time.monotonic() + 10
        while {path.partition("?")[0] for _, path in api.requests[-12:]} != versions:
            assert time.monotonic() < deadline, api.requests
            time.sleep(0.02)


@pytest.mark.parametrize("lost", [{"networkpolicies"}, {*KINDS}])
def test_what_somebody_before_the_api_does_not_find_is_not_gone(
    api: KubeApi, monkeypatch: pytest.MonkeyPatch, lost: set[str]
):
    """A proxy whose API servers are away may say 404 of all there is: nothing is taken back by that, no policy and no host."""
    monkeypatch.setattr("cni.cluster.kubernetes.streams._LATER", 0.1)
    key = ("documents", "ClusterNetworkPolicy", "default", "top")
    api.absent -= {CUSTOM}
    api.put(policy("shut"))
    api.put(policy("top") | {"kind": "ClusterNetworkPolicy", "metadata": {"name": "top"}})
    store = joined(api)
    session = store.join(A, "boot-node-a:1")
    with told(store) as heard:
        before = dict(heard.items)
        served, api.absent = api.absent, api.absent | lost
        api.compact()
        time.sleep(1)
        if "nodes" in lost:
            with pytest.raises(Unreachable, match="404"):
                store.look("node-a")
        api.absent = served
        store.renew(session)
        api.put(policy("mark"))
        while ("documents", "NetworkPolicy", "default", "mark") not in heard.items:
            heard.hear()
            assert before.keys() <= heard.items.keys()
        assert key in before


class _Returning(set[str]):
    """What is not served, until somebody asks for Nodes."""

    def __contains__(self, plural: object) -> bool:
        if plural == "nodes":
            self.clear()
        return super().__contains__(plural)


def test_an_api_that_comes_back_between_two_questions_has_each_kind(api: KubeApi):
    api.absent -= {CUSTOM}
    api.put(policy("top") | {"kind": "ClusterNetworkPolicy", "metadata": {"name": "top"}})
    store = store_at(api)
    api.absent = _Returning(KINDS)
    assert [one.metadata.name for one in store.api.list(POLICIES[1]).objects] == ["top"]


@pytest.mark.parametrize("plural", ["networkpolicies", CUSTOM, "pods", "namespaces"])
def test_where_policies_may_not_be_read_nothing_is_said_of_them(
    api: KubeApi, plural: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("cni.cluster.kubernetes.streams._LATER", 0.1)
    api.put(policy("shut"))
    store = joined(api)
    api.forbidden.add(("list", plural))
    with told(store) as heard:
        listing = store.listing()
        assert heard.of(Document) == set()
        assert {item.node for item in heard.of(Block)} == {"node-a", "node-b"}
        assert "does not let this host list " + plural in listing.undocumented
        assert listing.undocumented in listing.refused
        api.forbidden.clear()
        heard.until(("documents", "NetworkPolicy", "default", "shut"), _said("NetworkPolicy", "shut"))
    assert store.listing().undocumented == ""


@pytest.mark.parametrize("policies", [False, True], ids=["no policy", "policies"])
def test_where_pods_may_not_be_listed_no_listing_says_that_there_are_none(api: KubeApi, policies: bool):
    """All rows of pods elsewhere went, and with them the way to every pod."""
    if policies:
        api.put(policy("shut"))
    api.put(pod("there", "node-b", "10.10.0.70"))
    store = joined(api, FLAT)
    api.forbidden.add(("list", "pods"))
    with pytest.raises(Forbidden, match="does not let this host list pods"):
        next(store.changes(SPARING))
    with pytest.raises(Forbidden, match="does not let this host list pods"):
        store.listing()
    api.forbidden.clear()
    with told(store) as heard:
        assert {item.address for item in heard.of(Endpoint) if item.pod} == {"10.10.0.70"}
        api.forbidden.add(("list", "pods"))
        store.declare(store.join(A, "boot-node-a:1"), replace(FLAT, name="more"))  # for which all is listed anew
        with pytest.raises(Forbidden, match="does not let this host list pods"):
            heard.until(("networks", "more"), replace(FLAT, name="more"))
        assert {item.address for item in heard.of(Endpoint) if item.pod} == {"10.10.0.70"}


@pytest.mark.parametrize("verb", ["get", "patch"])
def test_a_denied_verb_is_named_with_what_it_is_of(api: KubeApi, verb: str):
    api.forbidden.add((verb, "nodes"))
    with pytest.raises(
        Forbidden, match=f'does not let this host {verb} nodes: nodes is forbidden: User "node" cannot {verb}'
    ):
        store_at(api).join(A, "boot:1")


# --- an API that is not well


def test_a_list_comes_in_pages_and_begins_anew_when_one_is_forgotten(api: KubeApi):
    for number in range(601):
        api.put(pod(f"p{number}", "node-b", f"10.10.{1 + number // 250}.{number % 250}"))
    store = joined(api, FLAT)
    api.expiring = 1
    assert len([item for item in store.listing().items if isinstance(item, Endpoint)]) == 601 + 1
    assert len([path for verb, path in api.requests if verb == "list" and "/pods" in path and "continue" in path]) == 3


def test_a_long_list_comes_packed(api: KubeApi):
    for number in range(250):
        api.put(pod(f"p{number}", "node-b", f"10.10.1.{number}", label="long" * 200))
    store = joined(api, FLAT)
    before = api.sent
    assert len([item for item in store.listing().items if isinstance(item, Endpoint)]) == 250 + 1
    assert api.sent - before < 100_000, "of 250 pods with 800 bytes each"


def test_what_was_deleted_while_changes_were_forgotten_is_found(api: KubeApi):
    for name in ("stays", "goes"):
        api.put(policy(name))
    with told(joined(api)) as heard:
        with api.changed:
            api.delete("NetworkPolicy", "goes", "default")
            api.put(policy("comes"))
            api.compact()
        heard.until(("documents", "NetworkPolicy", "default", "goes"), None)
        heard.until(("documents", "NetworkPolicy", "default", "comes"), _said("NetworkPolicy", "comes"))
        assert ("documents", "NetworkPolicy", "default", "stays") in heard.items
        assert heard.listings == 1


def _lists(api: KubeApi) -> int:
    return len([path for verb, path in api.requests if verb == "list" and path.endswith("/nodes?limit=250")])


def test_who_is_told_again_and_again_that_changes_are_forgotten_asks_ever_later(api: KubeApi):
    with told(joined(api)) as heard:
        before = _lists(api)
        api.forgotten = 1 << 40
        api.end_watches()
        threading.Event().wait(3)
        assert _lists(api) - before <= 4
        api.forgotten = 0
        api.put(node("node-b", "10.10.9.0/26"))
        heard.until(("blocks", "pods", "10.10.0.64/26"), None)


def test_where_there_is_much_to_list_hosts_do_not_list_it_at_one_time(api: KubeApi, monkeypatch: pytest.MonkeyPatch):
    """Of 5,000 hosts all that an API has forgotten is 25 million Nodes; meanwhile each asks for its own."""
    for number in range(8):
        api.put(node(f"more-{number}"))
    store = joined(api)
    session = store.join(A, "boot-node-a:1")
    with told(store):
        monkeypatch.setattr("cni.cluster.kubernetes.streams._EACH", 1.0)
        before = _lists(api)
        with api.changed:
            api.put(node("more-8"))
            api.compact()
            asked = len(api.requests)
        until = time.monotonic() + SOON
        while ("get", "/api/v1/nodes/node-a") not in api.requests[asked:]:
            assert time.monotonic() < until
            store.renew(session)
            time.sleep(0.01)
        threading.Event().wait(1)
        assert _lists(api) == before


def test_what_comes_and_goes_in_one_breath_is_not_there(api: KubeApi, monkeypatch: pytest.MonkeyPatch):
    """A pod that ends is changed and deleted in one moment: both may be heard of at once, and what comes last counts."""
    has_come, wait = threading.Event(), Streams.wait

    def at_once(self: Streams, seconds: float) -> list[News]:
        has_come.wait(SOON)
        time.sleep(0.2)
        return wait(self, seconds)

    monkeypatch.setattr(Streams, "wait", at_once)
    api.put(policy("shut"))
    for name in ("ends", "again"):
        api.put(pod(name, "node-b", f"10.10.0.{70 + len(name)}"))
    with told(joined(api, FLAT)) as heard:
        for name in ("ends", "again", "brief"):
            api.put(pod(name, "node-b", f"10.10.0.{70 + len(name)}", app="changed"))
            api.delete("Pod", name, "default")
        api.put(pod("again", "node-b", "10.10.0.80"))
        api.put(pod("mark", "node-b"))
        has_come.set()
        heard.until(("documents", "Pod", "default", "mark"), _said("Pod", "mark"))
        assert {item.name for item in heard.of(Document) if item.kind == "Pod"} == {"again", "mark"}
        assert {item.address for item in heard.of(Endpoint) if item.pod} == {"10.10.0.80"}


def test_a_watch_that_ends_or_marks_goes_on_from_where_it_was(api: KubeApi):
    with told(joined(api)) as heard:
        for number in range(3):
            api.mark()
            api.end_watches()
            api.put(node("node-b", f"10.10.{number}.64/26"))
            for name, host in (("node-b", B),):
                store_at(api, name).join(host, "boot:1")
            key = ("blocks", "pods", f"10.10.{number}.64/26")
            heard.until(key, Block(*key[1:], "node-b", "machine-b"))
        assert heard.listings == 1
    listed = [path for verb, path in api.requests if verb == "list" and "/nodes" in path]
    assert len([path for path in listed if "Selector" not in path]) == 1


def test_what_nobody_listens_to_yet_waits_in_the_api(api: KubeApi, monkeypatch: pytest.MonkeyPatch):
    """A hand that is busy for minutes found all that happened meanwhile in its own memory."""
    monkeypatch.setattr("cni.cluster.kubernetes.streams._WAITING", 20)
    read, seen = kubernetes_api.read, list[Any]()
    monkeypatch.setattr(kubernetes_api, "read", lambda *args: (seen.append(args), read(*args))[1])
    client, others = store_at(api).api, {*threading.enumerate()}
    listed = client.list(PODS)
    del seen[:]
    with closing(Streams(client, {PODS: listed})) as streams:
        for number in range(300):
            api.put(pod(f"pod-{number}", "node-b"))
        threading.Event().wait(0.5)
        assert len(seen) <= 21
        heard = list[str]()
        while len(heard) < 300:
            heard += [one.metadata.name for news in streams.wait(SOON) for one in news.put]
        assert heard == [f"pod-{number}" for number in range(300)]
        for number in range(100):
            api.put(pod(f"pod-{number}", "node-b"))
        threading.Event().wait(0.2)
    api.end_watches()
    ends = time.monotonic() + SOON
    while any(thread.name == "watch-pods" for thread in {*threading.enumerate()} - others):
        assert time.monotonic() < ends, "who cannot tell it ends all the same"
        time.sleep(0.01)


def test_a_watch_goes_on_after_what_cannot_be_read_which_stays_as_it_was(api: KubeApi):
    api.put(policy("shut"))
    key = ("documents", "NetworkPolicy", "default", "after")
    with told(joined(api)) as heard:
        wrong = policy("shut")
        wrong["metadata"]["labels"] = {"app": 5}
        api.put(wrong)
        api.put(policy("after"))
        refused = list[str]()
        while heard.items.get(key) is None:
            refused += heard.hear().refused
        assert ["networkpolicies.networking.k8s.io in the store: " in line for line in refused] == [True]
        assert heard.items["documents", "NetworkPolicy", "default", "shut"] == _said("NetworkPolicy", "shut")


def test_while_the_api_is_away_nothing_is_lost_and_then_all_goes_on(api: KubeApi):
    store = joined(api)
    with told(store) as heard:
        session = store.join(A, "boot-node-a:1")
        api.stop()
        store.saw(None)
        with pytest.raises(Unreachable):
            store.renew(session)
        api.start()
        store.renew(session)
        known = api.get("Node", "node-b")
        known["spec"] = {"podCIDR": "10.10.9.0/26", "podCIDRs": ["10.10.9.0/26"]}
        api.put(known)
        key = ("blocks", "pods", "10.10.9.0/26")
        heard.until(key, Block(*key[1:], "node-b", "machine-b"))
        assert heard.listings == 1


def test_a_watch_that_says_nothing_is_begun_anew(api: KubeApi, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("cni.cluster.kubernetes.streams.Streams.__init__.__defaults__", (0.3,))
    monkeypatch.setattr("cni.cluster.kubernetes.hosts._PATIENCE", 0.3)
    store = joined(api)
    api.mute = True
    with told(store) as heard:
        threading.Event().wait(0.5)
        known = api.get("Node", "node-b")
        known["spec"] = {"podCIDR": "10.10.9.0/26", "podCIDRs": ["10.10.9.0/26"]}
        api.put(known)
        threading.Event().wait(0.5)
        api.mute = False
        key = ("blocks", "pods", "10.10.9.0/26")
        heard.until(key, Block(*key[1:], "node-b", "machine-b"))
    assert len([1 for verb, path in api.requests if verb == "watch" and "/nodes" in path]) > 1


def test_a_busy_api_is_asked_again_when_it_says(api: KubeApi):
    api.busy = 2
    started = time.monotonic()
    assert store_at(api).join(A, "boot:1").node == A
    assert 2 <= time.monotonic() - started < 8


def test_a_slow_list_is_waited_for(api: KubeApi):
    api.slow = 1.0
    assert {item.name for item in joined(api).listing().items if isinstance(item, Node)} == {"node-a", "node-b"}


def test_a_token_is_read_again_when_it_changes(api: KubeApi, tmp_path: Path):
    token = tmp_path / "token"
    token.write_text("first\n")
    api.token = "first"
    store = store_at(api, token=str(token))
    session = store.join(A, "boot:1")
    api.token = "second"
    store.saw(None)
    with pytest.raises(Unreachable, match=f"does not know who asks, by {token}: Unauthorized"):
        store.renew(session)
    token.write_text("second\n")
    store.renew(session)
    token.unlink()
    store.saw(None)
    store.renew(session)


def test_without_a_place_nobody_is_asked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(Unavailable, match="no pod of Kubernetes"):
        KubernetesStore(KubernetesConfig(), "node-a", 15)


def test_what_cannot_be_read_is_named_and_ends_nothing(api: KubeApi):
    store = joined(api)
    bad = api.get("Node", "node-b")
    bad["metadata"]["annotations"] |= {"agent-cni.dev/mac": "no MAC", "agent-cni.dev/networks": "{"}
    api.put(bad)
    api.put(node("odd") | {"spec": {"podCIDRs": "no list"}})
    with told(store) as heard:
        assert {item.name for item in heard.of(Node)} == {"node-a"}
    refused = store.listing().refused
    assert any("nodes/node-b in the store: 'no MAC' is no MAC" in line for line in refused)
    assert any("nodes/node-b in the store: agent-cni.dev/networks" in line for line in refused)
    assert any("nodes in the store: Expected `array" in line for line in refused)


# --- who can serve


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


# --- what is said of every store


class Scene:
    """Two Nodes with a block each, for what holds of whoever keeps a cluster."""

    seconds = 1.0

    def __init__(self, api: KubeApi) -> None:
        self.api = api
        api.put(node("node-a", "10.10.0.64/26"))
        api.put(node("node-b", "10.10.0.128/26"))

    def store(self) -> KubernetesStore:
        return store_at(self.api)

    def pass_time(self, seconds: float) -> None:
        raise AssertionError("nothing ends by time")

    def put_text(self, key: object, text: str) -> None:
        raise AssertionError("a key is no object")


#: The statements that hold here, too.
KEPT = {
    "who_joins_is_known_and_alive", "who_comes_back_in_the_same_life_goes_on", "what_changed_of_a_host_is_said",
}  # fmt: skip
#: What the API cannot promise, by why, and what holds instead is above.
NOT_KEPT = {
    "nothing ends by time: kubelet keeps a Node alive, and says which machine and which boot lives under its name": {
        "another_machine_does_not_get_a_name_also_of_a_host_that_is_gone",
        "another_life_begins_when_the_former_is_not_heard_of_any_more",
        "another_life_of_a_machine_does_not_begin_while_one_is_heard_of",
        "a_session_goes_on_while_it_is_renewed_and_no_longer", "who_was_not_heard_of_writes_nothing",
        "that_a_host_is_not_heard_of_any_more_is_told", "who_was_lost_leaves_too",
        "nobody_leaves_for_another_who_has_the_name_by_now", "of_two_who_speak_as_one_life_one_is_told",
    },
    "a Node is there before its host, and is kubectl's to delete; its name is a DNS one": {
        "one_of_many_who_want_a_name_has_it", "names_may_be_odd", "who_is_gone_is_removed_and_who_lives_is_not",
    },
    "nobody claims a block: it is a podCIDR, and a host that leaves has it still": {
        "a_block_has_one_owner", "no_block_overlaps_another", "one_of_many_who_want_a_block_has_it",
        "a_block_that_is_given_up_is_free_with_all_that_is_in_it", "nobody_speaks_for_another_hosts_block",
        "what_went_and_came_again_is_told_to_have_gone", "who_leaves_leaves_nothing_and_others_keep_all",
    },
    "a host's own word of a network counts for it": {
        "a_network_is_what_the_first_said", "a_network_nobody_has_a_block_of_may_become_another",
    },
    "others hear of pods by their objects, which hosts do not write": {
        "of_others_endpoints_is_told_where_they_are_and_not_by_which_container",
        "what_is_said_of_a_block_is_there_and_what_is_gone_is_not", "any_number_of_endpoints_is_said",
        "what_changes_is_told_after_all_there_is", "who_needs_no_endpoints_is_told_of_none_but_those_of_its_own_blocks",
        "who_comes_to_need_endpoints_is_told_of_all_before_what_needs_them",
    },
    "documents are Kubernetes' objects: kubectl": {"documents_are_what_was_said_last", "documents_are_heard_of"},
    "a quiet API marks how far it is every minute": {"that_nothing_changes_is_told_every_few_seconds"},
    "objects have a schema, so that only annotations can be wrong": {"what_cannot_be_read_is_named_and_ends_nothing"},
    "nothing is done here by one host for all": {"one_host_at_a_time_has_a_turn"},
}  # fmt: skip


def test_each_promise_of_a_store_is_kept_or_said_not_to_be():
    every = [holds.__name__ for holds in cluster_contract.STATEMENTS]
    assert sorted([*KEPT, *(name for names in NOT_KEPT.values() for name in names)]) == sorted(every)


@pytest.mark.parametrize("name", sorted(KEPT))
def test_what_is_kept_of_a_stores_promises(name: str):
    with KubeApi() as api:
        next(holds for holds in cluster_contract.STATEMENTS if holds.__name__ == name)(Scene(api))


def test_it_is_asked_as_every_store_is():
    for name, method in inspect.getmembers(ClusterStore, inspect.isfunction):
        if not name.startswith("_"):
            assert (
                inspect.signature(getattr(KubernetesStore, name)).parameters == inspect.signature(method).parameters
            ), name


def test_a_machine_cannot_say_what_is_not_its_own_to_say(api: KubeApi):
    store = joined(api)
    session = store.join(A, "boot-node-a:1")
    block = Block("pods", "10.10.0.0/26", "node-a", "machine-a")
    document = Document("NetworkPolicy", "default", "one", "{}")
    for what, words in (
        (lambda: store.remove("node-b"), "kubectl delete node node-b"),
        (lambda: store.apply([document]), "kubectl apply"),
        (lambda: store.delete([document.key]), "kubectl delete"),
    ):
        with pytest.raises(Conflict, match=words):
            what()
    assert store.give_up(session, block)
    assert store.claim(session, block)
    assert not store.turn(session, "steward", 5)
