"""What the doctor finds, and what it says mends it."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cni import log, plugin
from cni.command.doctor import attached, doctor, leftovers, remains
from cni.command.doctor import installed as installed_faults
from cni.command.doctor import state as state_faults
from cni.diagnosis.finding import Severity
from cni.errors import Drift, Unavailable
from cni.kernel.view import Link
from cni.liveness import Liveness
from cni.naming import Attachment
from cni.resources import AntiSpoof, Difference, Gate, GateTable, NftMasquerade, PodPolicy
from cni.state import Record, Store

Look = Callable[..., dict[str, list[dict[str, str]]]]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A healthy node: executables of ours, one good conflist, no agent, no links."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "net.d").mkdir()
    for name in (*plugin.names(), "loopback", "portmap", "host-local"):
        (tmp_path / "bin" / name).write_text("#!/opt/python\n# installed by agent-cni\n")
        (tmp_path / "bin" / name).chmod(0o755)
    good = {"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "bridge-vxlan"}, {"type": "portmap"}]}
    (tmp_path / "net.d/10-pods.conflist").write_text(json.dumps(good))
    monkeypatch.setattr(installed_faults.netfilter, "choose", lambda wanted="": "nftables")
    monkeypatch.setattr(installed_faults.process, "find", lambda name: f"/sbin/{name}")
    links(monkeypatch)
    return tmp_path


def links(monkeypatch: pytest.MonkeyPatch, *there: Link) -> None:
    rtnl = type("FakeRtnl", (), {"links": lambda self: list(there), "close": lambda self: None})
    for asking in (leftovers, remains):
        monkeypatch.setattr(asking, "Rtnl", rtnl)
    monkeypatch.setattr(leftovers.nftables, "present", lambda: False)


@pytest.fixture
def look(agent: Any, place: Path, folder: Path) -> Look:
    """Ask the doctor; what it found by area, without areas that are fine."""
    folder.mkdir(mode=0o700)

    def looked() -> dict[str, list[dict[str, str]]]:
        options = (
            "--data-dir",
            folder,
            "--bin-dir",
            place / "bin",
            "--conf-dir",
            place / "net.d",
            "--socket",
            place / "s",
        )
        said, told = agent("doctor", "--json", *options), agent("doctor", *options)
        found = {area: items for area, items in json.loads(said.out).items() if items}
        worst = max(
            (Severity[item["severity"].upper()] for items in found.values() for item in items), default=Severity.NOTE
        )
        assert said.status == told.status == worst.status
        assert all(item["what"] in told.out and item["mend"] in told.out for items in found.values() for item in items)
        return found

    return looked


def test_a_healthy_node(look: Look):
    assert look() == {}


def test_a_node_without_an_agent_is_told_what_a_call_costs(agent: Any, place: Path):
    words = "doctor", "--bin-dir", place / "bin", "--socket", place / "s"
    assert "\nagent: none\n" in agent(*words).out, "its executables cannot be run"
    (place / "bin/custom-plugin").write_text("#!/bin/sh\nsleep 0.02\n")
    took = re.search(r"\nagent: none, so each call starts Python, in (\d+) ms here", agent(*words).out)
    assert took
    assert 20 <= int(took[1]) < 5000


def test_missing_programs(look: Look, monkeypatch: pytest.MonkeyPatch):
    def nothing(wanted: str = "") -> str:
        raise Unavailable("rules go to nftables on this node, but libnftables.so.1 is not installed")

    monkeypatch.setattr(installed_faults.netfilter, "choose", nothing)
    monkeypatch.setattr(installed_faults.process, "find", lambda name: None)
    assert [item["mend"] for item in look()["programs"]] == [
        "apt-get install nftables iptables", "apt-get install iptables", "apt-get install iptables",
    ]  # fmt: skip


def name_all(place: Path) -> None:
    """Have conflists name every plugin."""
    theirs = {"type": "host-local", "ipam": {"type": "agent-ipam", "subnet": "10.1.0.0/24"}}
    for number, conf in enumerate([theirs, *({"type": name} for name in plugin.names() if name != "agent-ipam")]):
        text = json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": [conf]})
        (place / f"net.d/2{number}-more.conflist").write_text(text)


def test_what_only_a_pod_of_kubernetes_can_have_is_no_fault(look: Look, place: Path):
    """Policies of the cluster hold pods by the names that CNI_ARGS has."""
    routed = {
        "type": "bridge-vxlan",
        "isGateway": True,
        "vxlan": {"id": 100, "mode": "l3"},
        "policy": {"cluster": True},
    }
    routed |= {"ipam": {"type": "agent-ipam", "cluster": True, "subnet": "10.244.0.0/16"}}
    text = json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": [routed]})
    (place / "net.d/10-pods.conflist").write_text(text)
    assert look() == {}


def test_executables_of_which_nobody_calls_any_may_be_somebody_elses(look: Look, place: Path):
    """As the reference macvlan is beside a bridge-vxlan of ours."""
    (place / "bin/macvlan").write_bytes(b"\x7fELF\xff")
    (place / "bin/agent-ipam").unlink()
    assert look() == {}
    (place / "net.d/10-pods.conflist").unlink()
    assert len(look()["executables"]) == 2


def test_executables_that_are_missing_foreign_or_not_executable(look: Look, place: Path):
    name_all(place)
    (place / "bin/macvlan").write_bytes(b"\x7fELF\xff")
    (place / "bin/agent-ipam").unlink()
    (place / "bin/bridge-vxlan").chmod(0o644)
    said = [item["what"].removeprefix(f"{place}/bin/") for item in look()["executables"]]
    assert sorted(said) == sorted(
        ["agent-ipam is missing", "macvlan is somebody else's plugin"]
        + ["bridge-vxlan cannot be executed"] * (not os.access(place / "bin/bridge-vxlan", os.X_OK))
    )


def test_configurations_that_would_be_refused(look: Look, place: Path):
    (place / "net.d/20-cut.conflist").write_text("{")
    (place / "net.d/30-typo.conf").write_text(
        json.dumps({"cniVersion": "1.0.0", "name": "x", "type": "macvlan", "mastr": "eth0"})
    )
    (place / "net.d/40-none.conflist").symlink_to("nowhere")
    cut, typo, none = look()["configurations"]
    assert "20-cut.conflist" in cut["what"]
    assert cut["mend"] == f"edit {place}/net.d/20-cut.conflist"
    assert "did you mean 'master'" in typo["what"]
    assert none["what"] == f"{place}/net.d/40-none.conflist: No such file or directory"


def test_plugins_that_a_configuration_names_and_nobody_installed(look: Look, place: Path):
    (place / "bin/portmap").unlink()
    (place / "bin/host-local").unlink()
    lent = {"type": "macvlan", "master": "eth0", "ipam": {"type": "host-local"}}
    (place / "net.d/20-lent.json").write_text(json.dumps({"cniVersion": "1.0.0", "name": "x"} | lent))
    (place / "net.d/30-typo.json").write_text(json.dumps({"cniVersion": "1.0.0", "name": "x", "type": "macvlann"}))
    portmap, local, typo = look()["configurations"]
    assert portmap["mend"] == f"put portmap into {place}/bin"
    assert local["mend"] == f"put host-local into {place}/bin"
    assert "did you mean 'macvlan'" in typo["what"]


def test_a_runtime_without_loopback_or_configurations(look: Look, place: Path):
    (place / "bin/loopback").unlink()
    (place / "net.d/10-pods.conflist").unlink()
    found = look()
    assert "loopback" in found["executables"][0]["what"]
    assert found["configurations"][0]["mend"] == "agent-cni install --conf NAME"
    (place / "net.d").rmdir()
    assert look()["configurations"] == found["configurations"]


@pytest.mark.parametrize("error", [KeyError, TypeError, AttributeError])
def test_a_record_that_nobody_can_read_is_named(
    look: Look, attach: Callable[..., Record], monkeypatch: pytest.MonkeyPatch, error: type[Exception]
):
    def check(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(attached.verbs, "check", check)
    attach("c1", "10.1.0.2")
    (found,) = look()["attachments"]
    assert found["what"] == "default/web: another release recorded what this one does not know"


def test_a_folder_of_policies_is_mended_there(
    look: Look, attach: Callable[..., Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(attached.verbs, "check", lambda *_, **__: None)
    wrong = tmp_path / "policies/a.yaml"
    for container, address in (("c1", "10.1.0.2"), ("c2", "10.1.0.3")):
        attach(container, address, policy={"policyDir": str(wrong.parent)})
    wrong.parent.mkdir()
    wrong.write_text("- 1")
    (found,) = look()["attachments"]
    assert found["what"] == f"policyDir: {wrong}: not a Kubernetes object"
    assert found["mend"] == "put the folder or file right, then agent-cni refresh"


def test_a_data_dir_that_is_none(agent: Any, place: Path):
    said = agent("doctor", "--data-dir", place / "nowhere")
    assert (said.status, f"there is no folder {place}/nowhere\n    mend: name a dataDir" in said.out) == (3, True)


def test_a_socket_nobody_listens_on(look: Look, place: Path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(place / "s"))
    (found,) = look()["agent"]
    assert found["what"].startswith("nobody listens on")


def test_a_damaged_state(look: Look, folder: Path):
    (folder / "state.db").write_bytes(b"nonsense" * 1000)
    assert set(look()) == {"state"}


@pytest.mark.parametrize("intact", [0, 4096], ids=["all of it", "behind the first page"])
def test_without_a_state_nothing_is_a_leftover(
    look: Look, folder: Path, attach: Callable[..., Record], monkeypatch: pytest.MonkeyPatch, intact: int
):
    attach("c2", "10.1.0.9")
    for name in ("state.db-wal", "state.db-shm"):
        (folder / name).unlink(missing_ok=True)
    content = (folder / "state.db").read_bytes()
    (folder / "state.db").write_bytes(content[:intact] + b"\xa5" * (len(content) - intact))
    pod = Attachment("pods", "c1", "eth0")
    links(monkeypatch, _veth(pod.host_interface, pod.host_mac))
    assert set(look()) == {"state"}


def test_what_is_mended_together_is_said_together(agent: Any, look: Look, place: Path, folder: Path):
    name_all(place)
    for name in ("macvlan", "agent-ipam"):
        (place / "bin" / name).unlink()
    assert len(look()["executables"]) == 2
    said = agent("doctor", "--data-dir", folder, "--bin-dir", place / "bin", "--conf-dir", place / "net.d")
    assert said.out.count("mend: agent-cni install") == 1


def test_an_address_of_nobody(look: Look, folder: Path):
    store = Store.open(folder)
    with store.transaction():
        store.lease(Attachment("pods", "c9", "eth0"), "agent-ipam", ip_address("10.1.0.2"))
    store.close()
    (found,) = look()["state"]
    assert found["mend"] == "agent-cni ipam 10.1.0.2 --release --network pods"


def test_attachments_that_are_stale_unfinished_or_drifting(
    look: Look, attach: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
):
    def drift(plugin: Any, call: Any, conf: Any, deliver: Any, **_: Any) -> None:
        if call.container == "c3":
            said = "route 0.0.0.0/0 is missing in the pod", "eth0 is down in the pod"
            raise Drift("pods/c3/eth0", tuple(map(Difference, said)))

    monkeypatch.setattr(attached.verbs, "check", drift)
    attach("c1", "10.1.0.2", alive=False)
    attach("c2", "10.1.0.3", complete=False)
    attach("c3", "10.1.0.4")
    attach("c4", "10.1.0.5")
    assert [item["what"] for item in look()["attachments"]] == [
        "default/web: route 0.0.0.0/0 is missing in the pod",
        "default/web: eth0 is down in the pod",
        "default/web (pods/c1/eth0): its pod is gone, what it had is not",
        "default/web (pods/c2/eth0): its ADD or DEL never ended",
    ]


def test_a_difference_is_one_finding_whatever_is_in_its_line_and_told_once(
    look: Look, attach: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
):
    rules, link = (
        Difference("chain in: a { b; c } is missing", "agent-cni refresh"),
        Difference("eth0 is down; so it is"),
    )

    def drift(plugin: Any, call: Any, conf: Any, deliver: Any, **_: Any) -> None:
        raise Drift("pods/c1/eth0", (rules, link))

    monkeypatch.setattr(attached.verbs, "check", drift)
    monkeypatch.setattr(attached, "behind", lambda *_: ((rules,), "today's policy is none; whatever it says"))
    attach("c1", "10.1.0.2")
    assert [(item["what"], item["mend"].split(":")[0]) for item in look()["attachments"]] == [
        ("default/web: chain in: a { b; c } is missing", "agent-cni refresh"),
        ("default/web: today's policy is none; whatever it says", "delete the pod"),
        ("default/web: eth0 is down; so it is", "delete the pod"),
    ]


def test_what_another_release_recorded_is_said(
    look: Look, attach: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
):
    def unknown(*_: Any, **__: Any) -> None:
        raise KeyError("Wormhole")

    monkeypatch.setattr(attached.verbs, "check", unknown)
    attach("c1", "10.1.0.2")
    (found,) = look()["attachments"]
    assert "another release" in found["what"]


def test_host_ends_of_pods_nobody_knows(
    look: Look, recorded_too: Any, attach: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(attached.verbs, "check", lambda *_, **__: None)
    record = attach("c1", "10.1.0.2")
    recorded_too("c1", {"kind": "VethPair", "host": record.attachment.host_interface})
    lost = Attachment("pods", "c2", "eth0")
    links(
        monkeypatch,
        *(_veth(item.host_interface, item.host_mac) for item in (record.attachment, lost)),
        _veth("veth0", "0e:00:00:00:00:01"),
        _veth(lost.host_interface, "0e:00:00:00:00:02"),
    )
    (found,) = look()["leftovers"]
    assert found["mend"] == f"ip link delete {lost.host_interface}"


def _veth(name: str, mac: str) -> Link:
    return Link(1, name, "veth", mac, 1500, True, "UP", 0, False, False, False, False, None)


RULES = {
    "table inet agent_cni_policy": "table inet agent_cni_policy {\n\tchain forward {\n\t}\n\tchain in-0a {\n\t}\n\tchain out-0b {\n\t}\n}\n",
    "map inet agent_cni_policy in4": "\tmap in4 {\n\t\telements = { 10.1.0.2 : jump in-0a,\n\t\t\t10.1.0.3 : jump in-0b }\n\t}\n",
    "table netdev agent_cni": "table netdev agent_cni {\n\tchain veth0 {\n\t}\n}\n",
    "chains netdev": (
        "table netdev agent_cni {\n\tchain veth0 {\n\t}\n}\n"
        "table netdev agent_cni-0 {\n\tchain from-0a {\n\t}\n\tchain from-0b {\n\t}\n}\n"
        "table netdev agent_cni-1 {\n}\ntable netdev agent_cni-2c {\n\tchain from-2c {\n\t}\n}\n"
        "table netdev others {\n\tchain from-9 {\n\t}\n}\n"
    ),
    "set ip agent_cni pods": '\tset pods {\n\t\telements = { 10.1.0.2 comment "pods/c1/eth0", 10.1.0.3 }\n\t}\n',
    "set ip6 agent_cni pods": "\tset pods {\n\t\telements = { fd00::2 }\n\t}\n",
}


def recorded(*resources: Any) -> list[Record]:
    who = Attachment("pods", "c1", "eth0")
    return [Record(who, "bridge-vxlan", "", "", {}, resources)]


def test_rules_of_nobody_are_told_with_what_takes_them_away(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(leftovers.nftables, "present", lambda: True)
    monkeypatch.setattr(leftovers.netfilter, "nft_list", lambda what: RULES.get(what, ""))
    policy = PodPolicy(("10.1.0.3",), (), closed=False, pod="", token="0b")
    gates = (GateTable("0"), Gate("veth1", "ingress", "0b", (), bucket="0"))
    masquerade = NftMasquerade("nftables", 4, "10.1.0.3", "10.1.0.0/24", "")
    assert [item.command for item in leftovers.leftovers(lambda: recorded(policy, *gates, masquerade))] == [
        "nft 'delete element inet agent_cni_policy in4 { 10.1.0.2 }; delete chain inet agent_cni_policy in-0a'",
        "nft delete chain netdev agent_cni veth0",
        "nft delete chain netdev agent_cni-0 from-0a",
        "nft delete table netdev agent_cni-1",
        "nft delete table netdev agent_cni-2c",
        "nft delete element ip agent_cni pods '{ 10.1.0.2 }'",
        "nft delete element ip6 agent_cni pods '{ fd00::2 }'",
    ]
    guard = AntiSpoof("veth0", "0a:58:0a:01:00:02", ("10.1.0.2",))
    others = (NftMasquerade("nftables", 4, "10.1.0.2", "", ""), NftMasquerade("nftables", 6, "fd00::2", "", ""))
    mine = PodPolicy(("10.1.0.2",), (), closed=False, pod="", token="0a")
    own = (Gate("veth2", "ingress", "0a", (), bucket="0"), GateTable("1"))
    before = (GateTable("2c"), Gate("veth3", "ingress", "2c", ()))
    every = recorded(policy, mine, *gates, *own, *before, guard, masquerade, *others)
    assert list(leftovers.leftovers(lambda: every)) == []


def test_a_terminal_gets_colours_unless_somebody_refuses_them(
    agent: Any, place: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    folder.mkdir(mode=0o700)
    words = ("doctor", "--data-dir", folder, "--bin-dir", place / "bin", "--conf-dir", place / "nowhere", "--socket", place / "s")  # fmt: skip
    assert "\x1b[" not in agent(*words).out
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    told = agent(*words).out
    assert "\x1b[32m ok\x1b[0m" in told
    assert "\x1b[1;31mbroken\x1b[0m: " in told
    assert told.splitlines()[-1] == "\x1b[1;31m1 broken\x1b[0m; 0 attachments looked at"
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in agent(*words).out


def test_it_waits_until_all_is_well_or_so_long(agent: Any, place: Path, folder: Path, monkeypatch: pytest.MonkeyPatch):
    folder.mkdir(mode=0o700)
    (place / "bin/bridge-vxlan").rename(place / "bin/away")
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            (place / "bin/away").rename(place / "bin/bridge-vxlan")

    monkeypatch.setattr(doctor.time, "sleep", sleep)
    words = ("doctor", "--data-dir", folder, "--bin-dir", place / "bin", "--conf-dir", place / "net.d", "--socket", place / "s")  # fmt: skip
    assert agent(*words).status == 3
    assert slept == []
    said = agent(*words, "--wait")
    assert (said.status, len(slept)) == (0, 2)
    assert "all is well" in said.out
    (place / "bin/bridge-vxlan").unlink()
    monkeypatch.setattr(doctor.time, "monotonic", iter(range(100)).__next__)
    assert agent(*words, "--wait", "3").status == 3


def test_somebody_elses_conflist_that_comes_first(look: Look, place: Path, monkeypatch: pytest.MonkeyPatch):
    theirs = {"cniVersion": "1.0.0", "name": "other", "plugins": [{"type": "portmap"}]}
    (place / "net.d/20-other.conflist").write_text(json.dumps(theirs))
    assert look() == {}
    (place / "net.d/05-other.conflist").write_text(json.dumps(theirs))
    (found,) = look()["configurations"]
    assert found["what"].startswith(f"{place}/net.d/05-other.conflist is not ours and sorts before 10-pods.conflist")
    assert (found["severity"], found["cause"]) == ("note", "conflist-order")
    monkeypatch.setattr(installed_faults, "_RUNTIMES", (place,))
    (found,) = look()["configurations"]
    assert (found["severity"], found["mend"]) == ("warning", f"mv {place}/net.d/05-other.conflist {place}/net.d/05-other.conflist.off")  # fmt: skip


def test_no_loopback_is_a_note_where_no_runtime_would_call_it(look: Look, place: Path, monkeypatch: pytest.MonkeyPatch):
    (place / "bin/loopback").unlink()
    assert [item["severity"] for item in look()["executables"]] == ["note"]
    monkeypatch.setattr(installed_faults, "_RUNTIMES", (place,))
    assert [item["severity"] for item in look()["executables"]] == ["broken"]


def test_disks_without_room(look: Look, folder: Path, monkeypatch: pytest.MonkeyPatch):
    disk = {"f_bavail": 1 << 20, "f_frsize": 4096, "f_favail": 9, "f_files": 99, "f_flag": 0}

    def found(**keys: int) -> list[tuple[str, str]]:
        monkeypatch.setattr(state_faults.os, "statvfs", lambda _: SimpleNamespace(**(disk | keys)))
        return [(item["what"], item["severity"]) for item in look().get("state", ())]

    assert found() == []
    assert found(f_bavail=10) == [
        (f"the disk of {folder} has 40 KiB left: no pod can be attached", "broken"),
        (f"the disk of {log.FOLDER} has 40 KiB left: what plugins did is lost", "warning"),
    ]
    assert "has no inode left" in found(f_favail=0)[0][0]
    assert found(f_favail=0, f_files=0) == [], "as btrfs says"
    assert "is read-only" in found(f_flag=os.ST_RDONLY)[0][0]


def test_a_range_without_a_free_address(look: Look, attach: Callable[..., Record], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(attached.verbs, "check", lambda *_, **__: None)
    span = {"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.2", "rangeEnd": "10.1.0.3"}
    attach("c1", "10.1.0.2", ipam=span)
    assert look() == {}
    attach("c2", "10.1.0.3", ipam=span)
    (found,) = look()["state"]
    assert found["what"] == "range 10.1.0.2-10.1.0.3 of network pods has no free address: 2 are leased"
    assert (found["cause"], found["mend"]) == ("range-full", "give network pods a larger range")
    monkeypatch.setattr(state_faults.Witness, "of", lambda *_: Liveness.GONE)
    (found,) = look()["state"]
    assert found["what"].endswith("2 are leased, 2 of them to pods that are gone")
    assert found["mend"] == "agent-cni gc"
