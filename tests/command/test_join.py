"""Joining a cluster: what is refused before anything is written, what is written, and who runs the member then."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cluster_memory import Memory, MemoryStore

from cni.cluster.config import ClusterConfig
from cni.cluster.model import Block, Network, Node
from cni.cluster.pools import Pool
from cni.command.cluster import admission, cluster, join, joining, rotation
from cni.kernel import process, wireguard
from cni.state import Store
from cni.state.membership import Member

URL = "http://192.0.2.1:2379"
B = Node("node-b", "machine-b", "192.0.2.12", "0a:00:00:00:00:02")
NET = Network("pods", (Pool("10.10.0.0/16", "10.10.0.1", "10.10.255.254", "10.10.0.1"),), 64)


class Systemd:
    """What systemd would do; it is not there unless a test says so."""

    WHERE_TO_LOOK = "systemctl status agent-cni-member.service"

    def __init__(self) -> None:
        self.there = False
        self.state = "inactive"
        self.comes_up = True
        self.up: Callable[[bool], None] = lambda comes_up: None
        self.told: list[str] = []

    def runs_members(self, place: object) -> bool:
        return self.there

    def start_member(self, *, anew: bool) -> None:
        self.told.append("restart" if anew else "start")
        self.state = "active"
        self.up(self.comes_up)

    def stop_member(self) -> None:
        self.told.append("stop")
        self.state = "inactive"

    def member_state(self) -> str:
        return self.state


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch) -> Systemd:
    found = Systemd()
    monkeypatch.setattr(joining, "systemd", found)
    monkeypatch.setattr(joining, "_PATIENCE", -14.9)
    return found


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    """A store that node-b is in."""
    store = MemoryStore(Memory())
    MemoryStore(store.memory).join(B, "its life")
    monkeypatch.setattr(joining, "store_of", lambda config: store)
    return store


class Host(SimpleNamespace):
    file: Path
    folder: Path
    join: Callable[..., Any]
    members: list[ClusterConfig]
    runs: bool

    @property
    def said(self) -> Any:
        return json.loads(self.file.read_text())


@pytest.fixture
def host(agent: Any, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, store: Any, systemd: Any) -> Host:
    """A host called node-a at .11, which is in no cluster; `members` is by which configurations it was a member."""

    def me(config: ClusterConfig, machine: str, before: object, trouble: str = "") -> Member:
        return Member(config.node, machine, "life", config.vtep or "192.0.2.11", "0a:00:00:00:00:01", trouble=trouble)

    file = tmp_path / "etc/cluster.json"
    host = Host(file=file, folder=folder, members=[], runs=False)
    host.join = lambda *words: agent("join", "--config", file, *words)
    folder.mkdir(parents=True, exist_ok=True)

    def up(comes_up: bool) -> None:
        state = Store.open(folder)
        with state.transaction():
            said = ClusterConfig.load(file)
            state.put_member(me(said, "machine-a", None, "" if comes_up else "this host may not be node-a"))
        state.close()

    systemd.up = up
    for module in (cluster, rotation):
        monkeypatch.setattr(module, "DEFAULT_FOLDER", folder)
    monkeypatch.setattr(joining, "PATH", file)
    monkeypatch.setattr(join, "run", host.members.append)
    monkeypatch.setattr(joining, "is_running", lambda _: host.runs)
    monkeypatch.setattr(
        joining, "leave", lambda config, force: nullcontext(systemd.told.append(f"leave {config.node}"))
    )
    monkeypatch.setattr(joining, "host_name", lambda: "node-a")
    monkeypatch.setattr(admission, "machine_id", lambda: "machine-a")
    monkeypatch.setattr(admission, "this_host", me)
    rtnl = SimpleNamespace(holding=lambda address: int(str(address) == "192.0.2.11"), close=lambda: None)
    monkeypatch.setattr(admission, "Rtnl", lambda: rtnl)
    return host


def test_what_was_said_is_written_and_this_is_the_member(host: Host):
    said = host.join("--etcd", URL, "--vtep", "192.0.2.11", "--free-after", "600", "--metrics", "127.0.0.1:9402")
    assert (said.status, said.err) == (0, "")
    assert said.out.splitlines() == [
        f"{host.file}: node: node-a",
        f"{host.file}: etcd.endpoints: {URL}",
        f"{host.file}: vtep: 192.0.2.11",
        f"{host.file}: freeAfter: 600",
        f"{host.file}: metrics: 127.0.0.1:9402",
        "node-a joins the cluster, and this is its member until Ctrl-C: with node-b",
    ]
    assert host.members == [ClusterConfig.load(host.file)]
    assert host.said == {
        "node": "node-a", "etcd": {"endpoints": [URL]}, "vtep": "192.0.2.11", "freeAfter": 600, "metrics": "127.0.0.1:9402",
    }  # fmt: skip


def test_without_options_it_is_the_member_by_the_file(host: Host, agent: Any):
    said = host.join()
    assert (said.status, "agent-cni join --etcd URL" in said.err, host.members) == (1, True, [])
    host.join("--etcd", URL)
    assert (host.join().status, len(host.members)) == (0, 2)


def test_joining_again_changes_nothing_or_says_what(host: Host, systemd: Systemd):
    systemd.there = True
    assert host.join("--etcd", URL, "--vtep", "192.0.2.11").status == 0
    host.runs = True
    before = host.file.stat()
    assert host.join("--etcd", URL, "--vtep", "192.0.2.11").out == "node-a is in the cluster: with node-b\n"
    assert (host.file.stat(), systemd.told, host.members) == (before, ["restart", "start"], [])
    said = json.loads(host.join("--etcd", URL, "http://192.0.2.3:2379", "--vtep", "", "--json").out)
    assert said["changes"] == [
        {"key": "etcd.endpoints", "was": [URL], "is": [URL, "http://192.0.2.3:2379"]},
        {"key": "vtep", "was": "192.0.2.11", "is": None},
    ]
    assert systemd.told[2:] == ["restart"]
    assert "vtep" not in host.said
    assert host.join("--metrics", "127.0.0.1:1").out.startswith(f"{host.file}: metrics: 127.0.0.1:1\n")
    assert host.join("--metrics", "[::1]:1").out.startswith(f"{host.file}: metrics: [::1]:1, was 127.0.0.1:1\n")


def test_where_nobody_else_runs_a_member_it_is_not_run_twice(host: Host, systemd: Systemd):
    host.join("--etcd", URL)
    host.runs = True
    assert (host.join("--etcd", URL).status, len(host.members)) == (0, 1)
    said = host.join("--session", "20")
    assert said.err == "agent-cni: a member runs on this host already, and not by systemd: end it first\n"
    systemd.there = True
    assert (host.join("--etcd", URL).status, "session" in host.said) == (1, False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "$.etcd: 'endpoints' is a required property"),
        (("--etcd", "192.0.2.1:2379"), "$.etcd.endpoints[0]: '192.0.2.1:2379' is no URL of a server"),
        (("--etcd", URL, "--cert", "/c"), "$.etcd.key: missing, and $.etcd.cert is of no use without it"),
        (("--etcd", "https://e", "--cacert", "/nowhere/ca.pem"), "/nowhere/ca.pem: No such file or directory"),
        (("--etcd", URL, "--node", "a b"), "$.node: "),
        (("--etcd", URL, "--vtep", "192.0.2.99"), "$.vtep: no link of this host has 192.0.2.99"),
        (("--etcd", URL, "--free-after", "5"), "$.freeAfter: 5 s is less than 4 sessions, 60 s"),
        (("--etcd", URL, "--node", "node-b"), "node-b is another machine of the cluster (machine-b, this one is machine-a)"),
        (("--etcd", URL, "--metrics", "192.0.2.11:1"), "$.metrics: '192.0.2.11:1' is no loopback address and port"),
    ],
)  # fmt: skip
def test_what_is_in_the_way_is_said_and_nothing_is_written(host: Host, words: tuple[str, ...], said: str):
    answer = host.join("--session", "15", *words)
    assert (answer.status, said in answer.err, answer.err.count("\n")) == (1, True, 1), answer.err
    assert (host.file.exists(), host.members) == (False, [])


def test_two_hosts_are_not_reached_at_one_address(host: Host, store: MemoryStore):
    MemoryStore(store.memory).join(Node("node-c", "machine-c", "192.0.2.11", B.mac), "its life")
    said = host.join("--etcd", URL)
    assert "192.0.2.11 is node-c's already: --vtep says" in said.err
    assert not host.file.exists()


def test_a_store_that_does_not_answer_is_an_error(host: Host, store: MemoryStore):
    store.cut = True
    said = host.join("--etcd", URL)
    assert (said.status, said.err) == (1, "agent-cni: the store does not answer\n")
    assert not host.file.exists()


def test_a_file_the_member_may_not_read_is_named(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    key = tmp_path / "key.pem"
    key.touch(mode=0o600)
    real = Path.stat
    strange = lambda path, **how: SimpleNamespace(st_uid=111, st_mode=0o100600) if path == key else real(path, **how)  # noqa: E731
    monkeypatch.setattr(Path, "stat", strange)
    said = host.join("--etcd", "https://192.0.2.1:2379", "--cacert", key)
    assert f"{key} belongs to user 111 alone, and the member reads what is root's: chown root {key}" in said.err


def test_who_a_host_is_says_a_store_that_assigns_blocks(
    host: Host, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
):
    """Another machine comes under the name of one that it replaces, or at its address; its member asks whether it may."""
    monkeypatch.setattr(store, "assigns", True)
    assert host.join("--kubernetes", "--server", "https://192.0.2.1:6443", "--node", "node-b").status == 0
    assert host.said["kubernetes"] == {"server": "https://192.0.2.1:6443"}
    assert [config.node for config in host.members] == ["node-b"]


def test_a_boot_waits_for_no_store_where_nothing_is_new(host: Host, store: MemoryStore):
    """In a pod of Kubernetes the same words are said with each start."""
    host.join("--etcd", URL)
    store.cut = True
    assert host.join("--etcd", URL).status == 0
    assert [config.node for config in host.members] == ["node-a", "node-a"]
    assert host.join("--etcd", URL, "--session", "30").status == 1
    assert len(host.members) == 2


def test_a_host_with_addresses_of_one_cluster_is_not_taken_to_another(host: Host, store: MemoryStore):
    host.join("--etcd", URL)
    mine = Block("pods", "10.10.0.64/26", "node-a", "machine-a")
    state = Store.open(host.folder)
    with state.transaction():
        state.put_member(Member("node-a", "machine-a", "life", "192.0.2.11", B.mac))
        state.put_block(mine)
    state.close()
    assert "as node-a: agent-cni leave, before it is node-x" in host.join("--node", "node-x").err
    assert "that store knows of none of the 1 blocks this host has" in host.join("--prefix", "/other").err
    session = MemoryStore(store.memory).join(Node("node-a", "machine-a", "192.0.2.11", B.mac), "life")
    assert store.claim(session, mine)
    assert host.join("--session", "20").status == 0


def test_where_the_member_does_not_come_up_all_is_as_before(host: Host, systemd: Systemd):
    systemd.there, systemd.comes_up = True, False
    said = host.join("--etcd", URL)
    assert (said.status, host.file.exists()) == (1, False)
    assert said.err.endswith(" s: this host may not be node-a\n")
    assert systemd.told == ["restart", "stop", "leave node-a"]
    systemd.comes_up = True
    host.join("--etcd", URL)
    before = host.file.read_bytes()
    systemd.comes_up = False
    assert host.join("--session", "16").status == 1
    assert host.file.read_bytes() == before
    assert systemd.told[3:] == ["restart", "restart", "restart"]


@pytest.mark.parametrize("known_by", ["its state", "the store"])
def test_a_host_that_only_lost_its_file_does_not_leave_when_joining_fails(
    host: Host, systemd: Systemd, store: MemoryStore, known_by: str
):
    systemd.there, systemd.comes_up = True, False
    if known_by == "its state":
        state = Store.open(host.folder)
        with state.transaction():
            state.put_member(Member("node-a", "machine-a", "life", "192.0.2.11", B.mac))
        state.close()
    else:
        MemoryStore(store.memory).join(Node("node-a", "machine-a", "192.0.2.11", B.mac), "life")
    said = host.join("--etcd", URL)
    assert (said.status, host.file.exists()) == (1, False)
    assert systemd.told == ["restart", "stop"]


def test_a_file_that_is_wrong_is_not_written_over(host: Host):
    host.file.parent.mkdir()
    host.file.write_text('{"etcd": 5}')
    assert host.join("--etcd", URL).err.startswith(f"agent-cni: {host.file}: $.etcd: 5 is not of type")
    assert host.file.read_text() == '{"etcd": 5}'


def test_encryption_takes_a_program(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(process, "SYSTEM_PATH", str(tmp_path))
    said = host.join("--etcd", URL, "--encryption", "wireguard")
    assert (said.status, said.err, host.file.exists()) == (1, "agent-cni: the program wg is missing\n", False)


def test_another_key_is_made_by_the_member_that_runs(host: Host, monkeypatch: pytest.MonkeyPatch):
    key = host.folder / "wireguard.key"
    key.write_text("old")
    host.join("--etcd", URL)
    said = host.join("--rotate-key")
    assert (said.status, "the cluster is not encrypted, so node-a has no key" in said.err) == (1, True)
    assert key.read_text() == "old"
    host.file.write_text(json.dumps(host.said | {"encryption": "wireguard"}))
    monkeypatch.setattr(wireguard, "public_key", lambda private: f"public of {private}")

    def member_looks(seconds: float) -> None:
        assert not key.exists()
        key.touch(0o600)
        key.write_text("new")

    monkeypatch.setattr(rotation.time, "sleep", member_looks)
    assert host.join("--rotate-key").out == "node-a has another key: public of new\n"
    monkeypatch.setattr(rotation.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(rotation, "_ROTATION", 0.01)
    said = host.join("--rotate-key")
    assert (said.status, "no member of this host has made another key" in said.err) == (1, True)
    assert len(host.members) == 1
