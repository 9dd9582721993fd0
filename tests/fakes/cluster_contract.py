"""What holds of a cluster's store, whichever engine. Each statement is given a Scene, which nothing was put into."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Protocol

import pytest

from cni.cluster.document import Document
from cni.cluster.model import Alive, Block, Endpoint, Item, Key, Network, Node
from cni.cluster.pools import Pool
from cni.cluster.store import Change, ClusterStore, Listing, Session, Sparing
from cni.errors import Conflict, NameTaken, SessionLost
from cni.values import replace


class Scene(Protocol):
    """A store nobody else has. Sessions of its stores end after `seconds`, which are few."""

    seconds: float

    def store(self) -> ClusterStore:
        """One more host's way to it."""
        ...

    def pass_time(self, seconds: float) -> None:
        """Let so much time go by for the store."""
        ...

    def put_text(self, key: Key, text: str) -> None:
        """Put what no host would."""
        ...


Statement = Callable[[Scene], None]
#: Every statement; a test runs each.
STATEMENTS: list[Statement] = []

A = Node("node-a", "machine-a", "192.0.2.1", "0a:00:00:00:00:01")
B = Node("node-b", "machine-b", "192.0.2.2", "0a:00:00:00:00:02")
NET = Network("pods", (Pool("10.10.0.0/16", "10.10.0.1", "10.10.255.254", "10.10.0.1"),), 64)
BLOCK = Block("pods", "10.10.0.64/26", "node-a", "machine-a")
SIX = Block("pods", "fd00:10::40/122", "node-a", "machine-a")
#: Names that would mean something in a path, or be another's beginning.
ODD = ("a/b", "..", ".", "%2F", "a%2Fb", "node-a/x", "nöde", "a b", "x" * 200, "alive/node-a")


def statement(holds: Statement) -> Statement:
    STATEMENTS.append(holds)
    return holds


def pod(number: int, **changes: str) -> Endpoint:
    """An endpoint of BLOCK."""
    made = Endpoint("pods", f"10.10.0.{64 + number}", "node-a", f"0a:00:00:00:01:{number:02x}", f"c{number}", "eth0")
    return made._replace(**changes)


def all_of(store: ClusterStore) -> set[Item]:
    return set(store.listing().items)


def alive(session: Session) -> Alive:
    return Alive(session.node.name, session.token)


def owned(block: Block, by: Node) -> Block:
    return replace(block, node=by.name, machine=by.machine)


# --- a host


@statement
def who_joins_is_known_and_alive(scene: Scene) -> None:
    session = scene.store().join(A, "t1")
    assert (session.node, session.token) == (A, "t1")
    assert session.seconds >= scene.seconds
    assert all_of(scene.store()) == {A, alive(session)}


@statement
def who_comes_back_in_the_same_life_goes_on(scene: Scene) -> None:
    first = scene.store().join(A, "t1")
    moved = replace(A, vtep="192.0.2.7")
    again = scene.store().join(moved, "t1")
    assert (again.fence, again.node) == (first.fence, moved)
    assert all_of(scene.store()) == {moved, alive(first)}
    scene.store().renew(first)


@statement
def another_machine_does_not_get_a_name_also_of_a_host_that_is_gone(scene: Scene) -> None:
    scene.store().join(A, "t1")
    other = replace(A, machine="another", vtep="192.0.2.9")
    for _ in range(2):
        for token in ("t1", "t2"):
            with pytest.raises(NameTaken):
                scene.store().join(other, token)
        scene.pass_time(2 * scene.seconds)
    assert all_of(scene.store()) == {A}


@statement
def another_life_begins_when_the_former_is_not_heard_of_any_more(scene: Scene) -> None:
    store = scene.store()
    former = store.join(A, "t1")
    session = scene.store().join(A, "t2")
    assert session.fence != former.fence
    assert all_of(store) == {A, alive(session)}
    for write in (store.renew, lambda session: store.claim(session, BLOCK), lambda session: store.announce(session, B)):
        with pytest.raises(SessionLost):
            write(former)
    assert all_of(store) == {A, alive(session)}


