"""What befalls a host of a cluster, and what must be so during it and afterwards."""

from __future__ import annotations

import shutil
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cluster_memory import Memory, MemoryStore
from member_host import Host, network
from member_oracle import duplicates, rows, sound, stored

from cni import log
from cni.errors import Conflict, NameTaken, Unreachable
from cni.member import figures, publisher, survivors
from cni.member.inbox import Ended
from cni.state.daemons import MEMBER, alone
from cni.state.membership import LOST, SHUT

NET = network(subnet="10.10.0.0/26", block=8)


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def hosts(memory: Memory, tmp_path: Path) -> tuple[Host, Host]:
    """Two, each with a pod."""
    made = Host("node-a", memory, tmp_path / "a"), Host("node-b", memory, tmp_path / "b")
    for host in made:
        host.share(NET)
        host.turn(2)
        assert host.add(f"first-on-{host.name}", NET)
        host.turn()
    return made


def trouble(host: Host) -> str:
    with closing(host.state) as state:
        member = state.member()
        assert member
        return member.trouble


def test_a_new_process_asks_for_each_network_before_it_claims(memory: Memory, hosts: tuple[Host, Host], tmp_path: Path):
    """What its predecessor was told may be another by now, and its own listing is of a moment ago."""
    one, _ = hosts
    for host in hosts:
        host.delete(f"first-on-{host.name}", NET)
        memory.end_session(host.name)
        host.store.remove(host.name)
    one.store = MemoryStore(memory)
    one.again()
    one.keeper.step()
    one.hear()
    new = network(subnet="10.10.0.0/25", block=16)
    third = Host("node-c", memory, tmp_path / "c")
    third.share(new)
    third.turn(2)
    before = stored(memory, "blocks")
    assert {span[-3:] for _, span in before} == {"/28"}
    for _ in range(3):
        one.publisher.step()
    assert stored(memory, "blocks") == before
    with closing(one.state) as state:
        assert "differently" in str(state.shared()[0][1])


def test_a_network_that_all_agree_on_is_asked_for_once_in_a_process(memory: Memory, hosts: tuple[Host, Host]):
    one, _ = hosts
    for _ in range(2):
        one.store = MemoryStore(memory)
        one.again()
        one.turn(5)
        assert one.store.asked.count("declare") == 1


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    told: list[str] = []
    monkeypatch.setattr(log, "warning", lambda _, msg, **__: told.append(msg))
    return told


def test_a_host_that_is_cut_off_gives_what_it_has_and_says_it_later(
    memory: Memory, hosts: tuple[Host, Host], warnings: list[str]
):
    cut, other = hosts
    cut.store.cut = True
    memory.pass_time(3600)
    for number in range(5):
        assert cut.add(f"c{number}", NET)
        cut.turn()
    cut.delete("c0", NET)
    for number in range(30):
        cut.turn()
        other.turn()
        other.add(f"o{number}", NET)
    assert duplicates(*hosts) == []
    assert "not reached" in trouble(cut)
    assert len([line for line in warnings if "not reached" in line]) == 1
    cut.store.cut = False
    for host in (*hosts, *hosts):
        host.turn()
    sound(memory, *hosts)
    assert trouble(cut) == ""
    told = [line for line in warnings if "not reached" in line or "well again" in line]
    assert ["well again" in line for line in told] == [False, True]
    assert not [line for line in warnings if "not told" in line or "not heard" in line]


def test_answers_that_are_lost_change_nothing(memory: Memory, hosts: tuple[Host, Host]):
    one, other = hosts
    for number in range(40):
        one.store.lost_answers = number % 3
        one.add(f"c{number}", NET)
        one.delete(f"c{number - 6}", NET)
        one.turn()
        other.turn()
        assert duplicates(*hosts) == []
    one.store.lost_answers = 0
    one.turn(2)
    sound(memory, *hosts)


