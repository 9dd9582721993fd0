"""`agent-cni doctor --probe`: what the other hosts answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, conf
from interception import address_of
from lab import AGENT_CNI, BIN_DIR, Host, Lab, sh

ROWS = ("host", "answers", "port", "largest", "wanted", "pods")


def probed(host: Host) -> tuple[list[str], dict[str, dict[str, Any]], str]:
    """What is found, the matrix by host, and what people get."""
    words = (AGENT_CNI, "doctor", "--probe", "--conf-dir", "/run/agent-cni/net.d", "--bin-dir", BIN_DIR)
    said = json.loads(host.run(*words, "--json", check=False).stdout)
    return (
        [item["what"] for item in said["probe"]],
        {row["host"]: row for row in said["matrix"]},
        host.run(*words, check=False).stdout,
    )


@pytest.mark.sweep  # the doctor is asked, and no call
def test_a_row_for_each_host_and_what_is_wrong_with_the_way_there(lab: Lab, tmp_path: Path):
    """One host that is well, one whose way has less room, one whose port is closed, one that is not there."""
    hosts = [lab.host() for _ in range(4)]
    switch = lab.underlay(*hosts)
    remotes = [f"192.0.2.{number}" for number in range(11, 16)]
    results = []
    for number, host in enumerate(hosts, 1):
        span = {"subnet": "10.2.0.0/16", "rangeStart": f"10.2.{number}.2", "rangeEnd": f"10.2.{number}.9", "gateway": f"10.2.{number}.1"}  # fmt: skip
        conf = {"cniVersion": "1.1.0", "name": "net", "type": "bridge-vxlan", "bridge": "br0", "isDefaultGateway": True}
        conf |= {"vxlan": {"id": 7, "remotes": remotes}, "ipam": span}
        pod = lab.pod()
        results.append((pod, host.add(conf, pod)))
        (host.folder / "net.d").mkdir()
        (host.folder / "net.d/10-net.conf").write_text(json.dumps(conf))
    one, well, narrow, closed = hosts
    for _, result in results[1:]:
        assert results[0][0].pings(address_of(result, 4))
    found, matrix, told = probed(one)
    assert found == ["network net: 192.0.2.15 does not answer: the host does not answer"], (found, matrix)
    assert {name: matrix["192.0.2.12"][name] for name in ROWS} == {
        "host": "192.0.2.12", "answers": "yes", "port": "4789 open", "largest": 1500, "wanted": 1500, "pods": "2 of 2 answer",
    }  # fmt: skip
    assert matrix["192.0.2.15"]["answers"] == "the host does not answer"
    assert "host        vtep" in told
    sh("ip", "-n", switch.name, "link", "set", "port13", "mtu", "1400")
    narrow.run("ip", "link", "set", "eth0", "mtu", "1400")
    sh("ip", "-n", closed.name, "link", "set", "vxlan7", "down")
    found, matrix, _ = probed(one)
    assert matrix["192.0.2.13"]["largest"] == 1400
    assert (
        "network net: 192.0.2.13: packets up to 1400 come through, and the tunnel sends 1500: larger ones are lost"
        in found
    )
    assert "network net: 192.0.2.14 is there, and nobody listens on UDP port 4789" in found
    assert matrix["192.0.2.14"]["port"] == "4789 closed"
    sh("ip", "-n", closed.name, "link", "set", "vxlan7", "up")
    well.run(
        "nft",
        "add table inet f; add chain inet f in { type filter hook input priority 0; }; add rule inet f in udp dport 4789 drop",
    )
    found, matrix, _ = probed(one)
    assert (
        "network net: 192.0.2.12 is there, and no pod behind it answers: UDP port 4789 may be filtered, or the pods let nobody ask"
        in found
    )
    assert matrix["192.0.2.12"]["pods"] == "0 of 2 answer"


@pytest.mark.sweep  # the doctor is asked, and no call
@pytest.mark.parametrize("mode", ["l2", "l3"])
def test_one_host_of_a_cluster_asks_all_of_them(lab: Lab, mode: str):
    """A row for each of the other two; one that is cut off is named with what nobody can say of it."""
    net = conf(mode, families="4")
    with Cluster(lab, hosts=3) as cluster:
        one, two, three = cluster.nodes
        cluster.join()
        for node in cluster.nodes:
            cluster.add(node, net)
        cluster.settle()
        found, matrix, told = probed(one)
        assert found == []
        assert set(matrix) == {two.name, three.name}
        assert {(row["answers"], row["largest"] == row["wanted"], row["port"], row["slice"]) for row in matrix.values()} == {
            ("yes", True, "4789 open", "its own"),
        }  # fmt: skip
        assert all(name in told for name in matrix)
        three.run("ip", "link", "set", "eth0", "down")
        found, matrix, _ = probed(one)
        assert len(found) == 1
        assert found[0].startswith(f"network {net['name']}: {three.name} at 192.0.2.13 does not answer"), found
