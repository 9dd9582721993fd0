"""A state that somebody put back from a copy, while pods live of which the copy knows nothing."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cluster_memory import Memory
from member_host import Host
from member_oracle import sound

from cni.errors import TryAgainLater
from cni.ipam import shared
from cni.ipam.shared import Shared
from cni.ipam.source import ours
from cni.member import survivors
from cni.naming import Attachment
from cni.protocol.call import Call
from cni.protocol.result import Interface
from cni.state import FILE, Record, Store
from cni.state.membership import HELD, UNSURE
from cni.values import replace

CONF: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "pods",
    "ipam": {"cluster": True, "blockSize": 8, "subnet": "10.0.0.0/26"},
}
PLUGIN = "bridge-vxlan"


class Pods(Host):
    """A host whose ADDs are the suite's own, as far as addresses go; `living` are the containers that have a link."""

    def __init__(self, memory: Memory, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__("node-a", memory, folder)
        made = ours(CONF, Call("ADD"), 100, "l2")
        assert isinstance(made, Shared)
        self.net, self.living = made, set[str]()
        monkeypatch.setattr(survivors, "living", lambda said: [it for it in said if it.container in self.living])
        monkeypatch.setattr(shared, "PATIENCE", 0.05)
        self.share(made.network)
        self.turn(3)

    def come(self, container: str) -> str:
        """ADD. Raises as it does."""
        record = Record(Attachment("pods", container, "eth0"), PLUGIN, f"/run/netns/{container}", "", CONF)
        with closing(self.state) as state, self.net.reserving(state, record) as lease:
            state.put(record)
            there = replace(
                lease,
                interfaces=(Interface("eth0", "0a:00:00:00:00:01", record.netns),),
                ips=tuple(replace(ip, interface=0) for ip in lease.ips),
            )
            self.net.told(state, record, there)
        self.living.add(container)
        return lease.ips[0].address

    def go(self, container: str) -> None:
        with closing(self.state) as state, state.transaction():
            state.forget(Attachment("pods", container, "eth0"), PLUGIN)
        self.living.discard(container)

    def states(self) -> set[str]:
        with closing(self.state) as state:
            return {holding.state for holding in state.blocks()}


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def host(memory: Memory, no_node: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pods]:
    """It has a pod of before the copies."""
    made = Pods(memory, no_node, monkeypatch)
    made.come("first")
    made.turn()
    yield made
    shutil.rmtree(no_node, ignore_errors=True)


def by_sqlite(folder: Path, copy: Path) -> None:
    """.restore: the same file, with other content."""
    with closing(sqlite3.connect(copy / FILE)) as old, closing(sqlite3.connect(folder / FILE)) as now:
        old.backup(now)


def by_another_file(folder: Path, copy: Path) -> None:
    for file in folder.glob(f"{FILE}*"):
        file.unlink()
    for file in copy.glob(f"{FILE}*"):
        shutil.copy2(file, folder)


def by_the_folder(folder: Path, copy: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(copy, folder)


RESTORED = [by_sqlite, by_another_file, by_the_folder]


@pytest.mark.parametrize("put_back", RESTORED)
def test_nothing_is_given_before_the_member_has_asked_who_lives(
    memory: Memory, host: Pods, tmp_path: Path, put_back: Callable[[Path, Path], None]
):
    copy = tmp_path / "copy"
    shutil.copytree(host.folder, copy)
    alive = {host.come(f"c{number}") for number in range(3)}
    host.come("dead")
    host.turn()
    host.living.discard("dead")
    for _ in range(2):  # it is no other copy, and no other witness, that is put back again
        put_back(host.folder, copy)
        for _ in range(2):
            with pytest.raises(TryAgainLater, match="its member gave none"):
                host.come("new")
        assert host.states() == {UNSURE}
        host.store.cut = True
        host.turn()
        with pytest.raises(TryAgainLater):
            host.come("new")
        host.store.cut = False
        host.turn()
        assert host.states() == {HELD}
        alive.add(host.come("new"))
        assert host.come("more") not in alive
        host.turn(2)
        sound(memory, host)
        host.go("new")
        host.go("more")
        alive = {item for item in alive if item in given(host)}
        host.turn(2)


def given(host: Pods) -> set[str]:
    with closing(host.state) as state:
        return {f"{address}/26" for address, _, _ in state.all_leases()}


@pytest.mark.parametrize("put_back", RESTORED)
def test_a_member_sees_to_it_though_nobody_calls(
    memory: Memory, host: Pods, tmp_path: Path, put_back: Callable[[Path, Path], None]
):
    copy = tmp_path / "copy"
    shutil.copytree(host.folder, copy)
    alive = {host.come(f"c{number}") for number in range(3)}
    host.turn()
    put_back(host.folder, copy)
    host.turn()
    assert given(host) >= alive
    assert {host.come(f"n{number}") for number in range(4)}.isdisjoint(alive)
    host.turn()
    sound(memory, host)


def test_a_copy_that_lacks_nothing_is_as_good_as_the_original(host: Pods, tmp_path: Path):
    shutil.copytree(host.folder, tmp_path / "copy")
    host.go("first")
    by_another_file(host.folder, tmp_path / "copy")
    assert host.come("new")
    assert host.states() == {HELD}


def test_who_is_refused_or_killed_leaves_no_doubt_that_lasts(host: Pods, monkeypatch: pytest.MonkeyPatch):
    record = Record(Attachment("pods", "refused", "eth0"), PLUGIN, "/run/netns/refused", "", CONF)
    with closing(host.state) as state:
        with pytest.raises(ValueError, match="the plan"), host.net.reserving(state, record):
            raise ValueError("the plan")
        assert not state.is_older()

    class Killed(BaseException):
        """kill -9, between the witness and the commit."""

    testify = Store.testify

    def dies(state: Store) -> None:
        testify(state)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Store, "testify", dies)
        with pytest.raises(Killed):
            host.come("killed")
    with pytest.raises(TryAgainLater):
        host.come("new")
    host.turn()
    assert host.come("new")


def test_a_witness_that_somebody_deletes_or_writes_over_is_doubted_once(host: Pods):
    for spoil in (Path.unlink, lambda file: file.write_bytes(b"no witness")):
        spoil(host.folder / "witness")
        with pytest.raises(TryAgainLater):
            host.come("new")
        host.turn()
        assert host.come("new")
        host.go("new")