@statement
def another_life_of_a_machine_does_not_begin_while_one_is_heard_of(scene: Scene) -> None:
    store, ends = scene.store(), threading.Event()
    session = store.join(A, "t1")

    def be_heard_of() -> None:
        while not ends.wait(scene.seconds / 10):
            store.renew(session)

    with ThreadPoolExecutor() as pool:
        heard = pool.submit(be_heard_of)
        try:
            with pytest.raises(NameTaken):
                scene.store().join(A, "t2")
        finally:
            ends.set()
        heard.result()
    assert all_of(store) == {A, alive(session)}


@statement
def one_of_many_who_want_a_name_has_it(scene: Scene) -> None:
    stores = [scene.store() for _ in range(4)]

    def join(at: int, name: str) -> Session | None:
        try:
            return stores[at].join(replace(A, name=name, machine=f"machine-{at}"), "t1")
        except NameTaken:
            return None

    with ThreadPoolExecutor(4) as pool:
        for number in range(25):
            joined = [*pool.map(join, range(4), [f"node-{number}"] * 4)]
            (winner,) = [session.node for session in joined if session]
            assert [item for item in all_of(stores[0]) if isinstance(item, Node) and item.name == winner.name] == [
                winner
            ]


@statement
def a_session_goes_on_while_it_is_renewed_and_no_longer(scene: Scene) -> None:
    store = scene.store()
    session = store.join(A, "t1")
    for _ in range(4):
        scene.pass_time(scene.seconds / 2)
        store.renew(session)
    assert alive(session) in all_of(store)
    scene.pass_time(2 * scene.seconds)
    with pytest.raises(SessionLost):
        store.renew(session)
    assert all_of(store) == {A}
    assert store.join(A, "t1").fence != session.fence


@statement
def of_two_who_speak_as_one_life_one_is_told(scene: Scene) -> None:
    """A machine that was cloned with its memory has the token, and the session. Who comes back after a restart is told nothing."""
    stores = [scene.store() for _ in range(3)]
    session = stores[0].join(A, "t1")
    before = all_of(stores[0])
    for _ in range(3):
        stores[0].speak(session)
        stores[0].renew(session)
    assert stores[1].join(A, "t1") == session
    for _ in range(3):
        stores[1].speak(session)
    for _ in range(2):
        with pytest.raises(NameTaken, match="another machine"):
            stores[0].speak(session)
    stores[1].speak(session)
    assert all_of(stores[1]) == before
    scene.pass_time(2 * scene.seconds)
    with pytest.raises(SessionLost):
        stores[1].speak(session)
    later = stores[2].join(A, "t2")
    stores[2].speak(later)
    stores[2].speak(later)
    stores[2].leave(later)
    assert all_of(stores[2]) == set()


@statement
def what_changed_of_a_host_is_said(scene: Scene) -> None:
    store = scene.store()
    session = store.join(A, "t1")
    moved = replace(A, vtep="2001:db8::1", mac="0a:00:00:00:00:09", wireguard="key", underlay="192.0.2.1:51820")
    for _ in range(2):
        assert store.announce(session, moved) == session._replace(node=moved)
        assert all_of(store) == {moved, alive(session)}


@statement
def who_was_not_heard_of_writes_nothing(scene: Scene) -> None:
    store = scene.store()
    session = store.join(A, "t1")
    store.claim(session, BLOCK)
    scene.pass_time(2 * scene.seconds)
    writes: list[Callable[[], object]] = [
        lambda: store.renew(session),
        lambda: store.announce(session, replace(A, vtep="192.0.2.9")),
        lambda: store.declare(session, NET),
        lambda: store.claim(session, replace(BLOCK, span="10.10.1.0/26")),
        lambda: store.claim(session, BLOCK),
        lambda: store.publish(session, BLOCK, [pod(1)], []),
        lambda: store.give_up(session, BLOCK),
        lambda: store.turn(session, "steward", 5),
        lambda: store.speak(session),
    ]
    for write in writes:
        with pytest.raises(SessionLost):
            write()
    assert all_of(store) == {A, BLOCK}


