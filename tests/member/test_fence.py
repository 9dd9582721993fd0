"""A host that is cut off gives up its addresses by itself, and others free them no sooner than that (freeAfter)."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from cluster_memory import Memory
from member_host import Host, network
from member_oracle import duplicates, sound, stored

from cni.cluster.model import Alive, Node
from cni.cluster.store import Change, Listing
from cni.kernel import netfilter
from cni.member import barrier, fence, ledger
from cni.member.barrier import Barrier
from cni.member.fence import Fence
from cni.member.ledger import Ledger
from cni.state.membership import Member

NET = network(subnet="10.10.0.0/26", block=8)
FREE_AFTER = 600


class Clock:
    def __init__(self) -> None:
        self.now = 5000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in (fence, ledger, barrier):
        monkeypatch.setattr(module, "boottime", made)
    from cni.member import session

    monkeypatch.setattr(session, "boottime", made)
    return made


def pass_time(memory: Memory, clock: Clock, seconds: float, *hosts: Host) -> None:
    """Time goes on for all, and the hosts do what they do every few seconds."""
    for _ in range(int(seconds // 5)):
        memory.pass_time(5)
        clock.now += 5
        for host in hosts:
            host.turn()


def member(host: Host) -> Member:
    with closing(host.state) as state:
        found = state.member()
        assert found
        return found


@pytest.fixture
def hosts(tmp_path: Path, clock: Clock) -> tuple[Memory, Host, Host]:
    memory = Memory()
    made = [Host(f"node-{name}", memory, tmp_path / name, free_after=FREE_AFTER) for name in "ab"]
    for host in made:
        host.wired(Ledger(host.name, clock))
        host.share(NET)
        host.turn(2)
        assert host.add(f"on-{host.name}", NET)
        host.turn()
    return memory, made[0], made[1]


def test_what_a_host_gives_up_others_free_afterwards(hosts: tuple[Memory, Host, Host], clock: Clock):
    memory, dead, other = hosts
    began = clock.now
    assert member(dead).fenced_at == began + FREE_AFTER / 2
    passes = Fence(FREE_AFTER).passes_until(member(dead))
    assert passes == began + FREE_AFTER * 3 / 4
    mine = [place for place, value in stored(memory, "blocks").items() if value["node"] == "node-a"]
    assert mine
    pass_time(memory, clock, FREE_AFTER, other)
    assert clock.now > passes
    assert [place for place, value in stored(memory, "blocks").items() if value["node"] == "node-a"] == mine
    pass_time(memory, clock, 60, other)
    assert {value["node"] for value in stored(memory, "blocks").values()} == {"node-b"}
    assert ("nodes", "node-a") not in memory.rows
    for number in range(50):
        other.add(f"o{number}", NET)
        other.turn()
    dead.turn(3)  # it comes back
    assert duplicates(dead, other) == []
    sound(memory, dead, other)
    assert member(dead).fenced_at == clock.now + FREE_AFTER / 2


@pytest.mark.parametrize("is_restarted", [False, True])
def test_who_is_back_gives_nothing_before_it_asked_for_its_blocks(
    hosts: tuple[Memory, Host, Host], clock: Clock, is_restarted: bool
):
    memory, dead, other = hosts
    pass_time(memory, clock, FREE_AFTER + 60, other)
    assert {value["node"] for value in stored(memory, "blocks").values()} == {"node-b"}
    if is_restarted:
        dead.wired(Ledger(dead.name, clock))
    for _ in range(4):  # its session's thread is the only one that has a turn
        dead.keeper.step()
        assert member(dead).fenced_at < clock.now
        assert Fence(FREE_AFTER).passes_until(member(dead)) < clock.now
    assert dead.keeper.session
    assert "its blocks" in member(dead).trouble
    dead.hear()
    dead.store.cut = True
    dead.publisher.step()
    dead.store.cut = False
    dead.keeper.step()
    assert member(dead).fenced_at < clock.now
    dead.publisher.step()
    dead.keeper.step()
    assert (member(dead).fenced_at, member(dead).trouble) == (clock.now + FREE_AFTER / 2, "")
    sound(memory, dead, other)


def test_another_session_asks_again(hosts: tuple[Memory, Host, Host], clock: Clock):
    memory, host, _ = hosts
    before = member(host).fenced_at
    memory.end_session("node-a")
    clock.now += 10
    host.turn(2)  # it hears that the session has ended, and joins
    host.keeper.step()
    assert member(host).fenced_at == clock.now + FREE_AFTER / 2
    memory.end_session("node-a")
    clock.now += 10
    for _ in range(3):
        host.keeper.step()
    assert host.keeper.session
    assert member(host).fenced_at == before + 10  # the store's word is of another session


@pytest.mark.parametrize("pause", [20, 5000])
def test_who_was_deaf_meanwhile_counts_anew(hosts: tuple[Memory, Host, Host], clock: Clock, pause: int):
    """It stood still, and cannot know whether the host was there in between."""
    memory, _, other = hosts
    pass_time(memory, clock, FREE_AFTER - 50, other)
    clock.now += pause
    memory.pass_time(pause)
    pass_time(memory, clock, FREE_AFTER - 50, other)
    assert ("nodes", "node-a") in memory.rows
    pass_time(memory, clock, 200, other)
    assert ("nodes", "node-a") not in memory.rows


def test_who_comes_back_in_time_keeps_its_blocks(hosts: tuple[Memory, Host, Host], clock: Clock):
    memory, dead, other = hosts
    for _ in range(3):
        pass_time(memory, clock, FREE_AFTER - 50, other)
        dead.turn(2)
    pass_time(memory, clock, FREE_AFTER - 50, other)
    dead.turn()
    sound(memory, dead, other)
    assert ("nodes", "node-a") in memory.rows


def test_a_host_that_does_not_fence_itself_is_never_freed(tmp_path: Path, clock: Clock):
    memory = Memory()
    plain = Host("node-a", memory, tmp_path / "a")
    other = Host("node-b", memory, tmp_path / "b", free_after=60)
    other.wired(Ledger("node-b", clock))
    for host in (plain, other):
        host.share(NET)
        host.turn(2)
    assert member(plain).fenced_at == 0
    pass_time(memory, clock, 3600, other)
    assert "node-a" in {value["node"] for value in stored(memory, "blocks").values()}


def test_a_host_that_was_not_heard_yet_gives_nothing(tmp_path: Path, clock: Clock):
    host = Host("node-a", Memory(), tmp_path, free_after=60)
    host.store.cut = True
    host.turn()
    assert member(host).fenced_at == clock.now


def test_a_host_that_begins_to_fence_is_fenced_before_the_store_knows(tmp_path: Path, clock: Clock):
    memory = Memory()
    Host("node-a", memory, tmp_path).turn()
    host = Host("node-a", memory, tmp_path, free_after=60)
    host.store.cut = True
    host.turn()
    assert member(host).fenced_at == clock.now + 30
    host.store.cut = False
    clock.now += 1000
    host.again()
    host.store.cut = True
    host.turn()
    assert member(host).fenced_at == clock.now - 1000 + 30  # a new process is nobody's word


def test_a_host_that_fences_no_more_says_so_first(tmp_path: Path, clock: Clock):
    memory = Memory()
    Host("node-a", memory, tmp_path, free_after=60).turn(2)
    host = Host("node-a", memory, tmp_path)
    host.store.cut = True
    host.turn()
    assert member(host).fenced_at == clock.now + 30
    host.store.cut = False
    host.turn(2)
    assert member(host).fenced_at == 0
    assert '"fences"' not in memory.rows["nodes", "node-a"].text


@pytest.mark.parametrize("is_lost", [False, True], ids=["unreached", "unheard"])
@pytest.mark.parametrize(("before", "now"), [(600, 0), (60, 7200), (3600, 60), (0, 60)])
def test_another_free_after_counts_as_far_as_the_store_may_have_been_told_of_it(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, before: int, now: int, is_lost: bool
):
    memory, shorter = Memory(), min(filter(None, (before, now)))
    scripts: list[str] = []
    monkeypatch.setattr(netfilter, "nft", scripts.append)
    monkeypatch.setattr(barrier, "clear", lambda: scripts.append("clear"))
    Host("node-a", memory, tmp_path, free_after=before).turn(2)
    host = Host("node-a", memory, tmp_path, free_after=now)
    made = Barrier(Fence(now))
    host.store.cut, host.store.lost_answers = not is_lost, is_lost
    with closing(host.state) as state:
        made.keep(state)
        assert f"ip timeout {shorter * 3 // 4}s" in scripts[-1]
        host.keeper.step()
        made.keep(state)
        assert host.keeper.session is None
        assert member(host).fenced_at == clock.now + shorter / 2
        assert "clear" not in scripts
        assert f"ip timeout {shorter * 3 // 4}s" in scripts[-1]
        host.store.cut = False
        clock.now += 5
        host.turn(2)
        made.keep(state)
    assert member(host).fenced_at == (clock.now + now / 2 if now else 0)
    assert f"ip timeout {now * 3 // 4}s" in scripts[-1] if now else scripts[-1] == "clear"


def test_silence_is_seen_from_a_listing_and_from_changes():
    clock = Clock()
    known = Ledger("me", clock)
    nodes = [Node(name, "m", "192.0.2.1", "0a:00:00:00:00:01", fences=60) for name in ("one", "two")]
    known.heard(Listing(5, (*nodes, Alive("two", "t"))))
    clock.now += 7
    known.heard(Change(6, (), (("alive", "two"),)))
    clock.now += 2
    assert {(node.name, seconds) for node, seconds in known.silent()} == {("one", 9.0), ("two", 2.0)}
    known.heard(Change(7, (Alive("one", "t"),), ()))
    assert [node.name for node, _ in known.silent()] == ["two"]
    clock.now += 30
    assert known.silent() == []  # it is us who hear nothing
    known.heard(Change(7, (), ()))
    assert [seconds for _, seconds in known.silent()] == [0.0]


def test_the_kernel_is_told_when_it_matters(
    hosts: tuple[Memory, Host, Host], clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    _, host, _ = hosts
    scripts: list[str] = []
    monkeypatch.setattr(netfilter, "nft", scripts.append)
    made = Barrier(Fence(FREE_AFTER))
    with closing(host.state) as state:
        for seconds, told in ((0, 1), (2, 1), (30, 1), (61, 2)):
            clock.now = 5000 + seconds
            made.keep(state)
            assert len(scripts) == told
    assert "ip timeout 450s" in scripts[0]
    assert "ip timeout 389s" in scripts[1]
    assert "10.10.0.0/26" in scripts[0]
    with closing(host.state) as state:
        clock.now = 5000 + 2000
        made.keep(state)
    assert "timeout 0s" not in scripts[-1]
    assert "heard { type ether_type; flags timeout; }" in scripts[-1]
