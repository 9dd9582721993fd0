"""What events become: whose they are, by the names of their time, and what a drop that is repeated is."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from cni.flows.recorder import Recorder
from cni.flows.whose import Owner, Whose
from cni.kernel.conntrack import Amount, Tracked
from cni.kernel.nflog import Logged
from cni.naming import Attachment
from cni.state import Record, Store
from cni.state.documents import Document, Documents, Feed
from cni.state.elsewhere import Far

WEB, DB, FAR, NODE = "10.1.0.2", "10.1.0.3", "10.1.7.4", "192.0.2.9"


def packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def event(
    client: str, server: str, *, called: str = "", ended: bool = False, start: float = 0.0, at: float = 50.0
) -> Tracked:
    amounts = (Amount(7, 450), Amount(5, 820)) if ended else (Amount(), Amount())
    target = packed(called or server)
    return Tracked(
        "aa",
        "tcp",
        packed(client),
        40000,
        target,
        8080,
        packed(server),
        80 if called else 8080,
        ended,
        at,
        start,
        at,
        *amounts,
    )


def put(no_node: Path, name: str, address: str, pod: str = "") -> None:
    store = Store.open(no_node)
    record = Record(Attachment("net", name, "eth0"), "bridge-vxlan", f"/run/netns/{name}", pod, {}, complete=True)
    with store.transaction():
        store.put(record)
        store.put_uses(record, [address])
    store.close()


def drop(no_node: Path, name: str) -> None:
    store = Store.open(no_node)
    with store.transaction():
        store.forget(Attachment("net", name, "eth0"), "bridge-vxlan")
    store.close()


@pytest.fixture
def whose(no_node: Path) -> Whose:
    put(no_node, "0123456789abcdef", WEB, "shop/web")
    put(no_node, "ba98765432100000", DB)
    made = Whose()
    made.look()
    return made


def recorded(whose: Whose, *events: Tracked) -> list[dict[str, object]]:
    names = {"198.51.100.7": ("api.example.com",)}
    return [seen.said for seen in Recorder(whose, lambda address: names.get(address, ())).tracked(events)]


def test_a_flow_between_pods_of_the_node_is_the_clients(whose: Whose):
    (seen,) = recorded(whose, event(WEB, DB))
    assert (seen["pod"], seen["container"], seen["direction"], seen["own"]) == (
        "shop/web",
        "0123456789ab",
        "egress",
        WEB,
    )
    assert (seen["peer"], seen["peer_container"], seen["address"]) == ("ba9876543210", "ba9876543210", DB)
    assert "service" not in seen


def test_who_comes_from_elsewhere_is_a_peer(whose: Whose):
    (seen,) = recorded(whose, event(NODE, WEB, ended=True))
    assert (seen["pod"], seen["direction"], seen["address"]) == ("shop/web", "ingress", NODE)
    assert "peer" not in seen
    assert (seen["sent_bytes"], seen["received_bytes"]) == (820, 450)


def test_what_is_no_pods_is_nothing(whose: Whose):
    assert recorded(whose, event(NODE, "198.51.100.7")) == []


def test_a_service_is_said_with_where_it_led(whose: Whose):
    (seen,) = recorded(whose, event(WEB, DB, called="10.96.0.1"))
    assert (seen["address"], seen["port"], seen["service"]) == (DB, 80, "10.96.0.1:8080")


def test_an_address_that_was_resolved_has_its_names(whose: Whose):
    (seen,) = recorded(whose, event(WEB, "198.51.100.7"))
    assert seen["names"] == ("api.example.com",)


def test_pods_of_other_hosts_are_known_by_endpoints_and_by_their_objects(whose: Whose, no_node: Path):
    documents = Documents.open()
    with documents.transaction():
        documents.put("cluster", Feed(whole=True), {})
        value = '{"labels": {}, "addresses": ["10.1.8.8"], "ports": [], "apart": false}'
        documents.replace("cluster", {"pods": [Document("Pod", "shop", "cache", "pods", "", "", 0, value)]})
        documents.put_far({(FAR, "net"): Far("shop", "far", "")}, ())
    documents.close()
    whose.look()
    assert [seen["peer"] for seen in recorded(whose, event(WEB, FAR), event(WEB, "10.1.8.8"))] == [
        "shop/far",
        "shop/cache",
    ]


def test_who_is_gone_is_called_as_he_was(whose: Whose, no_node: Path):
    drop(no_node, "0123456789abcdef")
    whose.look()
    (seen,) = recorded(whose, event(WEB, NODE, ended=True, start=1.0))
    assert seen["pod"] == "shop/web"


def test_of_who_has_an_address_one_after_the_other_each_has_what_is_of_his_time(
    no_node: Path, monkeypatch: pytest.MonkeyPatch
):
    now = 100.0
    monkeypatch.setattr("cni.flows.whose.time.time", lambda: now)
    put(no_node, "first", WEB, "shop/first")
    whose = Whose()
    whose.look()
    now = 200.0
    whose.look()
    drop(no_node, "first")
    put(no_node, "second", WEB, "shop/second")
    now = 300.0
    whose.look()
    over = [event(WEB, NODE, ended=True, start=start, at=350.0) for start in (150.0, 250.0)]
    assert [seen["pod"] for seen in recorded(whose, *over, event(WEB, NODE, at=299.0))] == [
        "shop/first",
        "shop/second",
        "shop/second",
    ]


def test_of_those_who_are_gone_no_more_are_remembered_than_is_of_use(no_node: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("cni.flows.whose._REMEMBERED", 2)
    whose = Whose()
    for number in range(5):
        put(no_node, f"c{number}", f"10.1.0.{number}", f"shop/p{number}")
        whose.look()
        drop(no_node, f"c{number}")
        whose.look()
    assert [packed(f"10.1.0.{number}") in whose for number in range(5)] == [False, False, False, True, True]


def test_what_is_dropped_again_is_one_flow(whose: Whose):
    recorder = Recorder(whose, lambda _: ())
    packets = [
        Logged(at, "agent-cni drop in shop/web: ", NODE, WEB, "tcp", port, 81)
        for at, port in ((1.0, 7), (2.0, 7), (3.0, 8), (70.0, 7))
    ]
    found = [*recorder.dropped(packets[:2]), *recorder.dropped(packets[2:])]
    assert [(seen.at, seen.source_port) for seen in found] == [(1.0, 7), (3.0, 8), (70.0, 7)]
    assert (found[0].pod, found[0].direction, found[0].own, found[0].address) == ("shop/web", "ingress", WEB, NODE)


def test_a_pod_nobody_knows_any_more_is_called_as_its_rule_says(whose: Whose):
    recorder = Recorder(whose, lambda _: ())
    (seen,) = recorder.dropped([Logged(1.0, "agent-cni drop out shop/old: ", "10.1.0.9", DB, "udp", 5, 53)])
    assert (seen.pod, seen.direction, seen.peer) == ("shop/old", "egress", "ba9876543210")


def test_what_another_rule_logged_is_nothing(whose: Whose):
    assert list(Recorder(whose, lambda _: ()).dropped([Logged(1.0, "fw drop: ", NODE, WEB, "tcp", 1, 2)])) == []


def test_a_state_that_cannot_be_read_changes_nothing(whose: Whose, no_node: Path):
    (no_node / "state.db").unlink()
    (no_node / "state.db").mkdir()
    whose.look()
    assert whose.here(packed(WEB)) == Owner("shop/web", "0123456789ab")
