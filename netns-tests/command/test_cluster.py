"""Being in a cluster as an operator goes about it: join, look, leave; the member runs as its unit lets it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from booted import UNIT, Booted
from cluster import Cluster, Node
from lab import AGENT_CNI, ROOT, Lab, eventually

CONF = {"cniVersion": "1.1.0", "name": "pods"}


@pytest.fixture
def cluster(lab: Lab) -> Iterator[Cluster]:
    """Two hosts that systemd runs, in no cluster yet."""
    with Cluster(lab, hosts=2, kind=Booted) as made:
        yield made


def shipped(file: str) -> dict[str, Any]:
    """The configuration of a conflist's one plugin."""
    (plugin,) = json.loads((ROOT / "conf.d" / file).read_text())["plugins"]
    return CONF | plugin


def joined(cluster: Cluster, node: Node, *more: object) -> str:
    where = ("--etcd", *cluster.etcd.endpoints, "--session", cluster.session)
    return node.run(AGENT_CNI, "join", *where, "--node", node.name, *more).stdout


def told(node: Node, *words: object) -> Any:
    return json.loads(node.run(AGENT_CNI, *words, "--json").stdout)


@pytest.mark.parametrize(
    ("file", "more"),
    [
        ("12-cluster.conflist", ("--free-after", 60)),
        ("13-cluster-routed.conflist", ("--encryption", "wireguard")),
    ],
)  # fmt: skip
def test_two_hosts_join_and_leave_as_the_pages_say(cluster: Cluster, file: str, more: tuple[object, ...]):
    conf, (first, second) = shipped(file), cluster.nodes
    own = CONF | {"name": "own", "type": "bridge-vxlan", "bridge": "br1", "vxlan": {"id": 9}}
    own, pod = own | {"ipam": {"subnet": "10.9.0.0/24"}}, cluster.lab.pod()
    plain = CONF | {"name": "plain", "type": "bridge-vxlan", "bridge": "br2", "ipam": {"subnet": "10.8.0.0/24"}}
    for other in (own, plain):
        first.add(other, pod)
        first.delete_pod(other, pod)
    before = first.snapshot()
    assert joined(cluster, first, *more).splitlines()[-1] == f"{first.name} is in the cluster: the first of it"
    assert joined(cluster, second, *more).splitlines()[-1] == f"{second.name} is in the cluster: with {first.name}"
    assert joined(cluster, second, *more) == f"{second.name} is in the cluster: with {first.name}\n"
    assert second.told == [f"{verb} {UNIT}" for verb in ("enable", "--no-block restart", "enable", "--no-block start")]
    for node in cluster.nodes:
        cluster.add(node, conf)
    cluster.sound()
    assert [(row["node"], row["alive"], row["pods"], row["here"]) for row in told(first, "node")["nodes"]] == [
        (node.name, True, 1, node is first) for node in cluster.nodes
    ]
    blocks = told(second, "block")["blocks"]
    assert {(row["node"], row["used"], row["state"]) for row in blocks} == {
        (it.name, 1, "held") for it in cluster.nodes
    }
    refused = first.run(AGENT_CNI, "leave", check=False)
    assert (refused.returncode, "1 pods have addresses of the cluster" in refused.stderr) == (1, True)
    assert eventually(lambda: first.running)
    cluster.meshed()
    for node in cluster.nodes:
        node.wanted = True
    cluster.leave()
    assert [node.link(name) for node in cluster.nodes for name in ("vxlan100", "br0")] == [None] * 4
    assert None not in [first.link(name) for name in ("vxlan9", "br1", "br2")]  # no network of the cluster
    for node in cluster.nodes:
        assert (node.enabled, node.state_of_member, list((node.etc / "agent-cni").iterdir())) == (False, "inactive", [])
        assert "Operation not permitted" not in node.journal
        assert "Read-only" not in node.journal
    assert cluster.written() == [] or {key.split("/")[2] for key in cluster.written()} == {"networks"}
    assert first.snapshot()["state"] == before["state"]
    if more[0] != "--encryption":  # once more, as if it had never been
        for node in cluster.nodes:
            joined(cluster, node)
            assert eventually(lambda node=node: cluster.joined(node))
        for node in cluster.nodes:
            cluster.add(node, conf)
        cluster.meshed()
        for node in cluster.nodes:
            node.wanted = True
        cluster.leave()