@pytest.mark.parametrize("jump", [-1e9, 1e9])
def test_a_clock_that_jumps_means_nothing(
    memory: Memory, hosts: tuple[Host, Host], jump: float, monkeypatch: pytest.MonkeyPatch
):
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + jump)
    for host in hosts:
        host.add("c", NET)
        host.turn(2)
    assert trouble(hosts[0]) == ""
    sound(memory, *hosts)


def test_a_member_that_stood_still_for_longer_than_its_session_goes_on_with_another(
    memory: Memory, hosts: tuple[Host, Host]
):
    paused, other = hosts
    session = paused.keeper.session
    memory.pass_time(60)
    assert ("alive", "node-a") not in memory.rows
    other.turn()
    paused.add("c", NET)
    paused.publisher.step()  # with the session it believes in
    assert paused.keeper.session is None
    assert stored(memory, "addresses").keys() == {
        place for host in hosts for place in [("net", spelled) for spelled in published(host)]
    }
    for host in (*hosts, *hosts):
        host.turn()
    assert paused.keeper.session not in (None, session)
    sound(memory, *hosts)


def published(host: Host) -> list[str]:
    with closing(host.state) as state:
        return [item.address for item in state.said_of() if item.published]


def test_a_cloned_machine_stays_out(memory: Memory, tmp_path: Path):
    one = Host("node-a", memory, tmp_path / "one", machine="0" * 31 + "1")
    clone = Host("node-a", memory, tmp_path / "clone", machine="0" * 31 + "1")
    for host in (one, clone):
        host.store.seconds = 0.2
        host.share(NET)
    one.turn(2)
    one.add("c", NET)
    one.turn()
    lease = memory.rows["alive", "node-a"].lease
    assert lease
    memory.rows["alive", "node-a"].lease = lease._replace(
        ends=lease.ends + 1e6
    )  # it is renewed for as long as this takes
    clone.turn()
    assert "may not be node-a" in trouble(clone)
    assert "lives in the cluster already" in trouble(clone)
    assert clone.add("c", NET) is None
    one.turn()
    sound(memory, one)


def test_a_host_whose_name_is_another_machines_by_now_gives_no_address_of_its_blocks(
    memory: Memory, hosts: Any, tmp_path: Path
):
    one, _ = hosts
    one.share(NET)
    one.turn(2)
    assert one.add("c", NET)
    memory.end_session("node-a")
    one.store.remove("node-a")
    second = Host("node-a", memory, tmp_path / "second", machine="another")
    second.turn()
    one.turn(2)
    with closing(one.state) as state:
        assert state.member().fenced_at == SHUT
    memory.end_session("node-a")
    second.store.remove("node-a")
    one.turn(2)
    with closing(one.state) as state:
        assert (state.member().fenced_at, state.member().trouble) == (0, "")


def test_a_host_with_blocks_is_nobody_else_before_it_left(memory: Memory, hosts: tuple[Host, Host]):
    one, other = hosts
    one.share(NET)
    one.turn(2)
    assert one.add("c", NET)
    one.turn()
    before = set(memory.rows)
    renamed = Host("node-z", memory, one.folder, machine=one.machine)
    assert one.add("d", NET)  # a call says who this host is as the state has it
    renamed.turn(3)
    assert renamed.keeper.session is None
    assert "this host has blocks as node-a" in trouble(one)
    assert "agent-cni leave" in trouble(one)
    assert set(memory.rows) == before
    one.again()
    one.turn(3)
    assert trouble(one) == ""
    sound(memory, one, other)
    assert duplicates(one, other) == []


def test_a_host_without_blocks_may_be_somebody_else(memory: Memory, tmp_path: Path):
    one = Host("node-a", memory, tmp_path)
    one.turn()
    renamed = Host("node-z", memory, one.folder, machine=one.machine)
    renamed.turn()
    assert trouble(renamed) == ""


