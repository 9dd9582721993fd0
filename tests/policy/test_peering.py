"""Whom policies select, by what is recorded of attachments and what a folder says: in every folder of the node, at one time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from cni.naming import Attachment, peer_set
from cni.node import Node
from cni.policy.labels import Requirement, Selector
from cni.policy.objects import NamedPort
from cni.policy.peering import Peering
from cni.policy.selection import Selection
from cni.resources import PeerEntries, PeerSet, World, uses_of
from cni.state import Record, Store
from cni.values import replace

HTTP = NamedPort("tcp", "http")
FOUR = {name: bytes([10, 1, 0, number]) for name, number in {"web": 5, "db": 6, "new": 7}.items()}


def kube(kind: str, name: str, **more: Any) -> dict[str, Any]:
    labels = more.pop("labels", {})
    return {"kind": kind, "metadata": {"namespace": "shop", "name": name, "labels": labels}, **more}


class Town:
    """A folder of objects, and what attachments of some networks are recorded."""

    def __init__(self, tmp_path: Path, held: ExitStack) -> None:
        self.folder = tmp_path / "feed"
        self.folder.mkdir()
        self._held, self._places = held, tmp_path
        self.objects: dict[str, Any] = {}
        self.put("web", app="web")

    def put(self, name: str, address: str = "", **labels: str) -> None:
        ports = [{"ports": [{"name": "http", "containerPort": 80}]}]
        status = {"podIP": address} if address else {}
        self.objects[name] = kube("Pod", name, labels=labels, spec={"containers": ports}, status=status)
        (self.folder / "pods.json").write_text(json.dumps({"kind": "List", "items": [*self.objects.values()]}))

    @property
    def feed(self) -> str:
        return f"folder {self.folder}"

    def selection(self, app: str = "", port: NamedPort | None = None) -> Selection:
        wanted = (Requirement("app", "In", frozenset([app])),) if app else ()
        return Selection(self.feed, "shop", None, Selector(wanted), port)

    def store(self, folder: str = "one") -> Store:
        return self._held.enter_context(closing(Store.open(self._places / folder)))

    def node(self, store: Store, record: Record) -> Node:
        """A call about an attachment."""
        world = World(None, store.lock)
        return Node(store, world, record.attachment, record.plugin, record).seen_from(world)

    def attach(self, store: Store, name: str, *addresses: str, selections: tuple[Selection, ...] = ()) -> Record:
        """Record an attachment of a pod, complete or not, that uses sets."""
        pod = f"shop/{name}" if name else ""
        sets = [PeerSet(item.text, family) for item in selections for family in (4, 6)]
        resources = (*sets, PeerEntries(addresses, pod))
        record = Record(
            Attachment("net", f"c-{name}-{addresses}", "eth0"), "bridge", "/run/netns/x", pod, {}, resources
        )
        with store.transaction():
            store.put(record)
            store.put_uses(record, uses_of(resources, record.lasting))
        return record


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    with ExitStack() as held:
        yield Town(tmp_path, held)


def test_a_pod_is_found_by_its_attachment_before_its_object_says_an_address(town: Town):
    store, web = town.store(), town.selection("web")
    assert Peering(store, None).members(web.text, 4) == frozenset()
    town.attach(store, "web", "10.1.0.5", "fd00::5")
    assert Peering(store, None).members(web.text, 4) == {FOUR["web"]}
    assert len(Peering(store, None).members(web.text, 6) or ()) == 1


def test_it_does_not_matter_which_folder_an_attachment_is_recorded_in(town: Town):
    one, two = town.store("one"), town.store("two")
    web, every = town.selection("web"), town.selection()
    town.attach(one, "web", "10.1.0.5")
    town.attach(two, "db", "10.1.0.6", selections=(web, every))
    town.put("db", "10.1.0.6", app="db")
    assert Peering(two, None).members(web.text, 4) == {FOUR["web"]}
    own = town.attach(one, "new", "10.1.0.7")
    town.put("new", app="web")
    found = Peering(one, own).entries(["10.1.0.7"])
    assert found == {
        peer_set(item.text, family, ports=False): frozenset([FOUR["new"]] if family == 4 else [])
        for item in (web, every)
        for family in (4, 6)
    }


def test_whoever_denies_means_a_pod_without_an_object_too(town: Town):
    store, db = town.store(), town.selection("db")
    too, only, elsewhere = (
        replace(db, **more) for more in ({"doubt": "too"}, {"doubt": "only"}, {"namespace": "x", "doubt": "too"})
    )
    town.put("db", app="db")
    town.attach(store, "db", "10.1.0.6")
    town.attach(store, "web", "10.1.0.5")
    new = town.attach(store, "new", "10.1.0.7", selections=(db, too, only, elsewhere))
    wanted = {db: {"db"}, too: {"db", "new"}, only: {"new"}, elsewhere: set()}
    for chosen, names in wanted.items():
        assert Selection.read(chosen.text) == chosen
        assert Peering(store, None).members(chosen.text, 4) == {FOUR[name] for name in names}
        set_name = peer_set(chosen.text, 4, ports=False)
        assert Peering(store, new).entries(["10.1.0.7"])[set_name] == ({FOUR["new"]} if "new" in names else set())
        assert Peering(store, None).entries(["10.1.0.7"])[set_name] == ({FOUR["new"]} if "new" in names else set())
    town.put("new", app="web")
    assert Peering(store, None).members(too.text, 4) == {FOUR["db"]}
    assert Peering(store, new).entries(["10.1.0.7"])[peer_set(too.text, 4, ports=False)] == set()


def test_an_address_of_two_pods_is_nobodys(town: Town):
    store, every = town.store(), town.selection()
    town.put("db", app="db")
    town.attach(store, "web", "10.1.0.5")
    town.attach(town.store("two"), "db", "10.1.0.5")
    assert Peering(store, None).members(every.text, 4) == frozenset()


def test_what_an_object_says_is_not_believed_of_a_nameless_pods_address(town: Town):
    store, every = town.store(), town.selection()
    town.put("web", "10.1.0.5", app="web")
    assert Peering(store, None).members(every.text, 4) == {FOUR["web"]}
    nameless = town.attach(store, "", "10.1.0.5", selections=(every,))
    assert Peering(store, None).members(every.text, 4) == frozenset()
    assert Peering(store, nameless).entries(["10.1.0.5"]) == {
        peer_set(every.text, family, ports=False): frozenset() for family in (4, 6)
    }


def test_a_named_port_is_among_the_entries_of_a_pod_that_comes(town: Town):
    store, ported = town.store(), town.selection("web", HTTP)
    record = town.attach(store, "web", "10.1.0.5", selections=(ported,))
    found = Peering(store, record).entries(["10.1.0.5"])
    assert found[peer_set(ported.text, 4, ports=True)] == {FOUR["web"] + bytes([6, 0, 0, 0, 0, 80, 0, 0])}


def test_who_goes_is_nobody_for_whoever_looks_after_that(town: Town):
    store, every = town.store(), town.selection()
    town.put("db", app="db")
    record = town.attach(store, "web", "10.1.0.5", selections=(every,))
    town.attach(store, "db", "10.1.0.6")
    node = town.node(store, record)
    node.withdraw(["10.1.0.5"])
    assert Peering(store, None).members(every.text, 4) == {FOUR["db"]}
    assert node.peers().entries(["10.1.0.5"])[peer_set(every.text, 4, ports=False)] == frozenset()
    assert store.record(record.attachment, record.plugin) == record, "a DEL that is killed now is found"


def test_of_who_goes_an_object_may_still_say_that_the_address_is_its(town: Town):
    store, every = town.store(), town.selection()
    town.put("web", "10.1.0.5", app="web")
    node = town.node(store, town.attach(store, "web", "10.1.0.5", selections=(every,)))
    node.withdraw(["10.1.0.5"])
    assert node.peers().entries(["10.1.0.5"])[peer_set(every.text, 4, ports=False)] == {FOUR["web"]}


def test_who_is_the_first_to_select_finds_nobody_who_went_before(town: Town):
    """He may come between the look of who goes, who finds no set to leave, and the end of that one's record."""
    store, elsewhere, every = town.store(), town.store("two"), town.selection()
    node = town.node(store, town.attach(store, "web", "10.1.0.5"))
    node.world.selecting = lambda: called.append(node.selecting()) or called[-1]
    called: list[bool] = []
    PeerEntries(("10.1.0.5",), "shop/web").remove(node.world)
    assert called == [False]
    town.put("db", app="db")
    town.attach(elsewhere, "db", "10.1.0.6", selections=(every,))
    assert node.selecting()
    assert Peering(elsewhere, None).members(every.text, 4) == {FOUR["db"]}


