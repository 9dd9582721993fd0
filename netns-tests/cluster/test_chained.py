"""What is chained after a network of the cluster holds for pods of other hosts as it does for those beside it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
from cluster import Cluster, conf
from interception import APP_UID, IN, NOTHING, OUT, WEB, chained, remains
from lab import Lab
from traffic import PROXY, TIMED_OUT, Actor


@pytest.mark.parametrize(("mode", "backend"), [("l2", "iptables-nft"), ("l3", "iptables-legacy")])
def test_a_far_pod_meets_the_policy_and_then_the_proxy_of_who_is_chained(lab: Lab, mode: str, backend: str):
    with Cluster(lab, 2) as cluster, ExitStack() as held:
        cluster.join()
        one, other = cluster.nodes
        net = conf(mode, block=16)
        placed, friend, stranger = cluster.add(one, net), cluster.add(other, net), cluster.add(other, net)
        cluster.meshed()
        alone = [f"{address}/{128 if ':' in address else 32}" for address in friend.addresses]
        policy = {"ingress": alone, "egress": alone}
        chain: list[dict[str, Any]] = [
            chained(net, policy=policy) | {"type": "custom-plugin"},
            chained(net, inboundPort=IN, backend=backend),
        ]
        for item in chain:
            assert one.add(item | {"prevResult": placed.result}, placed.pod) == placed.result
        app, proxy = held.enter_context(Actor(placed.pod, APP_UID)), held.enter_context(Actor(placed.pod, PROXY))
        near, far = held.enter_context(Actor(friend.pod)), held.enter_context(Actor(stranger.pod))
        app.listen("app", WEB)
        proxy.listen("inbound", IN)
        proxy.listen("outbound", OUT)
        near.listen("friend", 80)
        far.listen("stranger", 80)
        for family in (4, 6):
            seen = near.connect(placed.address(family), WEB)
            assert (seen["who"], seen["peer"][0]) == ("inbound", friend.address(family))
            assert app.reaches(friend.address(family), 80) == "outbound"
            assert proxy.reaches(friend.address(family), 80) == "friend"
            assert far.connect(placed.address(family), WEB) == TIMED_OUT
            assert proxy.connect(stranger.address(family), 80) == TIMED_OUT
        for item in (net, *chain):
            one.check(item, placed.pod, placed.result).ok()

        redirect, isolation = reversed(chain)
        one.delete_pod(redirect, placed.pod)
        assert remains(placed.pod) == NOTHING
        assert [near.reaches(placed.address(family), WEB) for family in (4, 6)] == ["app", "app"]
        assert far.connect(placed.address(4), WEB) == TIMED_OUT
        one.delete_pod(isolation, placed.pod)
        assert [far.reaches(placed.address(family), WEB) for family in (4, 6)] == ["app", "app"]
        one.check(net, placed.pod, placed.result).ok()
        cluster.sound()
        held.close()
        cluster.leave()
