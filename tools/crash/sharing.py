"""A host of two that leaves its cluster, killed at each effect of that, those on the store too."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster import Cluster
from effects import AFTER, BEFORE, Order
from lab import AGENT_CNI, eventually

from crash.joining import DOORS, rows


def joined(cluster: Cluster, conf: dict[str, Any]) -> Cluster:
    """Two hosts, and a pod on the other; the first has a block to give addresses from."""
    cluster.join()
    cluster.add(cluster.nodes[1], conf)
    cluster.remove(cluster.add(cluster.nodes[0], conf))
    return cluster


def leaves(cluster: Cluster, conf: dict[str, Any], orders: Path, counts: Counter[str]) -> Iterator[str]:
    """Each fault. What comes next is, by turns, that the command is repeated, or a member is started again, as systemd does."""
    node = cluster.nodes[0]
    for number, when in ((number, when) for number in itertools.count(1) for when in (BEFORE, AFTER)):
        order = Order(orders / f"leave-{number}-{when}", number, when)
        node.wanted = False
        node.run(*DOORS, AGENT_CNI, "leave", env=os.environ | order.environ, check=False)
        if len(order.told()) < number:
            return
        counts["kills"] += 1
        counts["effects"] += when == BEFORE
        found = _again(cluster, started=(number + (when == AFTER)) % 2 == 0)
        if found:
            yield f"killed {when} {order.told()[number - 1]}: {'; '.join(found)}"
        cluster.join(node)
        cluster.remove(cluster.add(node, conf))


def _again(cluster: Cluster, *, started: bool) -> list[str]:
    node, other = cluster.nodes
    file, found = node.etc / "agent-cni/cluster.json", list[str]()
    if started and file.exists():
        if not node.running:
            node.start()
        assert eventually(lambda: cluster.joined(node) or not node.running), node.said()
    if file.exists():
        done = node.run(AGENT_CNI, "leave", check=False)
        found += [f"leave again: {done.stdout}{done.stderr}"] * (done.returncode != 0)
    node.wanted = False
    if not eventually(lambda: not node.running, 20):
        found.append("its member runs")
        node.kill()
    found += cluster.left(node)
    if not eventually(lambda: not rows(other, node), 20):
        found.append(f"{other.name} has {rows(other, node)} of it")
    return found
