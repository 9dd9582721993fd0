from __future__ import annotations

import ipaddress
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from cluster_memory import Memory
from member_host import Host, network

from cni.errors import Unavailable, Unreachable
from cni.kernel.netns import boot
from cni.member import identity
from cni.member.identity import machine_id, this_host
from cni.member.trouble import Trouble
from cni.resources import Uplink
from cni.state import FILE, Store
from cni.state.membership import Member
from cni.values import replace

MACHINE = "0123456789abcdef" * 2


def member(host: Host) -> Member:
    with closing(host.state) as state:
        found = state.member()
        assert found
        return found


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "cannot be read"), ("", "is empty"), ("uninitialized\n", "is empty"), ("0" * 32, "says '000"),
        (MACHINE[:-1], "says '0123"), (MACHINE.upper(), "says '0123"), (f"{MACHINE}\n{MACHINE}", "says '0123"),
        ("not a machine", "says 'not"),
    ],
)  # fmt: skip
def test_a_machine_without_an_identity_is_refused(text: str | None, why: str, tmp_path: Path):
    file = tmp_path / "machine-id"
    if text is not None:
        file.write_text(text)
    with pytest.raises(Unavailable) as refused:
        machine_id(file)
    assert why in refused.value.msg
    assert "systemd-machine-id-setup" in refused.value.msg


def test_a_machine_is_who_it_says(tmp_path: Path):
    file = tmp_path / "machine-id"
    file.write_text(f"{MACHINE}\n")
    assert machine_id(file) == MACHINE


def test_a_host_goes_on_with_its_token_for_a_boot(tmp_path: Path):
    host = Host("node-a", Memory(), tmp_path)
    before = this_host(host.config, MACHINE, None)
    assert before.token.startswith(f"{boot()}:")
    assert this_host(host.config, MACHINE, before) == before
    for other in (
        replace(before, token="another-boot:1"), replace(before, node="node-b"), replace(before, machine="f" * 32),
    ):  # fmt: skip
        assert this_host(host.config, MACHINE, other).token not in (before.token, other.token)
    assert this_host(host.config, MACHINE, None).token != before.token


def test_an_address_that_changed_is_announced_and_the_session_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    memory = Memory()
    host = Host("node-a", memory, tmp_path)
    host.config = replace(host.config, vtep="")
    found = ["192.0.2.7"]
    monkeypatch.setattr(identity, "_found", lambda before, said: found[0])
    host.again()
    host.turn()
    session = host.keeper.session
    assert session
    found[0] = "192.0.2.8"
    host.turn()
    now = host.keeper.session
    assert now
    assert (now.fence, now.node.vtep) == (session.fence, "192.0.2.8")
    assert '"vtep": "192.0.2.8"' in memory.rows["nodes", "node-a"].text
    assert member(host).vtep == "192.0.2.8"


def test_a_record_that_somebody_deleted_is_put_back_and_the_session_goes_on(tmp_path: Path):
    memory = Memory()
    host = Host("node-a", memory, tmp_path)
    host.turn()
    session, row = host.keeper.session, memory.rows["nodes", "node-a"].text
    memory.write({}, [("nodes", "node-a")])
    host.turn()
    assert ("nodes", "node-a") not in memory.rows  # nobody asks for it at each renewal
    host.keeper.forgotten()
    host.turn()
    assert memory.rows["nodes", "node-a"].text == row
    assert session
    assert host.keeper.session
    assert host.keeper.session.fence == session.fence


def test_a_host_that_takes_another_uplink_is_there_before_the_store_hears_of_it(tmp_path: Path):
    memory = Memory()
    host = Host("node-a", memory, tmp_path)
    host.again()
    host.turn()
    before = host.keeper.session
    assert before
    host.store.cut = True
    host.keeper.move("198.51.100.7", ("192.0.2.7", "198.51.100.7"))
    assert host.keeper.host
    assert host.keeper.host.vtep == member(host).vtep == "198.51.100.7"
    host.turn()
    assert member(host).vtep == "198.51.100.7", "what the store cannot be told stays so"
    assert "not reached" in member(host).trouble
    host.store.cut = False
    host.turn()
    now = host.keeper.session
    assert now
    assert (now.fence, now.node.vtep, now.node.uplinks) == (
        before.fence, "198.51.100.7", ("192.0.2.7", "198.51.100.7"),
    )  # fmt: skip
    assert '"uplinks": ["192.0.2.7", "198.51.100.7"]' in memory.rows["nodes", "node-a"].text


class _Kernel:
    """That of a host with two links, of which the first has the default route."""

    held = ("127.0.0.1", "192.0.2.7", "198.51.100.7", "198.51.100.8")

    def holding(self, address: ipaddress.IPv4Address) -> int:
        return int(str(address) in self.held)

    def close(self) -> None: ...


