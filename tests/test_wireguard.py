"""What an encrypted cluster's hosts are to each other, and the key of this one."""

from __future__ import annotations

import errno
import ipaddress
import os
import time
from contextlib import closing
from ipaddress import ip_interface
from pathlib import Path

import pytest
from cluster_memory import Memory
from member_host import Host
from rtnl import FakeRtnl

from cni.cluster.config import ClusterConfig, EtcdConfig
from cni.cluster.model import Node
from cni.errors import Conflict, ToolFailed, Unavailable
from cni.kernel import process, sysctl, wireguard
from cni.kernel.netlink import Rtnl
from cni.kernel.wireguard import Peer, Shown, Tunnel
from cni.kernel.writing import unfinished
from cni.member.encryption import Encryption
from cni.member.identity import node_of, this_host
from cni.member.key import FILE, Key
from cni.overlay.wireguard import DEVICE, PREFIX, overhead, peers, underlay, vtep
from cni.values import replace

KEYS = ["GIk0mrQVmtX4VqTOYZ6N0Ws3sFkFbHs7ZtLkHoFJd1o=", "iQif0lXosw1dLDsfjO3DEon7DhOJut4DFRn/kuHwUGk="]
MACHINE = "a" * 32
WG = """#!/bin/sh
echo "$@" >>"{0}/asked"
case $1 in
genkey) echo "private-$(wc -l <"{0}/asked")";;
pubkey) sed s/private/public/;;
*) echo "Unable to modify interface: $(cat "{0}/refusal")" >&2; exit 1;;
esac
"""


