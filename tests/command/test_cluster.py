"""What an operator is told of the cluster: of its hosts and their blocks, with the store and without."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_memory import Memory, MemoryStore

from cni.cluster.config import ClusterConfig, EtcdConfig
from cni.cluster.model import Alive, Block, Endpoint, Network, Node
from cni.cluster.pools import Pool
from cni.command.cluster import cluster
from cni.state import Store
from cni.state.membership import HELD, LOST, Member

A = Node("node-a", "machine-a", "192.0.2.11", "0a:00:00:00:00:01")
B = Node("node-b", "machine-b", "192.0.2.12", "0a:00:00:00:00:02", "key", "192.0.2.12:51820")
C = Node("node-c", "machine-c", "192.0.2.13", "0a:00:00:00:00:03")
NET = Network("pods", (Pool("10.10.0.0/16", "10.10.0.1", "10.10.255.254", "10.10.0.1"),), 64)
MINE, LOST_ONE = (Block("pods", span, "node-a", "machine-a") for span in ("10.10.0.64/26", "10.10.0.128/26"))
THEIRS = Block("pods", "10.10.0.0/26", "node-b", "machine-b")
SIX = Block("six", "fd00::40/122", "node-b", "machine-b")


def pod(number: int, address: str = "") -> Endpoint:
    mac = f"0a:00:00:00:01:{number:02x}"
    return Endpoint("six" if address else "pods", address or f"10.10.0.{number}", "node-b", mac, f"c{number}", "eth0")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    """A store in which node-a and node-b are alive and node-c is not; how this host reaches it."""
    memory = Memory()
    store = MemoryStore(memory)
    mine, theirs = (MemoryStore(memory).join(node, f"life of {node.name}") for node in (A, B))
    gone = MemoryStore(memory).join(C, "life")
    store.declare(mine, NET)
    for session, block in (
        (mine, MINE),
        (theirs, THEIRS),
        (theirs, SIX),
        (gone, Block("pods", "10.10.3.0/26", "node-c", "machine-c")),
    ):
        assert store.claim(session, block)
    host = Endpoint("pods", "10.10.0.2", "node-b", B.mac)
    store.publish(theirs, THEIRS, [host, pod(4), pod(5)], [])
    store.publish(theirs, SIX, [pod(4, "fd00::44")], [])
    memory.end_session("node-c")
    monkeypatch.setattr(cluster, "store_of", lambda config: store)
    return store


@pytest.fixture
def state(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """This host's state: it is node-a."""
    monkeypatch.setattr(cluster, "DEFAULT_FOLDER", folder)
    state = Store.open(folder)
    with state.transaction():
        state.put_member(Member("node-a", "machine-a", "life of node-a", A.vtep, A.mac))
        state.put_block(MINE, HELD)
    yield state
    state.close()


@pytest.fixture
def asked(agent: Any, tmp_path: Path) -> Any:
    """Run a command of the cluster with JSON."""
    config = tmp_path / "cluster.json"
    ClusterConfig("node-a", EtcdConfig(("http://192.0.2.1:2379",))).write(config)
    return lambda *words: agent(*words[:1], "--config", config, *words[1:])


def table(said: Any) -> list[list[str]]:
    return [line.split() for line in said.out.splitlines() if line]


def test_every_host_is_told_with_what_it_has(store: MemoryStore, state: Store, asked: Any):
    said = asked("node")
    assert (said.status, said.err) == (0, "")
    assert table(said) == [
        ["node", "vtep", "alive", "blocks", "pods", "encryption", "here"],
        ["node-a", "192.0.2.11", "yes", "1", "0", "*"],
        ["node-b", "192.0.2.12", "yes", "2", "2", "wireguard"],
        ["node-c", "192.0.2.13", "no", "1", "0"],
    ]
    rows = json.loads(asked("node", "--json").out)
    assert rows["faults"] == []
    assert rows["nodes"][1] == {
        "node": "node-b", "machine": "machine-b", "vtep": "192.0.2.12", "mac": B.mac, "alive": True, "away_since": "", "blocks": 2,
        "pods": 2, "encryption": "wireguard", "underlay": "192.0.2.12:51820", "here": False,
    }  # fmt: skip


def test_of_a_host_that_is_away_it_is_said_since_when(store: MemoryStore, state: Store, asked: Any):
    since = "2026-11-29 14:02:03 UTC"
    with state.transaction():
        state.keep_away({"node-b", "node-c"}, since)
    assert ["node-c", "192.0.2.13", "no,", "since", *since.split(), "1", "0"] in table(asked("node"))
    assert [row["away_since"] for row in json.loads(asked("node", "--json").out)["nodes"]] == ["", "", since]


def test_a_host_whose_name_is_another_machines_by_now_is_not_the_one_that_is_marked(
    store: MemoryStore, state: Store, asked: Any
):
    store.memory.put_text(A.key, json.dumps(A.value | {"machine": "machine-x"}))
    assert [row["here"] for row in json.loads(asked("node", "--json").out)["nodes"]] == [False] * 3