def test_where_the_store_says_a_host_is_counts_while_the_host_has_that_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A Node that was given another InternalIP was sought at the one before, until the member began again."""
    monkeypatch.setattr(identity, "Rtnl", _Kernel)
    monkeypatch.setattr(identity.uplink, "find", lambda *_: Uplink("eth0", 1500, "", ("192.0.2.7/24",), up=True))
    host = Host("node-a", Memory(), tmp_path)
    host.config = replace(host.config, vtep="")
    places: list[str | None] = []

    def reached_at(node: str) -> str:
        assert node == "node-a"
        if places[-1] is None:
            raise Unreachable("the API is away")
        return places[-1]

    host.store.reached_at = reached_at
    for said, found in (
        ("198.51.100.7", "198.51.100.7"),
        ("198.51.100.8", "198.51.100.8"),
        (None, "198.51.100.8"),  # as it was
        ("203.0.113.9", "192.0.2.7"),  # this host's it is not
        ("127.0.0.1", "192.0.2.7"),
        ("", "192.0.2.7"),
    ):
        places.append(said)
        if len(places) == 1:
            host.again()
        host.turn()
        assert host.keeper.session
        assert (host.keeper.session.node.vtep, member(host).vtep) == (found, found)
    host.config = replace(host.config, vtep="192.0.2.250")
    places.append("198.51.100.7")
    host.again()
    host.turn()
    assert member(host).vtep == "192.0.2.250", "cluster.json says it"


def test_a_host_that_cannot_be_reached_says_so_until_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    host = Host("node-a", Memory(), tmp_path)
    host.config = replace(host.config, vtep="")

    def nowhere(before: str, said: str) -> str:
        raise Unavailable("others cannot send to this host: this host has no default route")

    with monkeypatch.context() as patch:
        patch.setattr(identity, "_found", nowhere)
        host.again()
        assert host.keeper.step() == 1.0
        assert host.keeper.status.startswith("others cannot send")
        assert host.keeper.me is None
    monkeypatch.setattr(identity, "_found", lambda before, said: "192.0.2.7")
    host.turn()
    assert member(host).trouble == ""
    assert host.keeper.session


def test_a_state_that_vanishes_under_a_member_is_written_again_with_its_token(tmp_path: Path):
    host = Host("node-a", Memory(), tmp_path)
    host.share(network())
    host.turn(2)
    token = member(host).token
    shutil.rmtree(tmp_path)
    host.turn(2)
    assert member(host).token == token
    assert host.keeper.session
    assert host.keeper.session.token == token
    with closing(host.state) as state:
        assert state.blocks() != []


def test_a_session_is_renewed_in_time(tmp_path: Path):
    memory = Memory()
    host = Host("node-a", memory, tmp_path)
    for _ in range(20):
        memory.pass_time(host.keeper.step())
    assert host.store.asked.count("join") == 1
    assert host.store.asked.count("renew") == 19


def test_a_store_that_is_away_was_asked_and_the_state_says_so(tmp_path: Path):
    host = Host("node-a", Memory(), tmp_path)
    host.turn()
    host.again()
    host.store.cut = True
    assert (host.keeper.has_asked, member(host).trouble) == (False, "")
    host.keeper.step()
    assert host.keeper.has_asked
    assert "the cluster's store is not reached" in member(host).trouble


@contextmanager
def locked(host: Host, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Somebody writes to the state, for longer than anybody waits."""
    opened = Store.open
    with monkeypatch.context() as patch, closing(sqlite3.connect(host.folder / FILE, isolation_level=None)) as other:
        patch.setattr(Store, "open", lambda folder: opened(folder, patience=0.01))
        other.execute("BEGIN IMMEDIATE")
        yield


def test_what_is_so_already_is_not_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each renewal would wait for who writes, and keep others from it, of 5,000 hosts and for nothing."""
    host = Host("node-a", Memory(), tmp_path)
    host.turn(2)
    before = member(host)
    with locked(host, monkeypatch):
        for _ in range(3):
            host.keeper.step()
        assert host.keeper.status.startswith("in the cluster")
    assert member(host) == before
    host.store.cut = True
    host.keeper.step()
    away = member(host)
    assert "not reached" in away.trouble
    with locked(host, monkeypatch):
        for _ in range(3):
            host.keeper.step()
    assert member(host) == away


def test_a_state_that_is_in_use_ends_no_session_and_is_told_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    host = Host("node-a", Memory(), tmp_path, free_after=600)
    host.turn(3)
    session = host.keeper.session
    with locked(host, monkeypatch):  # the fence is to be moved
        assert 0 < host.keeper.step() <= 1
        assert "cannot be used now" in host.keeper.status
        host.store.cut = True
        host.keeper.step()
        assert host.keeper.session is session
    host.keeper.step()
    assert "not reached" in member(host).trouble, "it is told as soon as that can be, though it is nothing new"
    host.store.cut = False
    host.keeper.step()
    assert (host.keeper.session, member(host).trouble) == (session, "")


def test_an_older_copy_of_the_state_hears_of_the_trouble_there_is(tmp_path: Path):
    host = Host("node-a", Memory(), tmp_path / "state")
    host.turn(2)
    shutil.copytree(host.folder, tmp_path / "copy")
    host.store.cut = True
    host.keeper.step()
    said = member(host).trouble
    shutil.rmtree(host.folder)
    shutil.copytree(tmp_path / "copy", host.folder)
    host.keeper.step()
    assert member(host).trouble == said != ""


def test_trouble_is_told_once_whichever_endpoint_has_it():
    trouble = Trouble("session")
    said = [trouble.is_so(f"https://192.0.2.{number}:2379: refused after {number} s") for number in range(5)]
    assert said == [True, False, False, False, False]
    assert trouble.is_so("the certificate has expired")
    trouble.over()
    trouble.over()
    assert trouble.is_so("https://192.0.2.1:2379: refused after 1 s")
