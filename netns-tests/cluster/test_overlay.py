"""The kernel's side of a cluster: what hosts know of each other's pods, and that nobody has to ask for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from lab import Lab, Pod, sh
from reconcilers import Hand, News, of_host, of_pod, own_of, pool

from cni.cluster.model import Network

V4 = pool("10.1.0.0/16", "10.1.0.1", "10.1.0.0", "10.1.255.254")
V6 = pool("fd00:1::/64", "fd00:1::1", "fd00:1::1", "fd00:1::ffff")
POOLS = {"4": (V4,), "6": (V6,), "46": (V4, V6)}


def conf(slot: int, families: str, **vxlan: Any) -> dict[str, Any]:
    """A host's part of the network, with addresses of its own block, and a tunnel that somebody else tells of the others."""
    ranges = {
        "4": {"subnet": "10.1.0.0/16", "rangeStart": f"10.1.{slot}.1", "rangeEnd": f"10.1.{slot}.254", "gateway": "10.1.0.1"},
        "6": {"subnet": "fd00:1::/64", "rangeStart": f"fd00:1::{slot}01", "rangeEnd": f"fd00:1::{slot}fe", "gateway": "fd00:1::1"},
    }  # fmt: skip
    base = {"cniVersion": "1.1.0", "name": "net", "type": "bridge-vxlan", "bridge": "br0", "isDefaultGateway": True}
    ipam = {"ranges": [[ranges[family]] for family in families]}
    return base | {"vxlan": {"id": 100, "learning": False} | vxlan, "ipam": ipam}


class Scene:
    """Hosts of one network with a pod each, whose reconcilers know of each other."""

    def __init__(self, lab: Lab, stack: ExitStack, hosts: int, families: str, under: int = 4) -> None:
        self.lab, self.families, self.under = lab, families, under
        self.network = Network("net", POOLS[families], 256, "l2", 100)
        self.hosts = [lab.host() for _ in range(hosts)]
        self.switch = lab.underlay(*self.hosts)
        self.news = News()
        self.pods: list[Pod] = []
        self.results: list[dict[str, Any]] = []
        for number, host in enumerate(self.hosts, 11):
            sh("ip", "-n", host.name, "addr", "add", f"fd00:2::{number:x}/64", "dev", "eth0", "nodad")
            pod = lab.pod()
            self.pods.append(pod)
            local = {"local": f"fd00:2::{number:x}" if under == 6 else f"192.0.2.{number}"}
            self.results.append(host.add(conf(number - 10, families, **local), pod))
            me = of_host(host, number, under)
            self.news.items |= {item.key: item for item in own_of(self.network, me, self.addresses(-1))}
            self.news.items |= {item.key: item for item in self.endpoints(-1, me)}
            self.news.hands.append(stack.enter_context(Hand(host, me, (self.network,))))

    def addresses(self, number: int) -> list[str]:
        return [item["address"].split("/")[0] for item in self.results[number]["ips"]]

    def endpoints(self, number: int, me: Any) -> list[Any]:
        mac = next(item["mac"] for item in self.results[number]["interfaces"] if item.get("sandbox"))
        return [of_pod(self.network, me, address, mac) for address in self.addresses(number)]

    def faults(self) -> list[str]:
        """Who does not reach whom, of pods and hosts and pods."""
        ways = [
            (at, one, address)
            for one, at in enumerate([*self.pods, *self.hosts])
            for other in range(len(self.pods))
            for address in self.addresses(other)
        ]
        return [f"{at.name} to {address}" for at, _, address in ways if not at.pings(address, 2)]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.mark.parametrize(("families", "under"), [("46", 4), ("4", 6), ("6", 4), ("46", 6)])
def test_any_host_and_any_pod_reach_any_pod_and_nobody_asks_the_wire(
    lab: Lab, stack: ExitStack, families: str, under: int
):
    scene = Scene(lab, stack, 3, families, under)
    scene.news.listing()
    assert scene.faults() == []