def node(name: str, **fields: str) -> Node:
    said = {"wireguard": KEYS[0], "underlay": "192.0.2.12:51820"} | fields
    return Node(name, "b" * 32, vtep(name), "fe:00:00:00:00:02", **said)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `wg` that makes keys, refuses the rest for the reason in `refusal`, and keeps what it was asked."""
    (tmp_path / "wg").write_text(WG.format(tmp_path))
    (tmp_path / "wg").chmod(0o755)
    (tmp_path / "asked").touch()
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path / "asked"


def test_an_address_inside_the_tunnels_goes_by_the_name_alone():
    assert vtep("node-a") == "fd45:c445:445c:6657:ff0:5a20:7404:3084"
    assert ipaddress.ip_address(vtep("node-a")) in PREFIX
    assert vtep("node-a") != vtep("node-b")
    assert PREFIX.is_private
    assert len(DEVICE.encode()) < 16


@pytest.mark.parametrize(
    ("address", "text", "more"), [("192.0.2.11", "192.0.2.11:51820", 60), ("2001:db8::1", "[2001:db8::1]:51820", 80)]
)
def test_the_underlay_has_either_family(address: str, text: str, more: int):
    assert (underlay(address, 51820), overhead(address)) == (text, more)
    assert peers([node("node-b", underlay=text)], "")[0][KEYS[0]].endpoint == text


def test_a_peer_is_sent_to_at_the_address_of_its_name_and_at_none_it_says_itself():
    claims = node("node-b")
    claims = Node(claims.name, claims.machine, vtep("node-c"), claims.mac, claims.wireguard, claims.underlay)
    assert peers([claims], "") == ({KEYS[0]: Peer(KEYS[0], f"{vtep('node-b')}/128", "192.0.2.12:51820")}, ())


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"wireguard": ""}, "node-b has no WireGuard key"),
        ({"wireguard": "AAAA"}, "node-b has 'AAAA', which is no WireGuard key"),
        ({"wireguard": KEYS[0][:-2] + "\n="}, "which is no WireGuard key"),
        ({"wireguard": "ä" * 44}, "which is no WireGuard key"),
        ({"wireguard": KEYS[1]}, "node-b has the WireGuard key of this host"),
        ({"underlay": ""}, "node-b is reached at '', which is no address and port"),
        (
            {"underlay": "[2001:db8::1%x y]:51820"},
            "node-b is reached at '[2001:db8::1%x y]:51820', which is no address and port",
        ),
        ({"underlay": "192.0.2.12"}, "no address and port"),
        ({"underlay": "192.0.2.12:0"}, "no address and port"),
        ({"underlay": "192.0.2.12:65536"}, "no address and port"),
        ({"underlay": "192.0.2.12:٣"}, "no address and port"),
        ({"underlay": "host.example:51820"}, "no address and port"),
        ({"underlay": "192.0.2.12 allowed-ips ::/0:51820"}, "no address and port"),
    ],
)
def test_who_cannot_be_a_peer_is_named_and_the_others_are_peers(fields: dict[str, str], why: str):
    found, refused = peers([node("node-b", **fields), node("node-c")], KEYS[1])
    assert list(found.values()) == [Peer(KEYS[0], f"{vtep('node-c')}/128", "192.0.2.12:51820")]
    assert len(refused) == 1
    assert why in refused[0]


def test_a_key_is_spelled_as_wg_shows_it():
    assert list(peers([node("node-b", wireguard=KEYS[0].replace("1o=", "1p="))], "")[0]) == [KEYS[0]]


def test_of_two_hosts_with_one_key_the_first_by_name_is_the_peer():
    found, refused = peers([node("node-c"), node("node-b")], "")
    assert found[KEYS[0]].inside == f"{vtep('node-b')}/128"
    assert refused == ("node-c has the WireGuard key of node-b",)


# --- the key


def test_a_key_is_made_once_and_only_we_read_it(asked: Path, tmp_path: Path):
    key = Key(tmp_path)
    assert key.pair() == ("private-1", "public-1")
    assert key.file.stat().st_mode & 0o777 == 0o600
    assert Key(tmp_path).pair() == key.pair()
    assert sorted(item.name for item in tmp_path.iterdir()) == ["asked", "wg", FILE]


def test_another_key_file_is_another_key_and_none_is_a_new_one(asked: Path, tmp_path: Path):
    key = Key(tmp_path)
    versions = {key.version, key.pair() and key.version}
    key.file.unlink()
    key.file.touch(0o600)
    key.file.write_text("private-mine\n")
    versions.add(key.version)
    assert key.public == "public-mine"
    key.delete()
    assert key.public not in ("", "public-1", "public-mine")
    assert len({*versions, key.version}) == 4
    assert "private" not in asked.read_text()


def test_a_key_that_others_may_read_is_none(asked: Path, tmp_path: Path):
    (tmp_path / FILE).write_text("private-mine\n")
    (tmp_path / FILE).chmod(0o640)
    assert Key(tmp_path).public == ""
    with pytest.raises(Unavailable, match=r"may be read by others \(mode 640, not 600\)"):
        Key(tmp_path).pair()


def test_what_ends_half_way_through_a_key_is_made_again(asked: Path, tmp_path: Path):
    unfinished(tmp_path / FILE).write_text("half")
    key = Key(tmp_path)
    assert key.public == "public-1"
    unfinished(tmp_path / FILE).write_text("half")
    key.delete()
    assert list(tmp_path.glob(".*")) == []


def test_a_folder_that_holds_no_key_is_named(asked: Path, tmp_path: Path):
    with pytest.raises(Unavailable, match=r"wireguard\.key cannot be read"):
        Key(tmp_path / "gone").pair()


# --- what is said of the host


def config(encryption: str) -> ClusterConfig:
    return ClusterConfig("node-a", EtcdConfig(()), vtep="192.0.2.11", encryption=encryption)


def test_a_host_is_reached_in_the_tunnels_where_there_are_any():
    plain = this_host(config(""), MACHINE, None)
    assert (plain.vtep, plain.underlay, plain.no_tunnel) == ("192.0.2.11", "", "")
    mine = this_host(config("wireguard"), MACHINE, plain)
    assert (mine.vtep, mine.underlay) == (vtep("node-a"), "192.0.2.11")
    assert mine.no_tunnel.startswith("encryption: ")
    there = this_host(config("wireguard"), MACHINE, replace(mine, no_tunnel=""))
    assert there.no_tunnel == "", "a member that starts again has what it had"
    assert this_host(config(""), MACHINE, there) == plain


def test_the_others_are_told_the_public_key_and_the_port():
    mine = this_host(config("wireguard"), MACHINE, None)
    told = node_of(mine, config("wireguard"), KEYS[0])
    assert (told.vtep, told.wireguard, told.underlay) == (mine.vtep, KEYS[0], "192.0.2.11:51820")
    assert peers([told], "")[0][KEYS[0]].inside == f"{mine.vtep}/128"
    assert node_of(mine, config("wireguard")).wireguard == ""


def test_what_the_hand_says_of_tunnels_is_kept_by_the_session(asked: Path, tmp_path: Path):
    host = Host("node-a", Memory(), tmp_path, encryption="wireguard")
    host.keeper.step()
    assert host.keeper.host
    assert host.keeper.host.no_tunnel
    with closing(host.state) as state, state.transaction():
        state.say_tunnels("")
    host.keeper.step()
    with closing(host.state) as state:
        member = state.member()
    assert member
    assert (member.no_tunnel, member.trouble) == ("", "")
    assert host.keeper.session
    assert host.keeper.session.node.wireguard == "public-1"
    (tmp_path / FILE).unlink()
    host.keeper.step()
    assert host.keeper.session.node.wireguard not in ("", "public-1"), "another key is announced"


# --- its programs


def test_a_port_that_somebody_has_is_named(asked: Path, tmp_path: Path):
    (tmp_path / "refusal").write_text("Address already in use")
    with pytest.raises(Conflict, match=r"^UDP port 51820 of this host is taken"):
        wireguard.set_device("wg0", "private-1", 51820)
    (tmp_path / "refusal").write_text("Operation not permitted")
    with pytest.raises(ToolFailed, match=r"^wg set wg0: Unable to modify interface: Operation not permitted$"):
        wireguard.set_device("wg0", "private-1", 51820)
    assert "private-1" not in asked.read_text()


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(process, "SYSTEM_PATH", str(tmp_path))
    with pytest.raises(ToolFailed, match=r"^the program wg is missing$"):
        wireguard.new_key()
    with pytest.raises(ToolFailed, match=r"^this kernel has no WireGuard, and the program wireguard-go is missing"):
        wireguard.start("wg0")
    assert Key(tmp_path).public == ""


def test_programs_are_looked_for_in_absolute_folders_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wg").touch(0o755)
    assert process.find("wg", ":.:") == process.find("wg")
    assert process.find("wg", str(tmp_path)) == str(tmp_path / "wg")
    assert os.access(str(process.find("sh", str(tmp_path))), os.X_OK)


# --- the device, by a namespace that is played


class Device:
    """A `wg` that has what it is given; `looks` is what the kernel says of the link."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.host, self.peers, self.device = FakeRtnl(), {}, ("", 0)
        self.begun: list[str] = []
        self.heard: set[str] = set()
        eth0 = self.host.add("eth0")
        self.host.add_address(eth0, ip_interface("192.0.2.11/24"))
        monkeypatch.setattr(Rtnl, "kept", lambda: self.host)
        self.host.give_back = lambda: None  # type: ignore[attr-defined]
        monkeypatch.setattr(
            self.host, "create_wireguard", lambda name: bool(self.host.add(name, "wireguard", up=False))
        )
        monkeypatch.setattr(sysctl, "read", lambda key: "0")
        for name in ("show", "set_device", "set_peers"):
            monkeypatch.setattr(wireguard, name, getattr(self, name))

    def show(self, name: str) -> Shown:
        return Shown(
            *self.device, {key: Tunnel(peer, int(key in self.heard), 0, 0) for key, peer in self.peers.items()}
        )

    def set_device(self, name: str, private: str, port: int) -> None:
        self.device = private, port

    def set_peers(self, name: str, gone: list[str], there: list[Peer], begun: list[str]) -> None:
        for key in gone:
            del self.peers[key]
        self.peers |= {peer.key: peer for peer in there}
        self.begun = sorted(begun)


