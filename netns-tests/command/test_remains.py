"""What stays of a cluster on a host that was forced out of it, who says so, and what takes it away."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster import Cluster, Node, conf
from lab import AGENT_CNI, Lab, eventually

pytestmark = pytest.mark.sweep  # commands are asked, and no call

VTEPS, FENCES = "inet agent_cni_vteps", ("inet agent_cni_fence", "bridge agent_cni_fence")


@pytest.fixture
def cluster(lab: Lab) -> Iterator[Cluster]:
    """One host, which gives itself up when nobody hears of it."""
    with Cluster(lab, hosts=1) as made:
        made.join(freeAfter=60)
        yield made


def leftovers(node: Node) -> dict[str, str]:
    found = json.loads(node.run(AGENT_CNI, "doctor", "--json", check=False).stdout)["leftovers"]
    return {item["what"]: item["mend"] for item in found}


def tables(node: Node) -> set[str]:
    return {line.removeprefix("table ") for line in node.run("nft", "list", "tables").stdout.splitlines()}


def stop(node: Node) -> None:
    """End its member, once it has made its tables."""
    assert eventually(lambda: tables(node) >= {VTEPS, *FENCES})
    node.kill()


@pytest.mark.parametrize(("mode", "devices"), [("l2", ["vxlan100"]), ("l3", [])])
def test_the_doctor_says_what_a_forced_leave_has_left(cluster: Cluster, mode: str, devices: list[str]):
    """Where packets are routed to it no pod is on the device, and it went."""
    (node,) = cluster.nodes
    placed = cluster.add(node, conf(mode))
    assert leftovers(node) == {}
    node.run(AGENT_CNI, "leave", "--force")
    (line,) = leftovers(node)
    assert line.startswith("pods are left on overlays of a cluster that this host is not in")
    assert line.endswith(f": net/container-{placed.pod.name}/eth0")
    cluster.remove(placed)
    mends = [f"nft delete table {VTEPS}", *(f"ip link delete {device}" for device in devices)]
    assert list(leftovers(node).values()) == mends
    for mend in mends:
        node.run(*mend.split())
    assert leftovers(node) == {}
    assert node.run("nft", "list", "tables").stdout == ""


def test_a_fence_that_nobody_feeds_is_left_over(cluster: Cluster):
    """Of a host whose part was deleted by hand, for whose pods it would be shut for ever."""
    (node,) = cluster.nodes
    placed = cluster.add(node, conf())
    stop(node)
    cluster.remove(placed)
    for file in (node.etc / "agent-cni/cluster.json", *node.folder.glob("state.db*")):
        file.unlink()
    mends = [f"nft delete table {table}" for table in (VTEPS, *FENCES)]
    assert list(leftovers(node).values()) == mends


def test_uninstall_takes_a_clusters_tables_once_no_pod_is_left(cluster: Cluster, tmp_path: Path):
    (node,) = cluster.nodes
    placed = cluster.add(node, conf())
    stop(node)
    removed, stay = uninstaller(node, tmp_path)
    assert removed() == set()
    assert tables(node) >= {VTEPS, *FENCES}
    assert {line for line in stay if line.startswith("agent-cni: table")} == {
        f"agent-cni: table {table} keeps others from pods that are here still (nft delete table {table}), and is left"
        for table in (VTEPS, *FENCES)
    }
    cluster.remove(placed)
    assert removed() == {VTEPS, *FENCES}
    assert not tables(node) & {VTEPS, *FENCES}


def uninstaller(node: Node, tmp_path: Path) -> tuple[Callable[[], set[str]], list[str]]:
    """What installs and is forced to uninstall: the tables that are gone then, and what was complained of."""
    where = ("--prefix", tmp_path / "opt", "--bin-dir", tmp_path / "bin", "--conf-dir", tmp_path / "net.d")
    own_logs = 'mount -t tmpfs tmpfs /var/log && exec "$0" "$@"'
    complaints: list[str] = []

    def removed() -> set[str]:
        node.run(AGENT_CNI, "install", *where)
        done = node.run("sh", "-c", own_logs, AGENT_CNI, "uninstall", "--force", *where)
        complaints.extend(done.stderr.splitlines())
        said = (line.partition("removed table ") for line in done.stdout.splitlines())
        return {table for _, found, table in said if found}

    return removed, complaints
