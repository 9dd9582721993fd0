"""Members that end and begin anew, one host's after the other's as a roll-out has it, while pods of all hosts talk."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import permutations
from pathlib import Path

import pytest
from cluster import Cluster, Placed
from cluster import conf as clustered
from kube_api import policy
from kubernetes import KubeCluster
from lab import PATIENCE, Lab, eventually

ROUNDS = 2


@pytest.mark.parametrize("mode", ["l2", "l3", "direct"])
def test_no_packet_between_hosts_is_lost_while_members_are_started_anew(lab: Lab, mode: str):
    with Cluster(lab) as town:
        town.join()
        netconf = clustered("l3", vxlan={"direct": True}) if mode == "direct" else clustered(mode)
        pods = [town.add(host, netconf) for host in town.nodes]
        town.meshed()
        with lost(pods, Path(town.etcd.folder)) as missing:
            restarted(town)
        assert missing == {}


@pytest.mark.parametrize("mode", ["l2", "l3"])
def test_none_is_lost_of_pods_that_policies_hold(lab: Lab, mode: str):
    with KubeCluster(lab) as town:
        town.join()
        netconf = clustered(mode, block=256) | {"policy": {"cluster": True}}
        town.api.put(policy("nobody"))
        friends = {"matchLabels": {"app": "friend"}}
        town.api.put(policy("friends", podSelector=friends, ingress=[{"from": [{"podSelector": friends}]}]))
        assert all(eventually(lambda host=host: host.cni("STATUS", netconf).code == 0) for host in town.nodes)
        pods = []
        for number, host in enumerate(town.nodes):
            pods.append(town.add(host, netconf, CNI_ARGS=f"K8S_POD_NAMESPACE=default;K8S_POD_NAME=pod-{number}"))
            town.show(pods[-1], f"pod-{number}", app="friend")
        every = [(one, other.address(family)) for one, other in permutations(pods, 2) for family in (4, 6)]
        assert eventually(lambda: all(one.pod.pings(address, 1) for one, address in every))
        with lost(pods, town.folder) as missing:
            restarted(town)
        assert missing == {}


def restarted(town: Cluster) -> None:
    for _ in range(ROUNDS):
        for host in town.nodes:
            host.stop()
            host.start()
            assert eventually(lambda host=host: host.running and town.joined(host)), host.said()


@contextmanager
def lost(pods: list[Placed], folder: Path) -> Iterator[dict[str, list[int]]]:
    """What of the packets that every pod sends to every other, a hundred a second, is not answered: the numbers of each pair."""
    asking, missing = dict[str, subprocess.Popen[bytes]](), dict[str, list[int]]()
    for one, other in permutations(pods, 2):
        for family in (4, 6):
            who = f"{one.host.name}-{other.address(family)}"
            command = ["nsenter", f"--net={one.pod.path}", "ping", "-n", "-i", "0.01", other.address(family)]
            with (folder / who).open("wb") as said:
                asking[who] = subprocess.Popen(command, stdout=said, stderr=said)
    try:
        yield missing
    finally:
        for ping in asking.values():
            ping.send_signal(signal.SIGINT)
            ping.wait(PATIENCE)
    for who in asking:
        answered = {int(number) for number in re.findall(rb"icmp_seq=(\d+) ttl", (folder / who).read_bytes())}
        assert answered, who
        if unanswered := sorted({*range(1, max(answered))} - answered):  # the last may be under way
            missing[who] = unanswered
