"""DEL, which never fails for what is absent or was changed since."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cni.errors import Incomplete, KernelRefused, TryAgainLater
from cni.kernel import kept
from cni.naming import Attachment
from cni.state import Store


def test_del_removes_in_reverse_what_is_not_shared_and_retires_the_rest(run: Any, remembered: Any):
    run("ADD")
    run.notes.clear()
    run("DEL")
    assert run.notes == ["remove last", "remove veth-c1", "remove rules"]
    assert remembered() == ([], [])


def test_what_retires_stays_while_another_attachment_uses_it(run: Any):
    run("ADD", "c1")
    run("ADD", "c2")
    run("DEL", "c1")
    assert "rules" in run.existing
    run("DEL", "c2")
    assert "rules" not in run.existing


def test_del_again_and_again_is_fine(run: Any):
    for _ in range(2):
        run("DEL")


@pytest.mark.parametrize(
    ("args", "keys"),
    [("junk", {}), ("Foo=1", {}), ("", {"ipam": {}}), ("", {"ipam": {"subnet": "here"}}), ("", {"prevResult": 5})],
    ids=["odd CNI_ARGS", "unknown CNI_ARGS", "no ipam", "another ipam", "odd prevResult"],
)
def test_del_goes_by_the_record_and_not_by_todays_configuration(
    run: Any, remembered: Any, args: str, keys: dict[str, Any]
):
    run("ADD")
    run("DEL", args=args, **keys)
    assert run.existing == {"bridge"}
    assert remembered() == ([], [])


@pytest.mark.parametrize(
    "odd",
    [
        {"kind": "PodPolicy", "addresses": None, "rules": [], "closed": True, "pod": "a/b"},
        {"kind": "PodPolicy", "addresses": ["10.1.0.2"], "rules": [{}], "closed": True, "pod": "a/b", "token": 5},
        {"kind": "HostRoute", "link": {}, "dst": "10.1.0.2/32", "source": ""},
        {"kind": "Masquerade", "backend": [], "family": "4", "address": None, "subnet": {}, "owner": 1},
    ],
    ids=lambda odd: odd["kind"],
)
def test_del_takes_the_rest_and_the_record_where_a_value_is_none_of_ours(
    run: Any, remembered: Any, recorded_too: Any, odd: dict[str, Any]
):
    run("ADD")
    recorded_too("c1", odd)
    run("DEL")
    assert run.existing == {"bridge"}
    assert remembered() == ([], [])


def test_a_del_that_fails_does_all_it_can_and_can_be_repeated(run: Any, remembered: Any):
    run("ADD")
    run.faults["remove last"] = KernelRefused("busy")
    with pytest.raises(Incomplete, match="busy"):
        run("DEL")
    assert "veth-c1" not in run.existing
    assert remembered()[0] == ["c1"]
    run.faults.clear()
    run("DEL")
    assert remembered() == ([], [])


def test_an_attachment_another_call_works_on_is_tried_again_later(
    run: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    run("ADD")
    store = Store.open(folder)
    monkeypatch.setattr("cni.node.opened.__wrapped__.__defaults__", (False, 0))
    with store.lock.exclusive(Attachment("pods", "c1", "eth0").digest, "it"), pytest.raises(TryAgainLater):
        run("DEL")
    store.close()


@pytest.mark.parametrize(
    "resources",
    ["3", "null", '[{"kind": ["x"]}]', '[{"kind": "GatewayAddress"}]', '[{"kind": "PodAddress", "address": null}]', "[" * 50_000],
    ids=["number", "null", "odd kind", "without fields", "null in a field", "deep"],
)  # fmt: skip
def test_del_ends_an_odd_record_of_the_release_before(run: Any, remembered: Any, folder: Path, resources: str):
    run("ADD", "c1")
    run("ADD", "c2")
    kept.close()  # it knows the columns that go
    with closing(sqlite3.connect(folder / "state.db")) as db:
        db.execute("UPDATE attachment SET resources = ? WHERE container = 'c1'", (resources,))
        db.commit()
        db.executescript(
            "ALTER TABLE attachment DROP COLUMN netns_id; ALTER TABLE attachment DROP COLUMN home;"
            "DROP TABLE member; DROP TABLE shared; DROP TABLE block; DROP TABLE endpoint; DROP TABLE wish; DROP TABLE away;"
            "DROP TABLE boot; DROP TABLE configured; DROP TABLE uses; DROP TABLE sticky;"
            "CREATE TABLE sticky (network, pod, range_set, family, address); PRAGMA user_version = 1"
        )
    run("DEL", "c1")
    assert remembered()[0] == ["c2"]
    run("DEL", "c2")
    assert remembered() == ([], [])
    assert run.existing <= {"bridge", "veth-c1", "last", "rules"}


def test_a_damaged_file_in_another_folder_keeps_what_is_shared_and_is_told(
    run: Any, remembered: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    run("ADD")
    run("ADD", "c2", dataDir=str(tmp_path / "other"))
    kept.close()
    content = (tmp_path / "other/state.db").read_bytes()
    (tmp_path / "other/state.db").write_bytes(content[:4096] + b"\xa5" * (len(content) - 4096))
    run("DEL")
    assert remembered() == ([], [])
    assert "rules" in run.existing
    assert "veth-c1" not in run.existing
    said = capfd.readouterr().err
    assert said.count("what it shared is left as it is") == 1
    assert f"{tmp_path}/other/state.db is damaged" in said
