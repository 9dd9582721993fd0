"""The snapshot beside an oracle: a dict of whatever was said last."""

from __future__ import annotations

import random
from collections.abc import Iterator

from cni.cluster.model import Alive, Block, Endpoint, Item, Key, Network, Node
from cni.cluster.pools import Pool
from cni.cluster.snapshot import Place, Snapshot
from cni.cluster.store import Change, Listing

NODES = [f"node-{letter}" for letter in "abc"]
POOL = Pool("10.10.0.0/16", "10.10.0.1", "10.10.255.254", "10.10.0.1")


def some_item(chance: random.Random) -> Item:
    node, number = chance.choice(NODES), chance.randrange(4)
    return chance.choice(
        [
            Node(node, f"machine-{number}", f"192.0.2.{number}", "0a:00:00:00:00:01"),
            Alive(node, f"life-{number}"),
            Network(f"net-{number}", (POOL,), chance.choice([64, 128])),
            Block("net-0", f"10.10.{number}.0/26", node, "machine"),
            Endpoint(
                "net-0", f"10.10.0.{number}", node, "0a:00:00:00:00:02", f"container-{chance.randrange(2)}", "eth0"
            ),
        ]
    )


def some_news(chance: random.Random) -> Iterator[Listing | Change]:
    for revision in range(1, 60):
        items = {item.key: item for item in (some_item(chance) for _ in range(chance.randrange(8)))}
        if revision == 1 or chance.random() < 0.1:
            yield Listing(revision, tuple(items.values()))
        else:
            gone = tuple({item.key for item in (some_item(chance) for _ in range(3))} - items.keys())
            yield Change(revision, tuple(items.values()), gone)


def seen(snapshot: Snapshot) -> dict[Key, object]:
    """All that a snapshot says, as the oracle has it."""
    whole = [*snapshot.nodes.values(), *snapshot.alive.values(), *snapshot.networks.values()]
    whole += [block for blocks in snapshot.blocks.values() for block in blocks.values()]
    found: dict[Key, object] = {item.key: item for item in whole}
    for network, known in snapshot.endpoints.items():
        for address, place in known.items():
            key = (Endpoint.room, network, address)
            found[key] = snapshot.own.get(key) or Endpoint(network, address, place.node, place.mac)
    return found


def as_kept(item: Item) -> Item:
    """Of others' endpoints no more is kept than what the kernel is told."""
    if isinstance(item, Endpoint) and item.node != "node-a":
        return Endpoint(item.network, item.address, item.node, item.mac)
    return item


def test_it_is_what_was_said_last_and_tells_what_became_another():
    for seed in range(40):
        snapshot, oracle = Snapshot("node-a"), dict[Key, Item]()
        for news in some_news(random.Random(seed)):
            before = dict(oracle)
            if isinstance(news, Listing):
                oracle = {item.key: as_kept(item) for item in news.items}
            else:
                oracle = {key: item for key, item in oracle.items() if key not in news.gone}
                oracle |= {item.key: as_kept(item) for item in news.put}
            touched = snapshot.apply(news)
            assert seen(snapshot) == oracle
            assert touched == {key for key in before.keys() | oracle.keys() if before.get(key) != oracle.get(key)}
            assert set(snapshot.keys()) == oracle.keys()


def test_an_older_change_says_nothing():
    snapshot = Snapshot("node-a")
    at_b, at_c = (Endpoint("net", "10.10.0.5", node, "0a:58:0a:0a:00:05") for node in ("node-b", "node-c"))
    snapshot.apply(Listing(5, (at_b,)))
    assert snapshot.apply(Change(7, (at_c,), ())) == {at_b.key}
    assert snapshot.apply(Change(6, (at_b,), ())) == set()
    assert snapshot.endpoints["net"]["10.10.0.5"] == Place("node-c", "0a:58:0a:0a:00:05")


def test_a_room_of_a_later_release_is_passed_over():
    snapshot = Snapshot("node-a")
    snapshot.apply(Listing(1, ()))
    strange = (
        ("documents", "one"),
        ("documents", "one", "two"),
        ("addresses", "net"),
        ("blocks",),
        ("nodes", "a", "b"),
        ("",),
    )
    assert snapshot.apply(Change(2, (), strange)) == set()
