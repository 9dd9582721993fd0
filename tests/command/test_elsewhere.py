"""A node whose networks keep their state in several folders, one of which is damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from cni.command import install, node
from cni.command.doctor import doctor
from cni.errors import Conflict
from cni.installation.place import Place
from cni.naming import Attachment
from cni.state import Record, Store


@pytest.fixture
def damaged(tmp_path: Path, no_node: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One folder that can be read beside the node's own, and this, which cannot."""
    monkeypatch.setattr(node, "DEFAULT_FOLDER", no_node)
    for name in ("node", "sound", "damaged"):
        with closing(Store.open(tmp_path / name)) as store, store.transaction():
            conf = {"name": "pods", "dataDir": str(tmp_path / name)}
            who = Attachment("pods", f"in-{name}", "eth0")
            store.put(Record(who, "bridge-vxlan", "/proc/self/ns/net", "", conf, (), {}, True))
            store.lease(who, "bridge-vxlan", ip_address("10.1.0.2"))
            store.lease(Attachment("pods", "nobody", "eth0"), "bridge-vxlan", ip_address("10.1.0.3"))
    for file in ("state.db-wal", "state.db-shm"):
        (tmp_path / "damaged" / file).unlink(missing_ok=True)
    (tmp_path / "damaged/state.db").write_bytes(b"\xa5" * 8192)
    return tmp_path / "damaged"


@pytest.mark.parametrize("command", ["gc", "refresh", "show"])
def test_commands_read_the_others_and_name_it(agent: Any, no_node: Path, damaged: Path, command: str):
    said = agent(command, "--data-dir", no_node)
    assert said.status == 1
    assert said.err.count(f"the state in {damaged}/state.db is damaged: ") == 1
    assert said.out
    data = json.loads(agent(command, "--json", "--data-dir", no_node).out)
    if command == "show":
        containers = [[item["container"] for item in data[area]] for area in ("attachments", "leases")]
        assert sorted(containers[0]) == ["in-node", "in-sound"]
        assert sorted(containers[1]) == ["in-node", "in-sound", "nobody", "nobody"]
    else:
        assert [line for line in data["failed"] if str(damaged) in line] == data["failed"]


@pytest.mark.parametrize("command", ["gc", "refresh", "show"])
def test_the_nodes_own_may_be_the_damaged_one(agent: Any, no_node: Path, damaged: Path, command: str):
    damaged.joinpath("state.db").rename(no_node / "state.db")
    said = agent(command, "--data-dir", no_node)
    assert said.status == 1
    assert f"the state in {no_node}/state.db is damaged: " in said.err
    if command == "show":
        assert "in-sound" in said.out


def test_a_folder_that_was_named_is_the_only_one(agent: Any, no_node: Path, damaged: Path):
    assert agent("gc", "--data-dir", damaged).status == 1
    said = agent("show", "--data-dir", damaged.parent / "sound")
    assert said.status == 0
    assert "in-sound" in said.out
    assert "in-node" not in said.out


def test_the_doctor_looks_into_every_folder(agent: Any, no_node: Path, damaged: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "leftovers", lambda read: list(read()) and pytest.fail("nobody can say what is left"))
    found = json.loads(agent("doctor", "--json", "--data-dir", no_node).out)["state"]
    mends = {item["mend"] for item in found}
    assert f"rm {damaged}/state.db*, then restart this node's pods" in mends
    assert "agent-cni ipam 10.1.0.3 --release --network pods" in mends
    assert f"agent-cni ipam 10.1.0.3 --release --network pods --data-dir {damaged.parent}/sound" in mends


def test_what_pods_there_are_is_not_guessed(
    monkeypatch: pytest.MonkeyPatch, no_node: Path, damaged: Path, attach: Callable[..., Record]
):
    monkeypatch.setattr(install, "records_of", lambda folder, conf_dir: node.records_of(no_node, conf_dir))
    with pytest.raises(Conflict, match=f"cannot be told: the state in {damaged}/state.db is damaged.*--force"):
        install._refuse_attached(Place())


def unlinked(kind: str, folder: Path) -> dict[str, Any]:
    """A network that keeps its state in a folder, as three kinds of users write it."""
    ranges = {"subnet": "10.1.0.0/24"}
    return {
        "ours": {"type": "macvlan", "dataDir": str(folder), "ipam": ranges},
        "in its ipam": {"type": "macvlan", "ipam": ranges | {"dataDir": str(folder)}},
        "somebody else's": {"type": "bridge", "ipam": ranges | {"type": "agent-ipam", "dataDir": str(folder)}},
    }[kind]


@pytest.mark.parametrize("kind", ["ours", "in its ipam", "somebody else's"])
def test_after_a_boot_folders_are_found_by_the_configurations(agent: Any, no_node: Path, damaged: Path, kind: str):
    """The links to them are in /run, which is empty then."""
    folder = damaged.parent
    for link in (no_node / "folders").iterdir():
        link.unlink()
    (folder / "conf").mkdir()
    conf = {"cniVersion": "1.0.0", "name": "pods", "plugins": [unlinked(kind, folder / "sound")]}
    (folder / "conf/10-pods.conflist").write_text(json.dumps(conf))
    (folder / "conf/20-odd.conflist").write_text("{")
    where = ("--json", "--data-dir", no_node, "--conf-dir", folder / "conf")
    shown = json.loads(agent("show", *where).out)["attachments"]
    assert sorted(item["container"] for item in shown) == ["in-node", "in-sound"]
    assert [item["mend"] for item in json.loads(agent("doctor", *where).out)["state"] if "sound" in item["mend"]]
    assert "in-sound" in agent("ipam", "10.1.0.2", *where).out


@pytest.mark.parametrize("odd", [None, 5, "", "relative", "/a\0b", [], {}], ids=repr)
@pytest.mark.parametrize("at", ["type", "dataDir", "ipam", "ipam.type", "ipam.dataDir"])
def test_no_configuration_keeps_a_command_from_the_others(
    agent: Any, no_node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str, odd: Any
):
    monkeypatch.setattr(node, "DEFAULT_FOLDER", no_node)
    Store.open(no_node).close()
    conf: dict[str, Any] = {
        "type": "bridge",
        "dataDir": "/a\0b",
        "ipam": {"type": "agent-ipam", "dataDir": str(tmp_path)},
    }
    section = conf["ipam"] if "." in at else conf
    section[at.rpartition(".")[2]] = odd
    (tmp_path / "1.conflist").write_text(json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": [conf]}))
    said = agent("show", "--json", "--data-dir", no_node, "--conf-dir", tmp_path)
    assert json.loads(said.out)["attachments"] == []


def test_addresses_are_looked_for_in_every_folder(agent: Any, no_node: Path, damaged: Path):
    said = agent("ipam", "10.1.0.2", "--json", "--data-dir", no_node)
    assert said.status == 1
    assert said.err.count(f"the state in {damaged}/state.db is damaged: ") == 1
    held = json.loads(said.out)
    assert [(item["container"], item["dataDir"]) for item in held] == [
        ("in-node", str(no_node)),
        ("in-sound", str(damaged.parent / "sound")),
    ]
    assert "--data-dir" in agent("ipam", "10.1.0.3", "--release", "--data-dir", no_node).err
    assert agent("ipam", "10.1.0.3", "--release", "--data-dir", damaged.parent / "sound").status == 0
    with closing(Store.reading(damaged.parent / "sound")) as store:
        assert [str(address) for address, *_ in store.all_leases()] == ["10.1.0.2"]
    assert agent("ipam", "10.1.0.3", "--release", "--data-dir", no_node).status == 0