@statement
def names_may_be_odd(scene: Scene) -> None:
    store = scene.store()
    there: set[Item] = set()
    for name in ODD:
        session = store.join(replace(A, name=name), "t1")
        block = Block(name, "10.10.0.64/26", name, "machine-a")
        assert store.declare(session, replace(NET, name=name)).name == name
        assert store.claim(session, block)
        assert store.publish(session, block, [pod(1, network=name, node=name)], [])
        assert store.turn(session, name, 5)
        there |= {session.node, alive(session), replace(NET, name=name), block, pod(1, network=name, node=name)}
    listing = store.listing()
    assert (set(listing.items), listing.refused) == (there, ())
    for name in ODD:
        store.leave(store.join(replace(A, name=name), "t1"))
    assert {type(item) for item in store.listing().items} == {Network}


# --- who goes


def settled(store: ClusterStore) -> tuple[Session, Session]:
    """Two hosts with a block each in two networks, and endpoints in them."""
    sessions = store.join(A, "t1"), store.join(B, "t1")
    store.declare(sessions[0], NET)
    for session, spans in zip(
        sessions, (("10.10.0.64/26", "fd00:10::40/122"), ("10.10.0.128/26", "10.10.0.0/26")), strict=True
    ):
        for network in ("pods", "pods-2"):
            for span in spans:
                block = owned(Block(network, span, "", ""), session.node)
                assert store.claim(session, block)
                there = [
                    pod(0, network=network, address=str(at), node=session.node.name)
                    for at in (block.addresses[0], block.addresses[-1])
                ]
                assert store.publish(session, block, there, [])
    return sessions


def of(items: set[Item], node: Node) -> set[Item]:
    return {item for item in items if getattr(item, "node", "") == node.name or item == node}


@statement
def who_leaves_leaves_nothing_and_others_keep_all(scene: Scene) -> None:
    store = scene.store()
    a, _ = settled(store)
    before = all_of(store)
    for _ in range(2):
        store.leave(a)
        assert all_of(store) == before - of(before, A)
    assert store.join(replace(A, machine="another"), "t2")


@statement
def who_was_lost_leaves_too(scene: Scene) -> None:
    store = scene.store()
    a, _ = settled(store)
    before = all_of(store)
    scene.pass_time(2 * scene.seconds)
    store.leave(a)
    assert all_of(store) == {item for item in before - of(before, A) if not isinstance(item, Alive)}


@statement
def nobody_leaves_for_another_who_has_the_name_by_now(scene: Scene) -> None:
    store = scene.store()
    a, _ = settled(store)
    scene.pass_time(2 * scene.seconds)
    life = store.join(A, "t2")
    before = all_of(store)
    with pytest.raises(NameTaken):
        store.leave(a)
    assert all_of(store) == before
    store.leave(life)
    store.join(replace(A, machine="another"), "t3")
    before = all_of(store)
    for session in (a, life):
        with pytest.raises(NameTaken):
            store.leave(session)
    assert all_of(store) == before


@statement
def who_is_gone_is_removed_and_who_lives_is_not(scene: Scene) -> None:
    store = scene.store()
    settled(store)
    before = all_of(store)
    with pytest.raises(NameTaken):
        store.remove("node-a")
    assert all_of(store) == before
    scene.pass_time(2 * scene.seconds)
    b = store.join(B, "t1")
    assert set(store.remove("node-a")) == {item for item in of(before, A) if isinstance(item, Block)}
    assert all_of(store) == before - of(before, A)
    assert store.remove("node-a") == store.remove("nobody") == []
    assert store.claim(b, owned(BLOCK, B))


# --- networks, blocks, endpoints


@statement
def a_network_is_what_the_first_said(scene: Scene) -> None:
    store = scene.store()
    a, b = store.join(A, "t1"), store.join(B, "t1")
    assert store.declare(a, NET) == NET
    assert store.claim(a, BLOCK)
    other = replace(NET, block=128, mode="l3")
    assert scene.store().declare(b, other) == NET
    assert store.declare(a, NET) == NET
    assert {item for item in all_of(store) if isinstance(item, Network)} == {NET}


