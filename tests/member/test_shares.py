"""Which of the cluster's networks this host has, with the devices its pods are on: one wrong edit takes none of them away."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from member_host import network

from cni.cluster.model import Block, Network
from cni.cluster.snapshot import Snapshot
from cni.cluster.store import Listing
from cni.member.shares import shares
from cni.naming import Attachment
from cni.resources import VxlanLink
from cni.state import Record, Store
from cni.state.configured import Place
from cni.state.membership import Member
from cni.values import replace

NET = network()
DEVICE = VxlanLink("vxlan100", 100, 4789, "192.0.2.1", "", 1450, "br0", mac="0a:00:00:00:00:01")
MINE = Block("net", "10.10.0.16/28", "node-a", "machine-a")


def devices_of(
    folder: Path, said: Network, *, refused: bool, heard: Network | None = None, blocks: bool = True
) -> set[str]:
    """The VNIs this host takes for the cluster's, when it says so of its network and the cluster has `heard` otherwise."""
    with closing(Store.open(folder)) as state, state.transaction():
        state.put_member(Member("node-a", "machine-a", "life", "192.0.2.1", "0a:00:00:00:00:01"))
        state.put(Record(Attachment("net", "c", "eth0"), "bridge-vxlan", "/run/netns/x", "", {}, (DEVICE,)))
        state.put_configured(Place("net", "bridge-vxlan", "vxlan100"), [DEVICE])
        if blocks:
            state.put_block(MINE)
        state.share(said)
        state.refuse_network("net", "the cluster has it otherwise" if refused else "")
    snapshot = Snapshot("node-a")
    if heard:
        snapshot.apply(Listing(1, (heard,)))
    found = shares(folder, snapshot, lambda *_: "br0")
    assert {overlay.device for overlay in found.devices} >= found.in_use
    return {f"{overlay.network.vni} {overlay.network.block}" for overlay in found.devices}


@pytest.mark.parametrize("wrong", [{"block": 32}, {"subnet": "10.10.0.0/16"}, {"vni": 200}], ids=str)
def test_one_that_is_said_otherwise_while_pods_have_it_stays_as_the_cluster_has_it(tmp_path: Path, wrong: dict):
    assert devices_of(tmp_path, network(**wrong), refused=True, heard=NET) == {"100 16"}


def test_before_anything_was_heard_it_is_not_less(tmp_path: Path):
    assert devices_of(tmp_path, network(block=32), refused=True) == {"100 32"}


def test_one_the_cluster_never_took_is_none(tmp_path: Path):
    assert devices_of(tmp_path, NET, refused=True, heard=replace(NET, vni=300)) == {"300 16"}  # as a guest
    assert devices_of(tmp_path / "no blocks", NET, refused=True, heard=network(block=32), blocks=False) == {"100 32"}
    assert devices_of(tmp_path / "agreed", NET, refused=False, heard=NET) == {"100 16"}