def test_a_record_that_somebody_spoiled_is_no_selection(town: Town):
    store = town.store()
    every = town.selection()
    record = town.attach(store, "web", "10.1.0.5", selections=(every,))
    for text in ("x", "7", "[]", "{}", '{"feed":1,"pods":[["a"]]}'):
        odd = record.having(attachment=Attachment("net", text, "eth0"), resources=(PeerSet(text, 4),))
        with store.transaction():
            store.put(odd)
            store.put_uses(odd, uses_of(odd.resources, odd.lasting))
        assert Peering(store, record).members(text, 4) is None
    assert len(Peering(store, record).entries(["10.1.0.5"])) == 2


def test_a_set_in_a_pod_is_no_set_of_the_node(town: Town):
    store = town.store()
    record = Record(Attachment("net", "c", "eth0"), "macvlan", "/run/netns/m", "shop/web", {}, netns_id="4026")
    inside = PeerSet(town.selection().text, 4, "/run/netns/m")
    with store.transaction():
        store.put(record)
        store.put_uses(record, uses_of([inside], record.lasting))
    assert Peering(store, record).entries(["10.1.0.5"]) == {}


def test_of_a_folder_that_never_was_whole_nobody_knows_whom_it_means(town: Town):
    store = town.store()
    lost = Selection("folder /nowhere", "shop")
    record = town.attach(store, "web", "10.1.0.5", selections=(lost,))
    assert Peering(store, record).members(lost.text, 4) is None
    assert set(Peering(store, record).entries(["10.1.0.5"]).values()) == {frozenset()}
