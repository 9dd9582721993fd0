"""ADD, and what is left when it fails."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from cni import verbs
from cni.errors import AlreadyAttached, Conflict, IoFailure, KernelRefused, RangeExhausted
from cni.state import FILE, Store


def test_add_makes_everything_and_says_so_in_the_configurations_version(run: Any, remembered: Any):
    assert run("ADD") == {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "eth0", "sandbox": "/nowhere/c1"}],
        "ips": [{"address": "10.1.0.2/29", "gateway": "10.1.0.1"}],
    }
    assert "ip4" in run("ADD", "c2", cniVersion="0.2.0")
    assert run.notes[:4] == ["ensure bridge", "ensure veth-c1", "ensure rules", "ensure last"]
    assert remembered() == (["c1", "c2"], ["10.1.0.2", "10.1.0.3"])


@pytest.mark.parametrize(
    "error", [KernelRefused("no"), Conflict("no"), KeyboardInterrupt(), ZeroDivisionError()], ids=repr
)
@pytest.mark.parametrize("at", ["bridge", "veth-c1", "rules", "last"])
def test_a_failed_add_leaves_nothing(run: Any, remembered: Any, at: str, error: BaseException):
    run.faults[f"ensure {at}"] = error
    with pytest.raises(type(error)):
        run("ADD")
    created = [note.split()[1] for note in run.notes if note.startswith("ensure")][:-1]
    assert [note.split()[1] for note in run.notes if note.startswith("remove")][: len(created)] == created[::-1]
    assert run.existing == set()
    assert remembered() == ([], [])


def test_a_result_nobody_reads_is_taken_back(run: Any, remembered: Any):
    def refuse(result: dict[str, Any]) -> None:
        raise IoFailure("stdout: Broken pipe")

    with pytest.raises(IoFailure):
        run("ADD", deliver=refuse)
    assert run.existing == set()
    assert remembered() == ([], [])


def test_what_cannot_be_taken_back_stays_recorded_for_del(run: Any, remembered: Any):
    run.faults["ensure last"] = KernelRefused("first")
    run.faults["remove veth-c1"] = KernelRefused("second")
    with pytest.raises(KernelRefused, match="first") as caught:
        run("ADD")
    assert caught.value.__notes__ == ["and undoing it failed: second"]
    assert remembered() == (["c1"], ["10.1.0.2"])
    run.faults.clear()
    run("DEL")
    assert remembered() == ([], [])


def test_a_second_add_of_a_complete_attachment_is_an_error_that_changes_nothing(run: Any, remembered: Any):
    run("ADD")
    run.notes.clear()
    with pytest.raises(AlreadyAttached, match="pods/c1/eth0 is attached already"):
        run("ADD")
    assert run.notes == []
    assert remembered() == (["c1"], ["10.1.0.2"])


def test_an_add_that_never_completed_is_taken_over(run: Any, remembered: Any):
    run.faults["ensure last"] = KernelRefused("first")
    run.faults["remove veth-c1"] = KernelRefused("second")
    with pytest.raises(KernelRefused):
        run("ADD")
    run.faults.clear()
    run.notes.clear()
    assert run("ADD")["ips"]
    assert run.notes.index("remove veth-c1") < run.notes.index("ensure veth-c1")
    assert remembered()[0] == ["c1"]


def test_an_exhausted_range_makes_nothing(run: Any, remembered: Any):
    for number in range(2, 7):
        run("ADD", f"c{number}")
    before = remembered(), set(run.existing)
    with pytest.raises(RangeExhausted):
        run("ADD", "c7")
    assert (remembered(), run.existing) == before


def test_an_add_in_another_namespace_closes_what_it_looked_at_the_first_through(
    run: Any, conf: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    closed: list[verbs.World] = []

    class Watched(verbs.World):
        def close(self) -> None:
            closed.append(self)
            super().close()

    run("ADD")
    monkeypatch.setattr(verbs, "World", Watched)
    monkeypatch.setattr(verbs, "is_of", lambda record, netns: False)
    run("ADD")
    assert len(closed) == 1


def test_other_folders_are_opened_before_the_state_is_locked_and_asked_after(
    run: Any, folder: Path, no_node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run("ADD", "c2", dataDir=str(tmp_path / "other"))
    opened, reading = [], Store.reading

    def noting(where: Path) -> Store | None:
        with closing(sqlite3.connect(folder / FILE, timeout=0)) as db:
            db.execute("BEGIN IMMEDIATE")  # OperationalError where the call holds it
        opened.append(where)
        return reading(where)

    def asking(config: Any, *nouns: Any) -> Any:
        (*_, host) = nouns
        assert not list(host.others("10.1.0.2"))
        with closing(sqlite3.connect(folder / FILE, timeout=0)) as db, pytest.raises(sqlite3.OperationalError):
            db.execute("BEGIN IMMEDIATE")
        return plan(config, *nouns)

    plan, config = run.plugin.plan, run.plugin.Config
    monkeypatch.setattr(Store, "reading", noting)
    monkeypatch.setattr("cni.node.Netns", lambda path: Mock(path=path, identity="boot:1"))
    monkeypatch.setattr(config, "enters_pod", True)
    run.plugin = SimpleNamespace(name=run.plugin.name, Config=config, plan=asking)
    run("ADD")
    assert set(opened) == {tmp_path / "other", no_node}


@pytest.mark.parametrize("folder_of_its_own", [False, True])
def test_a_failed_add_leaves_what_another_attached_to_meanwhile(
    run: Any, remembered: Any, tmp_path: Path, folder_of_its_own: bool
):
    """It has answered and ended, so nothing tells of it but its record, in whatever folder, one that was not there before."""
    second = {"dataDir": str(tmp_path / "second")} if folder_of_its_own else {}

    def break_off(_: Any) -> None:
        run("ADD", "c2", **second)
        raise IoFailure("stdout: Broken pipe")

    with pytest.raises(IoFailure):
        run("ADD", "c1", deliver=break_off)
    assert {"bridge", "rules", "veth-c2"} <= run.existing
    assert "veth-c1" not in run.existing
    assert remembered() == (([], []) if second else (["c2"], ["10.1.0.3"]))


def test_a_failed_add_takes_back_what_nobody_else_has(run: Any):
    def break_off(_: Any) -> None:
        raise IoFailure("stdout: Broken pipe")

    with pytest.raises(IoFailure):
        run("ADD", "c1", deliver=break_off)
    assert run.existing == set()