@statement
def a_network_nobody_has_a_block_of_may_become_another(scene: Scene) -> None:
    ours, theirs = scene.store(), scene.store()
    a, b = ours.join(A, "t1"), theirs.join(B, "t1")
    other = replace(NET, block=128)
    assert ours.declare(a, NET) == NET
    assert theirs.declare(b, other) == other
    with pytest.raises(Conflict):
        ours.claim(a, BLOCK)
    assert ours.declare(a, other) == other
    assert ours.claim(a, Block("pods", "10.10.0.128/25", "node-a", "machine-a"))
    assert theirs.declare(b, NET) == other


@statement
def a_block_has_one_owner(scene: Scene) -> None:
    store = scene.store()
    a, b = store.join(A, "t1"), store.join(B, "t1")
    for block in (BLOCK, SIX, replace(BLOCK, network="pods-2")):
        for _ in range(2):
            assert store.claim(a, block)
            assert not store.claim(b, owned(block, B))
            assert not store.claim(a, replace(block, machine="another"))
    for block in (BLOCK, replace(BLOCK, span="10.10.9.0/26")):  # nobody has a block for another
        assert not store.claim(b, block)
        assert not store.claim(b, replace(block, node=B.name))
    blocks = {item for item in all_of(store) if isinstance(item, Block)}
    assert blocks == {BLOCK, SIX, replace(BLOCK, network="pods-2")}


@statement
def no_block_overlaps_another(scene: Scene) -> None:
    store = scene.store()
    a, b = store.join(A, "t1"), store.join(B, "t1")
    for held, *others in (
        (
            "10.10.0.64/26",
            "10.10.0.64/27",
            "10.10.0.96/27",
            "10.10.0.120/29",
            "10.10.0.0/25",
            "10.10.0.0/24",
            "10.10.0.0/20",
        ),
        ("10.20.0.0/20", "10.20.0.0/29", "10.20.15.248/29", "10.20.8.0/21"),
        ("fd00:10::40/122", "fd00:10::40/125", "fd00:10::78/125", "fd00:10::/116", "fd00:10::/121"),
    ):
        assert store.claim(a, replace(BLOCK, span=held))
        for span in others:
            for session in (a, b):
                assert not store.claim(session, owned(replace(BLOCK, span=span), session.node)), span
    assert {item.span for item in all_of(store) if isinstance(item, Block)} == {
        "10.10.0.64/26",
        "10.20.0.0/20",
        "fd00:10::40/122",
    }
    for span in (
        "10.10.0.0/26",
        "10.10.0.128/25",
        "10.20.16.0/20",
        "10.19.240.0/20",
        "fd00:10::/122",
        "fd00:10::80/121",
    ):
        assert store.claim(b, owned(replace(BLOCK, span=span), B)), span


@statement
def one_of_many_who_want_a_block_has_it(scene: Scene) -> None:
    store = scene.store()
    sessions = [store.join(A, "t1"), store.join(B, "t1")]
    stores = [scene.store(), scene.store()]
    with ThreadPoolExecutor(4) as pool:
        for number in range(200):
            if number % 4 == 0:
                for at in (0, 1):
                    stores[at].renew(sessions[at])
            block = replace(BLOCK, span=f"10.10.{number}.0/{26 - number % 2}")
            wanted = [
                pool.submit(stores[at].claim, sessions[at], replace(owned(block, sessions[at].node), span=span))
                for at in (0, 1)
                for span in (block.span, f"10.10.{number}.0/26")
            ]
            won = [one.result() for one in wanted]
            # one's own, asked for twice in the same size, is had twice
            assert any(won)
            assert {any(won[:2]), any(won[2:])} == {True, False}
    blocks = [item for item in all_of(store) if isinstance(item, Block)]
    assert len({item.span.split("/")[0] for item in blocks}) == len(blocks) == 200