def test_another_machine_under_a_name_stays_out_until_the_name_is_free(
    memory: Memory, hosts: tuple[Host, Host], tmp_path: Path
):
    one, other = hosts
    second = Host("node-a", memory, tmp_path / "second", machine="another")
    second.share(NET)
    second.turn(2)
    assert "name of another machine" in trouble(second)
    assert second.add("c", NET) is None
    memory.pass_time(60)
    second.turn()
    assert "name of another machine" in trouble(second)  # not by time
    other.turn()
    other.store.remove("node-a")
    second.turn(2)
    assert trouble(second) == ""
    assert second.add("c", NET)
    second.turn()
    sound(memory, second, other)
    one.turn(2)
    assert "name of another machine" in trouble(one)


def test_a_state_that_was_lost_takes_its_blocks_again_and_withdraws_what_is_gone(
    memory: Memory, hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
):
    one, _ = hosts
    monkeypatch.setattr(survivors, "living", lambda said: [])
    shutil.rmtree(one.folder)
    memory.end_session("node-a")
    one.again()
    one.share(NET)
    one.turn(3)
    assert {value["node"] for value in stored(memory, "addresses").values() if "container" in value} == {"node-b"}
    assert {state for (state,) in rows(one, "SELECT state FROM block")} == {"held"}
    sound(memory, *hosts)


