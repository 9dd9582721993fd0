"""Three hosts, one network: who reaches whom, what is on the wire, and what becomes of it when a part of it is taken away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from cluster import SESSION, Cluster, Node, Placed, conf
from lab import AGENT_CNI, Lab, eventually, sh
from wire import Wire

#: Of a frame on the underlay, where the packet inside VXLAN begins: Ethernet, IPv4, UDP, VXLAN.
INNER = 14 + 20 + 8 + 8
ARP, IPV6, SOLICITATION = 0x0806, 0x86DD, 135


@pytest.fixture
def cluster(lab: Lab) -> Iterator[Cluster]:
    with Cluster(lab) as made:
        yield made


def filled(cluster: Cluster, netconf: dict[str, Any], pods: int) -> None:
    """So many pods on every host, the hosts' at the same time."""

    def fill(node: Node) -> None:
        for _ in range(pods):
            cluster.add(node, netconf)

    with ThreadPoolExecutor(len(cluster.nodes)) as pool:
        list(pool.map(fill, cluster.nodes))


def asked_on_the_wire(frames: list[bytes]) -> list[str]:
    """ARP requests and neighbour solicitations that went through the tunnel."""
    found = []
    for frame in frames:
        inner = frame[INNER:]
        if frame[12:14] != b"\x08\x00" or frame[23] != 17 or len(inner) < 14:
            continue
        kind = int.from_bytes(inner[12:14])
        if kind == ARP or (kind == IPV6 and inner[20] == 58 and inner[54] == SOLICITATION):
            found.append(inner.hex())
    return found


@pytest.mark.parametrize("mode", ["l2", "l3"])
def test_every_pod_and_node_reaches_every_pod(cluster: Cluster, mode: str):
    cluster.join()
    netconf = conf(mode)
    filled(cluster, netconf, 20)
    cluster.settle()
    assert len(dict(cluster.holders())) == 3 * 20 * 2
    cluster.meshed()
    with Wire(cluster.nodes[0], "eth0") as wire:
        assert cluster.faults() == []
    assert any(len(frame) > INNER and frame[36:38] == (4789).to_bytes(2) for frame in wire.frames)
    assert asked_on_the_wire(wire.frames) == []
    cluster.leave()
    assert cluster.written() == []


def asking(netconf: dict[str, Any], *addresses: str) -> dict[str, Any]:
    return netconf | {"runtimeConfig": {"ips": list(addresses)}}


def test_an_address_moves_with_its_block(cluster: Cluster):
    """It is refused while its block is another host's, by name; when that one left, it is had, and is reached where it is now."""
    one, two, _ = cluster.nodes
    cluster.join()
    first, *others = [cluster.add(node, conf()) for node in cluster.nodes]
    cluster.settle()
    cluster.meshed()
    said = two.cni("ADD", asking(conf(), *first.addresses), cluster.lab.pod()).failed(102)
    assert one.name in said
    cluster.leave(one)
    moved = cluster.add(two, asking(conf(), *first.addresses))
    assert moved.addresses == first.addresses
    cluster.settle()
    cluster.meshed()
    assert {it.pod.name for it in others} <= {name for _, name in cluster.holders()}


def kernel_loses(node: Node, what: str) -> None:
    """Something of another hand."""
    commands = {
        "the tunnel": [("ip", "link", "del", "vxlan100")],
        "the bridge, for a moment": [("ip", "link", "set", "br0", state) for state in ("down", "up")],
        "the tunnel, for a moment": [("ip", "link", "set", "vxlan100", state) for state in ("down", "up")],
        "its rows": [("ip", "neigh", "flush", "nud", "permanent"), ("bridge", "fdb", "flush", "dev", "vxlan100", "self")],
        "its routes": [("ip", family, "route", "flush", "dev", "vxlan100") for family in ("-4", "-6")],
    }  # fmt: skip
    for program, *words in commands[what]:
        sh("nsenter", f"--net={node.path}", program, *words, check=False)


@pytest.mark.parametrize("mode", ["l2", "l3"])
def test_what_the_kernel_lost_comes_back(cluster: Cluster, mode: str):
    cluster.join()
    for node in cluster.nodes:
        cluster.add(node, conf(mode))
    cluster.settle()
    cluster.meshed()
    lost = ["the tunnel, for a moment", "its rows", "its routes", "the tunnel"]
    for what in (
        lost if mode == "l3" else ["the bridge, for a moment", *lost]
    ):  # there it is the pods' IPv6 gateway's, too
        kernel_loses(cluster.nodes[0], what)
        try:
            cluster.meshed(20)
        except AssertionError as error:
            pytest.fail(f"{what}: {error}")
    cluster.leave()


def test_two_machines_of_one_name(cluster: Cluster):
    """Another machine stays out at once, a clone of this one when it has heard that the name lives; neither troubles who has it."""
    one, other, clone = cluster.nodes
    cluster.join(one)
    placed = cluster.add(one, conf())
    cluster.settle([one])
    clone.identify(one.machine)
    for node in (other, clone):
        cluster.configure(node, node=one.name)
        node.start()
    for node in (other, clone):
        assert eventually(lambda node=node: one.name in _why(node), 8 * SESSION), node.said()
        node.cni("ADD", conf(), cluster.lab.pod()).failed(11)
    assert cluster.joined(one)
    cluster.settle([one])
    assert [it.pod.name for it in cluster.placed] == [placed.pod.name]
    more = cluster.add(one, conf())
    assert set(more.addresses).isdisjoint(placed.addresses)
    for node in (other, clone):
        node.kill()
    cluster.leave(one)


def _why(node: Node) -> str:
    """What STATUS says of a host that cannot give an address."""
    answer = node.cni("STATUS", conf())
    return json.loads(answer.stdout)["msg"] if answer.code else ""


def test_a_host_that_joins_late_and_one_that_is_removed(cluster: Cluster):
    one, two, late = cluster.nodes
    cluster.join(one, two)
    before = [cluster.add(node, conf("l3")) for node in (one, two)]
    cluster.join(late)
    cluster.add(late, conf("l3"))
    cluster.settle()
    cluster.meshed()
    two.kill()  # the machine is gone for good
    cluster.forget(before[1])
    assert eventually(lambda: not cluster.alive(two), 6 * SESSION)
    cluster.meshed()

    one.run(AGENT_CNI, "node", "remove", two.name)
    assert not [item for item in cluster.listing() if getattr(item, "node", "") == two.name]
    took = cluster.add(one, asking(conf("l3"), *before[1].addresses))
    assert isinstance(took, Placed)
    cluster.settle([one, late])
    cluster.meshed()