@statement
def a_block_that_is_given_up_is_free_with_all_that_is_in_it(scene: Scene) -> None:
    store = scene.store()
    a, b = settled(store)
    before = all_of(store)
    for block in (BLOCK, SIX):
        assert not store.give_up(b, owned(block, B))
        assert all_of(store) == before
        within = {item for item in before if isinstance(item, Endpoint) and item.network == "pods"}
        within = {item for item in within if ip_address(item.address) in block.addresses}
        assert len(within) == 2
        assert store.give_up(a, block)
        before -= within | {block}
        assert all_of(store) == before
        assert store.give_up(a, block)
        assert not store.publish(a, block, [], [])
        assert store.claim(b, owned(block, B))
        assert not store.give_up(a, block)
        assert not store.publish(a, block, [], [])
        before |= {owned(block, B)}
        assert all_of(store) == before


@statement
def nobody_speaks_for_another_hosts_block(scene: Scene) -> None:
    """Also where it says itself, rightly, that the block is the other's."""
    store = scene.store()
    a, b = settled(store)
    ours = owned(BLOCK, replace(A, machine="another"))
    store.claim(a, replace(BLOCK, span="10.10.5.0/26"))
    before = all_of(store)
    for session, block in ((b, BLOCK), (a, owned(BLOCK, B)), (a, ours), (b, ours)):
        assert not store.publish(session, block, [pod(9)], [pod(0)])
        assert not store.publish(session, block, [], [])
        assert not store.give_up(session, block)
        assert all_of(store) == before


@statement
def what_is_said_of_a_block_is_there_and_what_is_gone_is_not(scene: Scene) -> None:
    store = scene.store()
    session = store.join(A, "t1")
    assert not store.publish(session, BLOCK, [pod(1)], [])
    assert all_of(store) == {A, alive(session)}
    store.claim(session, BLOCK)
    assert store.publish(session, BLOCK, [pod(1), pod(2), pod(63)], [])
    assert store.publish(session, BLOCK, [pod(1, mac="0a:00:00:00:09:01"), pod(3, container="")], [pod(2), pod(4)])
    assert store.publish(session, BLOCK, [], [])
    now = {pod(1, mac="0a:00:00:00:09:01"), pod(3, container=""), pod(63)}
    assert all_of(store) == {A, alive(session), BLOCK} | now
    assert store.publish(scene.store().join(A, "t1"), BLOCK, [], list(now))
    assert all_of(store) == {A, alive(session), BLOCK}


@statement
def any_number_of_endpoints_is_said(scene: Scene) -> None:
    store = scene.store()
    session = store.join(A, "t1")
    large = replace(BLOCK, span="10.10.16.0/20")
    store.claim(session, large)
    endpoints = [pod(1, address=str(at)) for at in list(large.addresses)[:700]]
    assert store.publish(session, large, endpoints, [])
    assert store.publish(session, large, endpoints[:300], endpoints[300:600])
    listing = store.listing()
    assert set(listing.items) == {A, alive(session), large, *endpoints[:300], *endpoints[600:]}


# --- what operators say for all hosts


def document(name: str = "one", namespace: str = "shop", **spec: object) -> Document:
    metadata = {"namespace": namespace, "name": name}
    return Document(
        "NetworkPolicy", namespace, name, json.dumps({"kind": "NetworkPolicy", "metadata": metadata, "spec": spec})
    )


@statement
def documents_are_what_was_said_last(scene: Scene) -> None:
    store, other = scene.store(), scene.store()
    one, odd = document(podSelector={}), document("a/b %é", "x y")
    assert store.apply([one, odd]) == 2
    assert all_of(other) == {one, odd}
    changed = document(podSelector={"matchLabels": {"a": "b"}})
    assert other.apply([changed, odd]) == 1
    assert all_of(store) == {changed, odd}
    assert store.delete([one.key, document("never").key]) == 1
    assert all_of(store) == {odd}
    assert store.delete([one.key]) == 0


