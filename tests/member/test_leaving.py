"""How a host leaves: each step can be the last, and who is asked again goes on."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cluster_memory import Memory
from member_host import Host, network

from cni.errors import Conflict, Unavailable, Unreachable
from cni.member import barrier, leaving
from cni.member.leaving import left
from cni.state.daemons import MEMBER, alone

NET = network(subnet="10.10.0.0/26", block=8)


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def host(memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """One with a pod; what would be done to a kernel is counted."""

    class NoReconciler:
        def __init__(self, *_: Any) -> None: ...

        def clear(self) -> tuple[str, ...]:
            cleared.append("rows")
            return tuple(left_on)

        @property
        def refused(self) -> list[str]:
            return refused

    refused: list[str] = []
    cleared: list[str] = []
    left_on: list[str] = []
    monkeypatch.setattr(leaving, "Reconciler", NoReconciler)
    monkeypatch.setattr(leaving, "without", lambda *_: cleared.append("tunnels"))
    monkeypatch.setattr(barrier, "clear", lambda: cleared.append("barrier"))
    made = Host("node-a", memory, tmp_path / "a")
    made.cleared, made.left_on = cleared, left_on  # type: ignore[attr-defined]
    made.refused = refused  # type: ignore[attr-defined]
    made.share(NET)
    made.turn(2)
    assert made.add("c", NET)
    made.turn()
    return made


def leaves(host: Host, *, force: bool = False) -> list[str]:
    with left(host.config, host.store, host.folder, host.machine, force=force) as undone:
        return undone


def is_gone(host: Host, memory: Memory) -> bool:
    with closing(host.state) as state:
        nothing = (state.member(), state.blocks(), state.shared(), state.said_of()) == (None, [], [], [])
    return nothing and not [key for key in memory.rows if key[0] in ("nodes", "alive", "blocks", "addresses")]


def test_pods_keep_a_host_in_its_cluster(host: Host, memory: Memory):
    with pytest.raises(
        Conflict, match=r"1 pods have addresses of the cluster: net/c/eth0; delete them first, or --force"
    ):
        leaves(host)
    host.turn()
    host.delete("c", NET)
    assert leaves(host) == []
    assert is_gone(host, memory)
    assert host.cleared == ["rows", "barrier", "tunnels"]  # type: ignore[attr-defined]


def test_who_is_killed_while_its_links_go_knows_what_was_the_clusters(host: Host, memory: Memory):
    """By that the next leave finds its bridges and devices."""
    host.delete("c", NET)
    with pytest.raises(KeyboardInterrupt), left(host.config, host.store, host.folder, host.machine, force=False):
        raise KeyboardInterrupt
    with closing(host.state) as state:
        assert [network for network, _ in state.shared()] == [NET]
    assert leaves(host) == []
    assert is_gone(host, memory)


def test_who_is_forced_leaves_its_pods_their_addresses(host: Host, memory: Memory):
    assert leaves(host, force=True) == []
    assert is_gone(host, memory)
    with closing(host.state) as state:
        assert len(state.all_leases()) == 1


def test_what_pods_are_left_on_is_told_with_what_opens_it_again(host: Host):
    host.left_on += ["4789 100", "4789 200"]  # type: ignore[attr-defined]
    (line,) = leaves(host, force=True)
    assert "(port VNI: 4789 100, 4789 200)" in line
    assert line.endswith("nft delete table inet agent_cni_vteps")


def test_a_store_that_is_away_is_told_later_unless_forced(host: Host, memory: Memory):
    host.delete("c", NET)
    host.store.cut = True
    with pytest.raises(Unreachable):
        leaves(host)
    host.store.cut = False
    assert leaves(host) == []
    assert is_gone(host, memory)


def test_a_store_that_is_gone_for_good_holds_nobody(host: Host, memory: Memory):
    host.store.cut = True
    (line,) = leaves(host, force=True)
    assert "agent-cni node remove node-a" in line
    with closing(host.state) as state:
        assert state.member() is None
    assert ("nodes", "node-a") in memory.rows


def test_a_lost_answer_keeps_nobody_from_leaving(host: Host, memory: Memory):
    host.delete("c", NET)
    for _ in range(2):
        host.store.lost_answers = 1
        with pytest.raises(Unreachable):
            leaves(host)
    host.store.lost_answers = 0
    assert leaves(host) == []
    assert is_gone(host, memory)


def test_who_has_another_machines_name_leaves_it_that(host: Host, memory: Memory, tmp_path: Path):
    memory.end_session("node-a")
    other = Host("node-b", memory, tmp_path / "b")
    other.turn()
    other.store.remove("node-a")
    second = Host("node-a", memory, tmp_path / "second", machine="another")
    second.turn()
    assert leaves(host, force=True) == []
    assert ("nodes", "node-a") in memory.rows
    with closing(host.state) as state:
        assert state.member() is None


def test_a_member_that_runs_is_waited_for(host: Host, monkeypatch: pytest.MonkeyPatch):
    host.delete("c", NET)
    monkeypatch.setattr(leaving, "_PATIENCE", 0.1)
    with alone(MEMBER), pytest.raises(leaving.TryAgainLater, match="did not end"):
        leaves(host)
    with alone(MEMBER), pytest.raises(Conflict, match="runs on this host"), alone(MEMBER):
        pass


def test_what_goes_wrong_while_alone_is_told_as_it_is(host: Host):
    with pytest.raises(Unreachable, match="the store"), alone(MEMBER):
        raise Unreachable("the store")


def test_who_is_refused_by_the_kernel_has_not_left_yet(host: Host, memory: Memory):
    """Nobody would take away what stays, once this host is in no cluster."""
    host.delete("c", NET)
    host.refused.append("remove route 10.10.0.0/26: Cannot allocate memory")  # type: ignore[attr-defined]
    with pytest.raises(Unavailable, match=r"not all taken away: remove route 10.10.0.0/26: Cannot allocate memory"):
        leaves(host)
    with closing(host.state) as state:
        assert state.member()
    (line,) = leaves(host, force=True)
    assert line == "left on this host: remove route 10.10.0.0/26: Cannot allocate memory"
    assert is_gone(host, memory)
