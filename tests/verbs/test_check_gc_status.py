"""The verbs that look: CHECK at an attachment, GC at a network, STATUS at the node."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cni.errors import Degraded, Drift, Incomplete, InvalidConfig, KernelRefused, TryAgainLater, Unavailable
from cni.naming import Attachment
from cni.resources.base import REATTACH
from cni.state import Store


def test_check_is_silent_when_all_is_as_it_was_left(run: Any):
    assert run("CHECK", prevResult=run("ADD")) == {}


@pytest.mark.parametrize("gone", ["bridge", "veth-c1", "rules", "last"])
def test_check_names_what_is_gone(run: Any, gone: str):
    result = run("ADD")
    run.existing.discard(gone)
    with pytest.raises(Drift, match=f"^pods/c1/eth0: {gone} is missing$"):
        run("CHECK", prevResult=result)


def test_check_names_every_drift_at_once(run: Any, folder: Path):
    result = run("ADD")
    run.existing.clear()
    store = Store.open(folder)
    store._db.execute("DELETE FROM lease")
    store.close()
    with pytest.raises(Drift) as caught:
        run("CHECK", prevResult=result | {"ips": []})
    for said in ("veth-c1 is missing", "lease of 10.1.0.2/29", "prevResult lacks 10.1.0.2/29"):
        assert said in caught.value.msg
    found = caught.value.differences
    assert caught.value.msg == f"pods/c1/eth0: {'; '.join(item.line for item in found)}"
    assert [item.resource.name for item in found if item.resource] == ["bridge", "veth-c1", "rules", "last"]
    assert {item.mend for item in found} == {REATTACH}


def test_check_needs_the_result_and_an_attachment(run: Any):
    with pytest.raises(InvalidConfig, match=r"^\$\.prevResult: "):
        run("CHECK")
    with pytest.raises(Drift, match="no completed attachment is recorded"):
        run("CHECK", prevResult={})


def test_gc_removes_what_the_runtime_does_not_list(run: Any, remembered: Any):
    for name in ("c1", "c2", "c3"):
        run("ADD", name)
    run("GC", **{"cni.dev/valid-attachments": [{"containerID": "c2", "ifname": "eth0"}]})
    assert remembered() == (["c2"], ["10.1.0.3"])


def test_gc_without_a_list_removes_nothing(run: Any, remembered: Any):
    run("ADD")
    run("GC")
    assert remembered()[0] == ["c1"]


@pytest.mark.parametrize("text", ["{", "{}", '{"name": "else", "dataDir": "/nowhere/else"}'])
def test_gc_removes_a_record_from_where_it_was_read_whatever_its_configuration_says(
    run: Any, remembered: Any, folder: Path, text: str
):
    run("ADD", "c1")
    with closing(Store.open(folder)) as store:
        store._db.execute("UPDATE attachment SET config = ?", (text,))
    run("GC", **{"cni.dev/valid-attachments": []})
    assert remembered() == ([], [])
    assert run.existing == {"bridge"}


def test_gc_leaves_other_networks_alone(run: Any, remembered: Any):
    run("ADD")
    run("GC", name="other", **{"cni.dev/valid-attachments": []})
    assert remembered()[0] == ["c1"]


@pytest.mark.parametrize("listed", [5, "c1", [5], [{}], [{"containerID": "c1"}]], ids=repr)
def test_gc_refuses_a_list_that_is_none(run: Any, remembered: Any, listed: Any):
    run("ADD")
    with pytest.raises(InvalidConfig, match=r"^\$\['cni\.dev/valid-attachments'\]: "):
        run("GC", **{"cni.dev/valid-attachments": listed})
    assert remembered()[0] == ["c1"]


def test_gc_goes_on_after_a_failure_and_names_it(run: Any, remembered: Any):
    run("ADD", "c1")
    run("ADD", "c2")
    run.faults["remove veth-c1"] = KernelRefused("busy")
    with pytest.raises(Incomplete, match=r"^pods/c1/eth0: busy$"):
        run("GC", **{"cni.dev/valid-attachments": []})
    assert remembered()[0] == ["c1"]


def test_gc_passes_over_an_attachment_another_call_is_at(run: Any, remembered: Any, folder: Path):
    run("ADD")
    with closing(Store.open(folder)) as store, store.lock.exclusive(Attachment("pods", "c1", "eth0").digest, "it"):
        run("GC", **{"cni.dev/valid-attachments": []})
    assert remembered()[0] == ["c1"]


def test_gc_says_what_it_left_because_the_machine_lacked_something(
    run: Any, remembered: Any, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise TryAgainLater("database or disk is full")

    run("ADD")
    monkeypatch.setattr(Store, "forget", full)
    with pytest.raises(Incomplete, match=r"^pods/c1/eth0: database or disk is full$"):
        run("GC", **{"cni.dev/valid-attachments": []})
    assert remembered()[0] == ["c1"]


def test_status_is_silent_while_an_add_could_be_served(run: Any, folder: Path):
    run("STATUS")
    assert not folder.exists()
    run("ADD")
    run("STATUS")


def test_status_says_when_the_addresses_are_used_up(run: Any):
    for number in range(2, 7):
        run("ADD", f"c{number}")
    with pytest.raises(Unavailable, match="no free address"):
        run("STATUS")


def test_status_tells_no_add_from_pods_cut_off(run: Any):
    with pytest.raises(Unavailable, match="no link 'nolink0'"):
        run("STATUS", links=["lo", "nolink0"])
    run("ADD")
    with pytest.raises(Degraded, match="no link 'nolink0'"):
        run("STATUS", links=["nolink0"])