@statement
def documents_are_heard_of(scene: Scene) -> None:
    store = scene.store()
    with heard(scene.store().changes()) as until:
        until(lambda known: not known)
        store.apply([document(), document("two")])
        store.apply([document(ingress=[])])
        store.delete([document("two").key])
        until(lambda known: [*known.values()] == [document(ingress=[])])


# --- what is heard


@contextmanager
def heard(
    changes: Iterator[Listing | Change],
) -> Iterator[Callable[[Callable[[dict[Key, Item]], bool]], dict[Key, Item]]]:
    """All that is, put together from a listing and its changes, as soon as something holds of it."""
    known: dict[Key, Item] = {}

    def until(holds: Callable[[dict[Key, Item]], bool]) -> dict[Key, Item]:
        last, deadline = 0, time.monotonic() + 60
        while not holds(known) and time.monotonic() < deadline:
            news = next(changes)
            assert news.revision >= last
            last = news.revision
            if isinstance(news, Listing):
                known.clear()
                known.update({item.key: item for item in news.items})
            else:
                for key in news.gone:
                    known.pop(key, None)
                known.update({item.key: item for item in news.put})
        assert holds(known)
        return known

    yield until
    changes.close()


@statement
def what_changes_is_told_after_all_there_is(scene: Scene) -> None:
    store = scene.store()
    a, b = settled(store)
    with heard(scene.store().changes()) as until:
        assert set(until(bool).values()) == all_of(store)
        moved = store.announce(b, replace(B, vtep="192.0.2.22"))
        store.publish(a, BLOCK, [pod(5)], [pod(0)])
        store.publish(a, BLOCK, [pod(5, mac="0a:00:00:00:09:05"), pod(6)], [])
        store.publish(a, BLOCK, [], [pod(6)])
        store.leave(b)
        store.publish(a, BLOCK, [pod(7)], [])
        known = until(lambda known: pod(7).key in known)
        assert set(known.values()) == all_of(store)
        assert moved.node.key not in known
        assert pod(6).key not in known
        store.leave(a)
        assert set(until(lambda known: A.key not in known).values()) == all_of(store)


@statement
def who_needs_no_endpoints_is_told_of_none_but_those_of_its_own_blocks(scene: Scene) -> None:
    """In l3 nobody goes by them, and each would be told to every host."""
    store = scene.store()
    _, b = settled(store)
    changes = scene.store().changes(Sparing("node-a", lambda _: False))
    first = next(changes)
    assert isinstance(first, Listing)
    assert set(first.items) == {it for it in all_of(store) if not isinstance(it, Endpoint) or it.node == "node-a"}
    store.publish(b, owned(Block("pods", "10.10.0.128/26", "", ""), B), [pod(70, node="node-b")], [])
    store.announce(b, replace(B, vtep="192.0.2.22"))
    told = list[Change]()
    while not any(item.key == B.key for news in told for item in news.put):
        told.append(next(changes))
    assert [item.key for news in told for item in news.put] == [B.key]
    assert told[-1].revision > first.revision
    changes.close()


@statement
def who_comes_to_need_endpoints_is_told_of_all_before_what_needs_them(scene: Scene) -> None:
    """A change alone would say that there are none, and rows of the kernel would go."""
    store = scene.store()
    a, _ = settled(store)
    late = replace(NET, name="late")
    changes = scene.store().changes(Sparing("node-a", lambda network: network.name == "late"))
    next(changes)
    store.declare(a, late)
    news = next(changes)
    while isinstance(news, Change):
        assert late not in news.put
        news = next(changes)
    assert {it.key for it in news.items} == {it.key for it in all_of(store)}
    store.publish(a, BLOCK, [pod(9)], [])
    while not isinstance(news, Change) or not news.put:
        news = next(changes)
    assert news.put == (pod(9),)
    changes.close()


