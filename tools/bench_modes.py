"""make bench, modes: what each way of attaching a pod costs its traffic, and what a policy adds."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from interception import address_of
from lab import ROOT, Lab, Namespace, Pod
from measure import COLUMNS, Sample, Server, sample

PORT, ROUNDS = 8080, 9
PYTHON = ROOT / ".venv/bin/python3"
CIDRS, PODS = (1, 100, 1000, 10000), (10, 100, 500)

Ways = dict[str, Callable[[], Sample]]

BRIDGED = {
    "cniVersion": "1.1.0", "name": "bridged", "type": "bridge-vxlan", "bridge": "br0", "isDefaultGateway": True,
    "ipam": {"subnet": "10.91.0.0/16"},
}  # fmt: skip
ROUTED = {"cniVersion": "1.1.0", "name": "routed", "type": "custom-plugin", "ipam": {"subnet": "10.92.0.0/16"}}
PHYSICAL = {"cniVersion": "1.1.0", "name": "physical", "type": "macvlan", "master": "eth0"}

#: Times one nft transaction that gives a pod a policy, and counts the chains it needs: run on the host.
APPLY = """
import sys, time
from cni.kernel import netfilter
from cni.resources import PodPolicy
from cni.resources.policy_table import skeleton
pods, cidrs = int(sys.argv[1]), int(sys.argv[2])
def policy(at):
    spans = ", ".join(f"10.{n >> 14 & 127}.{n >> 6 & 255}.{(n & 63) << 2}" for n in range(cidrs))
    name, address = f"bench{at}", f"100.64.{at >> 8}.{at & 255}"
    rules = f"in-{name} ip saddr {{ {spans} }} return", f"in-{name} drop", f"out-{name} return"
    return PodPolicy((address,), rules, False, "bench", token=name)
netfilter.nft_made([skeleton("")])
netfilter.nft("".join(policy(at).script() for at in range(1, pods)))
began = time.perf_counter()
netfilter.nft_made([policy(0).declarations + policy(0).script()])
print((time.perf_counter() - began) * 1000)
"""


def modes(lab: Lab, held: ExitStack) -> Ways:
    """A client and a server attached in each way, on one node and across two."""
    site = lab.site()
    ways: Ways = {}

    def between(name: str, client: Namespace, server: Namespace, target: str) -> None:
        held.enter_context(Server(_in(server), PORT))
        ways[name] = lambda: sample(_in(client), target, PORT)

    host = site.host
    between("one node: host network (loopback)", lonely := lab.pod(), lonely, "127.0.0.1")
    for name, conf in (("bridge", BRIDGED), ("isolated (custom-plugin)", ROUTED), ("macvlan", _wire(100))):
        client, server = lab.pod(), lab.pod()
        host.add(conf, client)
        between(f"one node: {name}", client, server, address_of(host.add(conf, server), 4))
    between("two nodes: host network", host, site.outside, "192.0.2.12")
    pods = lab.pod(), lab.pod()
    host.add(_wire(120), pods[0])
    between("two nodes: macvlan", pods[0], pods[1], address_of(site.outside.add(_wire(140), pods[1]), 4))
    ends = lab.pod(), lab.pod()
    host.add(_overlay(12, 10), ends[0])
    between("two nodes: overlay (VXLAN)", ends[0], ends[1], address_of(site.outside.add(_overlay(11, 20), ends[1]), 4))
    return ways


def policies(lab: Lab, held: ExitStack) -> Ways:
    """One client and a server held to ever longer policies, then on an ever fuller node."""
    host, client, ways = lab.host(), lab.pod(), {}
    own = f"{address_of(host.add(BRIDGED, client), 4)}/32"
    for count in (0, *CIDRS):
        pod = lab.pod()
        others = [f"10.{100 + (n >> 14)}.{n >> 6 & 255}.{(n & 63) << 2}/32" for n in range(1, count)]
        conf = BRIDGED | ({"policy": {"ingress": [own, *others]}} if count else {})
        target = address_of(host.add(conf, pod), 4)
        held.enter_context(Server(_in(pod), PORT))
        ways[f"policy of {count} CIDRs" if count else "no policy"] = _sampling(client, target)
    return ways


def crowded(lab: Lab, held: ExitStack) -> Ways:
    """The same pair of pods on nodes with more and more policies."""
    ways: Ways = {}
    for count in (0, *PODS):
        host, client, server = lab.host(), lab.pod(), lab.pod()
        own = f"{address_of(host.add(BRIDGED, client), 4)}/32"
        conf = BRIDGED | ({"policy": {"ingress": [own]}} if count else {})
        target = address_of(host.add(conf, server), 4)
        if count:
            host.run(PYTHON, "-c", APPLY, count, 10)
        held.enter_context(Server(_in(server), PORT))
        ways[f"{count} pods with policies" if count else "no policy"] = _sampling(client, target)
    return ways


def applying(lab: Lab) -> None:
    """Print what one transaction takes (ms)."""
    print(f"\n{'one policy in one nft transaction (ms)':<44}{'median':>9}")
    for pods, cidrs in [(1, count) for count in CIDRS] + [(count, 100) for count in PODS]:
        host = lab.host()
        times = [float(host.run(PYTHON, "-c", APPLY, pods, cidrs).stdout) for _ in range(5)]
        print(f"{f'{cidrs} CIDRs, {pods} pods on the node':<44}{statistics.median(times):9.1f}")


def compared(build: Callable[[Lab, ExitStack], Ways], title: str, lab: Lab) -> None:
    """Sample every way in turn, round after round, and print medians with their ratio to the first."""
    with ExitStack() as held:
        ways = build(lab, held)
        taken: dict[str, list[Sample]] = {name: [] for name in ways}
        for number in range(ROUNDS + 1):
            for name in ways if number % 2 else reversed(ways):
                one = ways[name]()
                if number:  # the first round warms everything up
                    taken[name].append(one)
    table(title, taken)


def table(title: str, samples: dict[str, list[Sample]]) -> None:
    """Medians, and ratios to the first row."""
    heads = "".join(f"{f'{name} ({unit})':>22}{'ratio':>7}" for name, unit in COLUMNS.items())
    print(f"\n{title:<38}{heads}")
    base: dict[str, float] = {}
    for name, taken in samples.items():
        medians = {column: statistics.median(one[column] for one in taken) for column in COLUMNS}
        base = base or medians
        print(f"{name:<38}" + "".join(f"{medians[it]:22.1f}{medians[it] / base[it]:7.2f}" for it in COLUMNS))


def _sampling(client: Pod, target: str) -> Callable[[], Sample]:
    return lambda: sample(_in(client), target, PORT)


def _wire(first: int) -> dict[str, Any]:
    span = {"subnet": "192.0.2.0/24", "rangeStart": f"192.0.2.{first}", "rangeEnd": f"192.0.2.{first + 9}"}
    return PHYSICAL | {"name": f"physical{first}", "ipam": span}


def _overlay(remote: int, first: int) -> dict[str, Any]:
    span = {
        "subnet": "10.93.0.0/16",
        "rangeStart": f"10.93.{first}.1",
        "rangeEnd": f"10.93.{first}.9",
        "gateway": "10.93.0.1",
    }
    tunnel = {"name": "overlay", "bridge": "br9", "vxlan": {"id": 9, "remotes": [f"192.0.2.{remote}"]}}
    return BRIDGED | tunnel | {"ipam": span}


def _in(where: Namespace) -> list[str]:
    return ["nsenter", f"--net={where.path}"]