def test_a_host_of_which_only_blocks_are_left_is_told_too(store: MemoryStore, state: Store, asked: Any):
    store.memory.write({}, [C.key])
    assert ["node-c", "no", "1", "0"] in table(asked("node"))
    assert asked("node", "remove", "node-c").status == 0


def test_what_cannot_be_read_is_a_line_and_the_rest_is_told(store: MemoryStore, state: Store, asked: Any):
    store.memory.put_text((Node.room, "node-d"), '{"machine": 5}')
    said = asked("node")
    assert (said.status, len(table(said))) == (1, 4)
    assert said.err == "agent-cni: nodes/node-d in the store: machine is 5\n"


def test_every_block_is_told_with_whose_it_is(store: MemoryStore, state: Store, asked: Any):
    with state.transaction():
        state.put_block(LOST_ONE, LOST)
    assert table(asked("block")) == [
        ["network", "block", "node", "size", "used", "state"],
        ["pods", "10.10.0.0/26", "node-b", "64", "2", "held"],
        ["pods", "10.10.0.64/26", "node-a", "64", "0", "held"],
        ["pods", "10.10.0.128/26", "node-a", "64", "0", "lost"],
        ["pods", "10.10.3.0/26", "node-c", "64", "0", "held"],
        ["six", "fd00::40/122", "node-b", "64", "1", "held"],
    ]
    only = json.loads(asked("block", "--network", "pods", "--node", "node-b", "--json").out)
    assert [row["block"] for row in only["blocks"]] == ["10.10.0.0/26"]
    with state.transaction():
        state.drop_block(MINE)
    assert ["pods", "10.10.0.64/26", "node-a", "64", "0", "not", "taken", "up"] in table(asked("block"))


def test_without_the_store_a_host_tells_of_itself(store: MemoryStore, state: Store, asked: Any):
    store.cut = True
    why = "agent-cni: the store does not answer; only what this host knows of itself is shown\n"
    said = asked("block")
    assert (said.status, said.err) == (1, why)
    assert table(said)[1:] == [["pods", "10.10.0.64/26", "node-a", "64", "0", "held"]]
    said = asked("node")
    assert (said.status, said.err) == (1, why)
    assert table(said)[1:] == [["node-a", "192.0.2.11", "?", "1", "?", "*"]]


def test_without_a_state_the_store_is_told(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: Any
):
    for module in ("cluster.cluster", "node"):
        monkeypatch.setattr(f"cni.command.{module}.DEFAULT_FOLDER", tmp_path / "none")
    assert asked("node").status == 0
    assert len(table(asked("block"))) == 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("block", "--network", "pod"), "there is no network 'pod'; there are: pods, six"),
        (("block", "--node", "node-x"), "there is no node 'node-x'; there are: node-a, node-b, node-c"),
        (("node", "remove", "node-x"), "there is no node 'node-x'; there are: node-a, node-b, node-c"),
        (("node", "remove", "node-b"), "node-b is alive; on it: agent-cni leave"),
        (("node", "remove", "node-a"), "node-a is this host: agent-cni leave"),
    ],
)
def test_what_cannot_be_is_refused_by_name(store: MemoryStore, state: Store, asked: Any, words: Any, said: str):
    before = store.listing()
    answer = asked(*words)
    assert (answer.status, answer.err) == (1, f"agent-cni: {said}\n")
    assert json.loads(asked(*words, "--json").out) == {"error": said}
    assert store.listing() == before


def test_a_host_that_is_gone_is_removed_and_its_blocks_are_free(store: MemoryStore, state: Store, asked: Any):
    said = asked("node", "remove", "node-c")
    assert (said.status, said.out) == (0, "node-c is removed; free again: 10.10.3.0/26 of pods\n")
    assert "node-c" not in asked("node").out + asked("block").out
    store.memory.put_text(C.key, json.dumps(C.value))
    assert json.loads(asked("node", "remove", "node-c", "--json").out) == {"removed": "node-c", "blocks": []}


def test_one_that_comes_back_while_it_is_removed_stays(store: MemoryStore, state: Store, asked: Any, monkeypatch: Any):
    seen = store.listing()
    monkeypatch.setattr(store, "listing", lambda: seen)
    MemoryStore(store.memory).join(C, "another life")
    said = asked("node", "remove", "node-c")
    assert (said.status, said.err) == (1, "agent-cni: node-c is alive\n")
    assert store.memory.rows.keys() >= {C.key, (Alive.room, "node-c")}


def test_a_host_in_no_cluster_is_told_how_to_join(agent: Any, tmp_path: Path):
    for words in (["node"], ["block"], ["node", "remove", "x"]):
        said = agent(*words[:1], "--config", tmp_path / "none.json", *words[1:])
        assert (said.status, said.err.count("\n")) == (1, 1)
        assert "this host is in no cluster" in said.err
