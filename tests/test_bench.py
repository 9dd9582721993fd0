"""What the bench says to be in a cluster could be there: a row that no host believes would be waited for in vain."""

from __future__ import annotations

import sys
from pathlib import Path

from cni.cluster.blocks import capacity, next_block
from cni.cluster.model import Block, Network, Node
from cni.cluster.pools import Pool
from cni.cluster.snapshot import Snapshot
from cni.cluster.store import Listing, Session
from cni.overlay.peers import Overlay, peers_of

sys.path += [str(Path(__file__).parent.parent / place) for place in ("tools", "netns-tests/scenes")]

from bench_cluster import BLOCK, pods_of

NETWORK = Network("net", (Pool("10.10.0.0/20", "10.10.0.1", "10.10.15.254", "10.10.0.1"),), BLOCK, "l2", 100)
ME, FAR = (
    Node(f"node-{number}", f"machine-{number}", f"192.0.2.{number}", f"fe:00:00:00:00:0{number}") for number in (1, 2)
)


def test_every_pod_it_says_to_be_in_a_subnet_is_believed():
    session, taken = Session(FAR, "token", "", "", 60), dict[str, Block]()
    while span := next_block(NETWORK, NETWORK.pools[0], FAR.name, taken):
        taken[span] = Block(NETWORK.name, span, FAR.name, FAR.machine)
    pods = {span: pods_of(NETWORK, block, session, BLOCK) for span, block in taken.items()}
    snapshot = Snapshot(ME.name)
    snapshot.apply(Listing(1, (NETWORK, ME, FAR, *taken.values(), *(one for some in pods.values() for one in some))))

    refused = peers_of(ME, snapshot, Overlay(NETWORK, "vxlan100", "br0")).refused

    assert not refused
    assert {span: len(some) for span, some in pods.items()} == {span: capacity(NETWORK, span) for span in taken}
