"""Leaving a cluster: who runs the member meanwhile, and what is said of what could not be done."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from ipaddress import ip_interface
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cni.cluster.config import ClusterConfig, EtcdConfig
from cni.cluster.model import Network
from cni.cluster.pools import Pool
from cni.command.cluster import leave
from cni.errors import CniError, Conflict, Unreachable
from cni.kernel.locks import LockFile
from cni.resources import VxlanLink
from cni.state import Store
from cni.state.configured import Place
from cni.state.membership import Member
from cni.state.uses import node_lock

ME = Member("node-a", "machine-a", "life", "192.0.2.11", "0a:00:00:00:00:01")
#: Idle ones of ours, and the addresses they have.
LINKS: dict[str, tuple[str, tuple[str, ...]]] = {
    "vxlan100": ("vxlan", ()),
    "br0": ("bridge", ("10.10.0.1/16", "fe80::1/64")),
    "vxlan101": ("vxlan", ("10.11.0.0/32",)),
    "br1": ("bridge", ("fe80::1/64",)),
    "br2": ("bridge", ("10.12.0.1/16",)),
    "br3": ("bridge", ("10.12.0.1/16", "10.9.0.1/24")),
    "br7": ("bridge", ()),
    "br8": ("bridge", ("10.8.0.1/24",)),
    "vxlan9": ("vxlan", ()),
    "br9": ("bridge", ("10.12.0.1/16",)),
    "mv-eth0": ("macvlan", ()),
}


class Host(SimpleNamespace):
    """A host in a cluster; `taken` are the idle links that are the cluster's, `told` is what systemd was, and `left` what leaving comes to."""

    file: Path
    folder: Path
    taken: list[SimpleNamespace]
    told: list[str]
    left: Callable[..., list[str]]
    state: str
    member: Member | None


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host(
        file=tmp_path / "cluster.json",
        folder=tmp_path,
        taken=[],
        told=[],
        left=lambda config, force: [],
        state="active",
        member=ME,
    )
    ClusterConfig("node-a", EtcdConfig(("http://192.0.2.1:2379",))).write(host.file)
    systemd = SimpleNamespace(
        runs_members=lambda place: bool(host.state),
        member_state=lambda: host.state,
        stop_member=lambda: host.told.append("stop"),
        start_member=lambda anew: host.told.append("start"),
    )
    monkeypatch.setattr(leave, "systemd", systemd)
    monkeypatch.setattr(leave, "PATH", host.file)

    @contextmanager
    def as_said(config: ClusterConfig, *, force: bool) -> Iterator[list[str]]:
        yield host.left(config, force)

    monkeypatch.setattr(leave, "leave_cluster", as_said)
    links = [SimpleNamespace(name=name, kind=kind) for name, (kind, _) in LINKS.items()]
    kernel = SimpleNamespace(
        links=lambda: links,
        addresses=lambda link: [SimpleNamespace(interface=ip_interface(text)) for text in LINKS[link.name][1]],
        close=lambda: None,
    )
    monkeypatch.setattr(leave, "Rtnl", lambda: kernel)
    monkeypatch.setattr(leave, "take_idle_links", lambda chosen: host.taken.extend(filter(chosen, links)))
    monkeypatch.setattr(leave, "DEFAULT_FOLDER", tmp_path)
    monkeypatch.setattr(leave, "own_part", lambda: (host.member, []))
    return host


def refused(error: CniError) -> Callable[..., list[str]]:
    def refuse(config: ClusterConfig, force: bool) -> list[str]:
        raise error

    return refuse


def test_what_is_left_is_gone(agent: Any, host: Host):
    said = agent("leave", "--config", host.file)
    assert (said.status, said.out, said.err) == (0, "node-a has left the cluster\n", "")
    assert (host.told, host.file.exists()) == (["stop"], False)
    assert "this host is in no cluster" in agent("leave", "--config", host.file).err


def test_idle_links_of_networks_that_are_not_the_clusters_stay(agent: Any, host: Host):
    """A bridge is the cluster's by its tunnel, or by its gateways alone."""
    with closing(Store.open(host.folder)) as state, state.transaction():
        for name, subnet, vni in (
            ("pods", "10.10.0.0/16", 100),
            ("far", "10.11.0.0/16", 101),
            ("flat", "10.12.0.0/16", 0),
        ):
            first = subnet.replace("0/16", "1")
            state.share(Network(name, (Pool(subnet, first, first, first),), 64, vni=vni))
        for name, vni, bridge, behind in (("pods", 100, "br0", ""), ("far", 101, "", "br1"), ("own", 9, "br9", "")):
            device = VxlanLink(f"vxlan{vni}", vni, 4789, "192.0.2.11", "", 1450, bridge, behind=behind)
            state.put_configured(Place(name, "bridge-vxlan", device.name), [device])
    with closing(LockFile(node_lock())) as lock:
        lock.share_node()
        host.left = refused(Conflict("not now"))
        agent("leave", "--config", host.file)
        host.left = lambda config, force: []
        said = agent("leave", "--config", host.file)
        assert (said.status, "pods come or go just now" in said.err, host.taken) == (0, True, [])
    ClusterConfig("node-a", EtcdConfig(("http://192.0.2.1:2379",))).write(host.file)
    assert agent("leave", "--config", host.file).err == ""
    assert [link.name for link in host.taken] == ["vxlan100", "br0", "vxlan101", "br1", "br2"]


def test_one_that_may_not_leave_stays_as_it_was(agent: Any, host: Host):
    host.left = refused(Conflict("2 pods have addresses of the cluster"))
    said = agent("leave", "--config", host.file)
    assert (said.status, said.err) == (1, "agent-cni: 2 pods have addresses of the cluster\n")
    assert (host.told, host.file.exists()) == (["stop", "start"], True)
    host.told, host.state = [], "inactive"
    assert (agent("leave", "--config", host.file).status, host.told) == (1, ["stop"])
    host.told, host.state = [], ""
    assert (agent("leave", "--config", host.file).status, host.told) == (1, [])


def test_half_a_leave_is_to_be_finished(agent: Any, host: Host):
    host.left, host.member = refused(Unreachable("no answer")), type(ME)(**(vars(ME) | {"leaving": True}))
    said = agent("leave", "--config", host.file)
    mend = "it gives no address any more: agent-cni leave again, or --force"
    assert (said.status, said.err) == (1, f"agent-cni: no answer; {mend}\n")
    assert (host.told, host.file.exists()) == (["stop"], True)


def test_what_was_forced_says_what_is_to_be_done_elsewhere(agent: Any, host: Host):
    host.left = lambda config, force: [f"forced: {force}"]
    said = agent("leave", "--config", host.file, "--force")
    assert (said.status, said.out, said.err) == (0, "node-a has left the cluster\n", "agent-cni: forced: True\n")
    ClusterConfig("node-a", EtcdConfig(("http://192.0.2.1:2379",))).write(host.file)
    said = json.loads(agent("leave", "--config", host.file, "--force", "--json").out)
    assert said == {"left": "node-a", "undone": ["forced: True"]}