@statement
def of_others_endpoints_is_told_where_they_are_and_not_by_which_container(scene: Scene) -> None:
    """There may be 50,000; a host goes by where they are and which pod it is."""
    store = scene.store()
    a, _ = settled(store)
    changes = scene.store().changes(Sparing("node-b", lambda _: True))
    news, there = next(changes), all_of(store)
    far = {it for it in there if isinstance(it, Endpoint) and it.node != "node-b"}
    assert isinstance(news, Listing)
    assert far
    assert set(news.items) == there - far | {
        Endpoint(it.network, it.address, it.node, it.mac, pod=it.pod) for it in far
    }
    store.publish(a, BLOCK, [pod(9)], [])
    while not isinstance(news, Change) or not news.put:
        news = next(changes)
    assert news.put == (pod(9)._replace(container="", ifname=""),)
    changes.close()


@statement
def what_went_and_came_again_is_told_to_have_gone(scene: Scene) -> None:
    """With a block its endpoints went, of which a host that needs none is not told."""
    store = scene.store()
    a, _ = settled(store)
    changes = scene.store().changes(Sparing("node-a", lambda _: False))
    next(changes)
    store.give_up(a, BLOCK)
    store.claim(a, BLOCK)
    told = list[Change]()
    while not any(BLOCK in news.put for news in told):
        told.append(next(changes))
    assert BLOCK.key in {key for news in told for key in news.gone}
    changes.close()


@statement
def that_a_host_is_not_heard_of_any_more_is_told(scene: Scene) -> None:
    session = scene.store().join(A, "t1")
    with heard(scene.store().changes()) as until:
        until(lambda known: alive(session).key in known)
        scene.pass_time(2 * scene.seconds)
        assert [*until(lambda known: alive(session).key not in known)] == [A.key]


@statement
def that_nothing_changes_is_told_every_few_seconds(scene: Scene) -> None:
    changes = scene.store().changes()
    first = next(changes)
    started = time.monotonic()
    for _ in range(4):
        change = next(changes)
        assert isinstance(change, Change)
        assert (change.put, change.gone, change.refused) == ((), (), ())
        assert change.revision >= first.revision
    assert time.monotonic() - started < 4 * 4
    changes.close()


@statement
def what_cannot_be_read_is_named_and_ends_nothing(scene: Scene) -> None:
    store = scene.store()
    session = store.join(A, "t1")
    bad = {
        ("nodes", "x"): "{", ("nodes", "y"): "[]", ("networks", "z"): '{"pools": 7}', ("alive", "w"): "null",
        ("blocks", "pods", "10.10.9.0/26"): '{"node": 5}', ("addresses", "pods", "10.10.9.1"): '{"node": "n", "mac": "mac"}',
    }  # fmt: skip
    for key, text in bad.items():
        scene.put_text(key, text)
    scene.put_text(("later", "room"), "{")
    listing = store.listing()
    assert set(listing.items) == {A, alive(session)}
    assert len(listing.refused) == len(bad)
    for key in bad:
        assert any("/".join(key[:2]) in line for line in listing.refused), key
    changes = scene.store().changes()
    assert next(changes).refused == listing.refused
    scene.put_text(("nodes", "late"), "no JSON")
    store.claim(session, BLOCK)
    refused, put = list[str](), set[Item]()
    while BLOCK not in put:
        change = next(changes)
        refused += change.refused
        put |= set(change.put)
    assert [line for line in refused if "nodes/late" in line]
    changes.close()


# --- what one does for all


@statement
def one_host_at_a_time_has_a_turn(scene: Scene) -> None:
    store = scene.store()
    a, b = store.join(A, "t1"), store.join(B, "t1")
    seconds = 2 * scene.seconds
    assert store.turn(a, "steward", seconds)
    assert not scene.store().turn(b, "steward", seconds)
    assert store.turn(b, "another", seconds)
    for _ in range(3):
        scene.pass_time(seconds / 2)
        store.join(B, "t1")
        assert store.turn(store.join(A, "t1"), "steward", seconds)
    scene.pass_time(2 * seconds)
    assert store.turn(store.join(B, "t1"), "steward", seconds)
    assert not store.turn(store.join(A, "t1"), "steward", seconds)
