"""Hosts that lose the store, their member or their time while pods come and go: no address twice, nobody answers for another."""

from __future__ import annotations

import pytest
from cluster import Cluster, conf
from lab import Lab, eventually
from trouble import LASTING, Churn, befall

PODS, SESSION, CALLS = 2, 3, 12


@pytest.mark.sweep(most=4)
@pytest.mark.parametrize("trouble", list(LASTING))
def test_pods_come_and_go_meanwhile(lab: Lab, trouble: str):
    """At the end no address is had twice, by states, store and pods; everybody reaches every pod; nothing is left."""
    with Cluster(lab, session=SESSION) as cluster:
        cluster.join()
        for node in cluster.nodes:
            for _ in range(PODS):
                cluster.add(node, conf())
        cluster.settle()
        cluster.meshed()
        with Churn(cluster, trouble) as churn:
            befall(cluster, "test", trouble)
            assert eventually(lambda: churn.done > CALLS)
        cluster.sound()
        cluster.leave()
        assert cluster.written() == []
