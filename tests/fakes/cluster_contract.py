"""What holds of a cluster's store, whichever engine. Each statement is given a Scene, which nothing was put into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import pytest

from cni.cluster.model import Alive, Block, Endpoint, Item, Key, Network, Node, Pool
from cni.cluster.store import Change, ClusterStore, Listing
from cni.errors import NameTaken, SessionLost


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

    def compact(self) -> None:
        """Let it forget what was."""
        ...


Statement = Callable[[Scene], None]
#: Every statement; a test runs each.
STATEMENTS: list[Statement] = []

A = Node("node-a", "machine-a", "192.0.2.1", "0a:00:00:00:00:01")
B = Node("node-b", "machine-b", "192.0.2.2", "0a:00:00:00:00:02")
NET = Network("pods", (Pool("10.10.0.0/16", "10.10.0.1", "10.10.255.254", "10.10.0.1"),), 64)
BLOCK = Block("pods", "10.10.0.64/26", "node-a", "machine-a")


def statement(holds: Statement) -> Statement:
    STATEMENTS.append(holds)
    return holds


def pod(number: int, node: str = "node-a") -> Endpoint:
    return Endpoint("pods", f"10.10.0.{64 + number}", node, f"0a:00:00:00:01:{number:02x}", f"c{number}", "eth0")


def all_of(store: ClusterStore) -> set[Item]:
    return set(store.listing().items)


@statement
def who_joins_is_known_and_alive(scene: Scene) -> None:
    store = scene.store()
    session = store.join(A, "t1")
    assert (session.node, session.token, session.seconds) == (A, "t1", scene.seconds)
    assert all_of(scene.store()) == {A, Alive("node-a", "t1")}


@statement
def who_comes_back_in_the_same_life_goes_on(scene: Scene) -> None:
    first = scene.store().join(A, "t1")
    again = scene.store().join(A, "t1")
    assert again.fence == first.fence
    scene.store().renew(first)


@statement
def another_machine_does_not_get_a_name(scene: Scene) -> None:
    scene.store().join(A, "t1")
    with pytest.raises(NameTaken):
        scene.store().join(Node("node-a", "another", "192.0.2.9", A.mac), "t1")


@statement
def a_block_has_one_owner(scene: Scene) -> None:
    store = scene.store()
    a, b = store.join(A, "t1"), store.join(B, "t1")
    assert store.declare(a, NET) == NET
    assert store.claim(a, BLOCK)
    assert store.claim(a, BLOCK)
    assert not store.claim(b, Block("pods", BLOCK.span, "node-b", "machine-b"))


@statement
def who_was_not_heard_of_writes_nothing(scene: Scene) -> None:
    store = scene.store()
    session = store.join(A, "t1")
    scene.pass_time(scene.seconds * 2)
    with pytest.raises(SessionLost):
        store.claim(session, BLOCK)
    assert all_of(store) == {A}


@statement
def what_changes_is_told_after_all_there_is(scene: Scene) -> None:
    store = scene.store()
    session = store.join(A, "t1")
    changes = scene.store().changes()
    listing = next(changes)
    assert isinstance(listing, Listing)
    assert set(listing.items) == {A, Alive("node-a", "t1")}
    store.claim(session, BLOCK)
    store.publish(session, BLOCK, [pod(1)], [])
    seen: set[Item] = set()
    while seen < {BLOCK, pod(1)}:
        change = next(changes)
        assert isinstance(change, Change)
        seen |= set(change.put)