@pytest.fixture
def device(asked: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device(monkeypatch)


def test_peers_are_those_hosts_and_no_others_once_anybody_knows_who_they_are(device: Device, tmp_path: Path):
    end, other = Encryption("node-a", 51820, Key(tmp_path)), node("node-c", wireguard=KEYS[1])
    end.ensure("192.0.2.11", [node("node-a", wireguard="mine"), node("node-b"), other])
    assert (end.trouble, end.refused, device.device) == ("", (), ("private-1", 51820))
    assert sorted(device.peers) == sorted(KEYS)
    assert not end.look()
    end.ensure("192.0.2.11", None)
    assert sorted(device.peers) == sorted(KEYS)
    moved = node("node-b", underlay="192.0.2.99:51820")
    end.ensure("192.0.2.11", [moved])
    assert (list(device.peers.values()), device.begun) == (
        [Peer(KEYS[0], f"{vtep('node-b')}/128", "192.0.2.99:51820")],
        [],
    )
    again = Encryption("node-a", 51820, Key(tmp_path))
    again.ensure("192.0.2.11", None)
    assert (again.trouble, len(device.peers)) == ("", 1), "a member that starts again, and has not heard yet"


def test_of_two_hosts_that_are_new_to_each_other_one_begins_and_the_other_only_when_it_was_not_heard(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    names = sorted((f"node-{letter}" for letter in "abc"), key=vtep)
    first, last = (node(name, wireguard=key) for name, key in zip(names[::2], KEYS, strict=True))
    end = Encryption(names[1], 51820, Key(tmp_path))
    end.ensure("192.0.2.11", [first, last])
    assert device.begun == [last.wireguard]
    assert not end.look()
    now = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: now() + 1)
    device.heard = {last.wireguard}
    assert end.look()
    end.ensure("192.0.2.11", [first, last])
    assert device.begun == [first.wireguard], "it said nothing"
    assert not end.look()
    device.peers.clear()  # another device: only this host has lost its sessions
    end.ensure("192.0.2.11", [first, last])
    assert device.begun == sorted(KEYS)
    assert not end.look()
    again = node(first.name, wireguard="AAAA" + first.wireguard[4:])
    end.ensure("192.0.2.11", [again, last])
    assert device.begun == [again.wireguard], "another key of a host that was there"


def test_a_port_that_the_kernels_device_cannot_take_is_named(device: Device, tmp_path: Path):
    device.host.refusals["set_link"] = errno.EADDRINUSE
    end = Encryption("node-a", 51820, Key(tmp_path))
    end.ensure("192.0.2.11", [])
    assert end.trouble == "encryption: UDP port 51820 of this host is taken: WireGuard cannot have it"
    assert end.look()


def test_a_clock_that_went_back_takes_another_key(device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    key = Key(tmp_path)
    end = Encryption("node-a", 51820, key)
    end.ensure("192.0.2.11", [])
    before, now = key.public, time.time
    assert before == key.in_use == "public-1"
    for later in (3600.0, 3598.0):
        monkeypatch.setattr(time, "time", lambda later=later: now() + later)
        assert not end.look()
    monkeypatch.setattr(time, "time", now)
    assert end.look()
    assert key.pair()[1] != key.public == before, "others hear of a key when it is in use"
    end.ensure("192.0.2.11", [])
    assert key.public == key.pair()[1]
    assert device.device == (key.pair()[0], 51820)
    assert not end.look()