def test_an_older_copy_of_a_state_gives_no_address_of_a_pod_that_lives(
    memory: Memory, hosts: tuple[Host, Host], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    one, _ = hosts
    monkeypatch.setattr(survivors, "living", lambda said: [item for item in said if item.container not in ("dead", "")])
    shutil.copytree(one.folder, tmp_path / "copy")
    alive = {one.add(f"c{number}", NET) for number in range(4)}
    one.add("dead", NET)
    one.turn(2)
    one.delete("c0", NET)  # said by nobody yet
    shutil.rmtree(one.folder)
    shutil.copytree(tmp_path / "copy", one.folder)
    one.turn(2)  # the same process: it sees that the file is another
    given = {one.add(f"n{number}", NET) for number in range(12)}
    assert not given & alive
    one.turn(2)
    sound(memory, *hosts)
    for number in range(4):
        one.delete(f"c{number}", NET)
    one.turn()
    sound(memory, *hosts)


def test_blocks_that_are_another_hosts_by_now_are_kept_in_mind_until_their_pods_are_gone(
    memory: Memory, hosts: tuple[Host, Host]
):
    one, other = hosts
    one.store.cut = True
    memory.pass_time(60)
    other.turn()
    other.store.remove("node-a")
    for number in range(60):
        other.turn()
        other.add(f"o{number}", NET)
    one.store.cut = False
    one.turn(2)
    with closing(one.state) as state:
        assert [(item.state, item.leased) for item in state.blocks()] == [(LOST, 1)]
    assert duplicates(*hosts) == []
    sound(memory, *hosts)
    assert one.add("c", NET) is None
    one.turn()
    with closing(one.state) as state:
        (wish,) = state.wishes()
        assert wish.answer == "no block is free in 10.10.0.0/26"
    one.delete("first-on-node-a", NET)
    one.turn()
    with closing(one.state) as state:
        assert state.blocks() == []
    sound(memory, *hosts)


def test_blocks_that_nobody_took_meanwhile_are_had_again(memory: Memory, hosts: tuple[Host, Host]):
    one, other = hosts
    memory.pass_time(60)
    other.turn()
    other.store.remove("node-a")
    one.turn(3)
    sound(memory, *hosts)
    with closing(one.state) as state:
        assert sum(item.leased for item in state.blocks()) == 1


def test_a_store_that_forgot_the_last_minutes_is_told_again(memory: Memory, hosts: tuple[Host, Host]):
    backup = memory.backup()
    for host in hosts:
        for number in range(9):
            host.add(f"{host.name}-{number}", NET)
            host.turn()
    memory.restore(backup)
    for host in (*hosts, *hosts, *hosts):
        host.turn()
    sound(memory, *hosts)


@pytest.mark.parametrize("wanted", ["10.10.0.9", "10.10.9.9", "fd00::1"])
def test_an_address_that_cannot_be_had_is_explained(memory: Memory, hosts: tuple[Host, Host], wanted: str):
    one, other = hosts
    with closing(other.state) as state:
        spans = [item.block.addresses for item in state.blocks()]
    taken = str(spans[0][2])
    asked = taken if wanted == "10.10.0.9" else wanted
    with closing(one.state) as state, state.transaction():
        state.wish("net", 6 if ":" in asked else 4, asked)
    one.turn()
    with closing(one.state) as state:
        (wish,) = state.wishes()
    expected = f"{asked} is in a block of node-b" if asked == taken else f"{asked} is in no subnet of net"
    assert wish.answer == expected


def test_a_network_that_the_cluster_has_differently_is_refused_by_name(
    memory: Memory, hosts: tuple[Host, Host], tmp_path: Path
):
    third = Host("node-c", memory, tmp_path / "c")
    third.share(network(subnet="10.10.0.0/26", block=16))
    third.turn(2)
    with closing(third.state) as state:
        ((_, refused),) = state.shared()
    assert refused == "the cluster has net differently: block is 16 here and 8 there"
    assert third.add("c", NET) is None
    third.turn()
    with closing(third.state) as state:
        assert [wish.answer for wish in state.wishes()] == [refused]
        assert state.blocks() == []
    third.share(NET)  # mended
    third.turn()
    assert third.add("c", NET)


def test_who_leaves_ends(memory: Memory, hosts: tuple[Host, Host]):
    one, _ = hosts
    with closing(one.state) as state, state.transaction():
        member = state.member()
        assert member
        state.put_member(type(member)(**(vars(member) | {"leaving": True})))
    with pytest.raises(Ended):
        one.publisher.step()
    one.keeper.step()
    with closing(one.state) as state:
        assert state.member() == type(member)(**(vars(member) | {"leaving": True}))


def test_what_goes_wrong_with_the_only_member_is_not_taken_for_another_one(tmp_path: Path):
    with pytest.raises(Unreachable), alone(MEMBER):
        raise Unreachable("the store does not answer")
    with alone(MEMBER), pytest.raises(Conflict, match="a member runs on this host already"), alone(MEMBER):
        pass


def test_a_network_that_is_configured_anew_everywhere_is_taken_when_its_pods_are_gone(
    memory: Memory, hosts: tuple[Host, Host]
):
    one, other = hosts
    new = network(subnet="10.10.0.0/25", block=16)
    one.share(new)
    one.turn(2)
    with closing(one.state) as state:
        assert [(item.leased, item.block.span[-3:]) for item in state.blocks()] == [(1, "/29")]
        assert "differently" in str(state.shared()[0][1])
    one.delete("first-on-node-a", NET)
    one.turn(2)
    other.share(new)
    other.delete("first-on-node-b", NET)
    for host in (other, one) * 3:
        host.turn()
    for host in hosts:
        assert host.add("c", new)
        host.turn()
    sound(memory, *hosts)
    assert {span[-3:] for _, span in stored(memory, "blocks")} == {"/28"}


def test_a_store_that_takes_no_writes_is_told_once_it_lasts(
    hosts: tuple[Host, Host], warnings: list[str], monkeypatch: pytest.MonkeyPatch
):
    """Its alarm for a full disk, or a right that is missing: the session goes on, for a lease is no write."""
    host, _ = hosts
    now = time.monotonic()
    monkeypatch.setattr(publisher, "monotonic", lambda: now)

    def full(*_: object) -> None:
        raise Unreachable("http://[::1]:1: etcdserver: mvcc: database space exceeded")

    takes = host.store.publish
    monkeypatch.setattr(host.store, "publish", full)
    refused = figures.STORE_ERRORS.value(kind="unreachable")
    assert host.add("second", NET)
    host.turn(2)
    assert figures.STORE_ERRORS.value(kind="unreachable") == refused + 2
    assert (trouble(host), warnings) == ("", []), "it may be away for a moment, and the session would say so"
    now += 16
    host.turn(3)
    assert "the cluster's store takes no writes: " in trouble(host)
    assert "space exceeded (since 2" in trouble(host)
    assert "takes no writes" in host.keeper.status
    assert len(warnings) == 1
    monkeypatch.setattr(host.store, "publish", takes)
    host.turn(2)
    assert trouble(host) == ""


def test_a_store_that_is_away_is_the_sessions_to_say(
    hosts: tuple[Host, Host], warnings: list[str], monkeypatch: pytest.MonkeyPatch
):
    host, _ = hosts
    now = time.monotonic()
    monkeypatch.setattr(publisher, "monotonic", lambda: now)
    host.store.cut = True
    assert host.add("second", NET)
    for _ in range(3):
        host.turn()
        now += 16
    assert "is not reached" in trouble(host)
    assert len(warnings) == 1
    host.store.cut = False
    host.turn(2)
    assert trouble(host) == ""


def clone_of(host: Host, memory: Memory, folder: Path) -> Host:
    """A machine that goes on with everything another has in mind: its processes, its state, its boot."""
    shutil.copytree(host.folder, folder)
    made = Host(host.name, memory, folder, machine=host.machine)
    made.store = MemoryStore(memory)
    made.store._spoken = dict(host.store._spoken)
    made.again()
    made.publisher._spoke = host.publisher._spoke
    return made


@pytest.mark.parametrize("first", ["original", "clone"])
def test_of_a_machine_that_was_cloned_with_its_memory_one_gives_no_address(
    memory: Memory, hosts: tuple[Host, Host], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
):
    one, other = hosts
    now = time.monotonic()
    monkeypatch.setattr(publisher, "monotonic", lambda: now)
    monkeypatch.setattr(survivors, "living", lambda said: [])
    one.turn()
    clone = clone_of(one, memory, tmp_path / "clone")
    goes_on, out = (one, clone) if first == "original" else (clone, one)
    out.hear()
    out.deaf = True  # it does not see what the other says from now on
    joins = out.store.join

    def join(me: Any, token: str) -> Any:
        """Without the time in which it is waited that the other is heard of no more."""
        if (alive := memory.rows.get(("alive", me.name))) and token not in alive.text:
            raise NameTaken(f"{me.name} lives in the cluster already")
        return joins(me, token)

    monkeypatch.setattr(out.store, "join", join)
    now += 6
    assert goes_on.add("c", NET)
    goes_on.turn()
    assert out.add("c", NET)
    out.turn()
    out.keeper.step()
    with closing(out.state) as state:
        member = state.member()
        assert member
        assert member.fenced_at == SHUT
    for _ in range(3):
        goes_on.turn()
        memory.pass_time(5)
        out.turn()
        now += 61
    assert "lives in the cluster already" in trouble(out)
    assert (trouble(goes_on), goes_on.keeper.session is not None, out.keeper.session) == ("", True, None)
    goes_on.delete("c", NET)
    goes_on.turn()
    sound(memory, goes_on, other)


def test_a_quiet_clone_is_found_within_minutes(
    memory: Memory, hosts: tuple[Host, Host], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    one, _ = hosts
    now = time.monotonic()
    monkeypatch.setattr(publisher, "monotonic", lambda: now)
    one.turn()
    clone = clone_of(one, memory, tmp_path / "clone")
    for _ in range(3):
        for host in (one, clone):
            host.turn()
        now += 31
    assert [host.keeper.session is None for host in (one, clone)].count(True) == 1


def test_a_host_that_is_alone_speaks_now_and_then(hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch):
    """A write each minute, of a host where nothing happens, and no more than one in five seconds where much does."""
    one, _ = hosts
    now = time.monotonic()
    monkeypatch.setattr(publisher, "monotonic", lambda: now)
    one.again()
    one.turn(2)
    one.store.asked.clear()
    for _ in range(120):
        now += 1
        one.turn()
    assert one.store.asked.count("speak") == 2
    one.store.asked.clear()
    for number in range(60):
        now += 1
        one.add(f"c{number}", NET)
        one.turn()
    assert one.store.asked.count("speak") <= 13
    assert one.keeper.session
