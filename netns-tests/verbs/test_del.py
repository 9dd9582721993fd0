"""DEL always ends: every kind of it, of what is there, was there, or never was; it is silent, and makes nothing."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import pytest
from lab import Host, Lab, Pod, eventually

pytestmark = pytest.mark.sweep(most=5)

RANGES = [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]
HEAD = {"cniVersion": "1.1.0", "name": "net"}
BRIDGE = HEAD | {"type": "bridge-vxlan", "bridge": "br0", "isDefaultGateway": True, "ipam": {"ranges": RANGES}}
ROUTED = HEAD | {"type": "custom-plugin"}
SPAN = {"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.100", "rangeEnd": "192.0.2.199", "gateway": "192.0.2.1"}
MACVLAN = HEAD | {"type": "macvlan", "master": "eth0", "ipam": SPAN}
POLICY, ONE_WAY = {"policy": {"ingress": []}}, {"policy": {"ingress": ["10.0.0.0/8"], "egressDrop": True}}
NFT, IPTABLES = {"ipMasq": True, "ipMasqBackend": "nftables"}, {"ipMasq": True, "ipMasqBackend": "iptables"}
SIDECAR, TPROXY = {"sidecar": {}}, {"sidecar": {"mode": "tproxy"}}
UNGUARDED = {"policy": {"defaultDeny": True, "antiSpoof": False}}

ALONE: dict[str, dict[str, Any]] = {
    "bridge": BRIDGE,
    "bridge, policy": BRIDGE | POLICY,
    "bridge, unguarded": BRIDGE | UNGUARDED,
    "bridge, everything": BRIDGE | ONE_WAY | NFT | TPROXY,
    "bridge, iptables": BRIDGE | IPTABLES | SIDECAR,
    "macvlan": MACVLAN,
    "macvlan, policy": MACVLAN | POLICY | SIDECAR | {"hostAccess": True},
    "routed": ROUTED,
    "routed, policy": ROUTED | POLICY,
    "routed, unguarded": ROUTED | UNGUARDED,
    "routed, everything": ROUTED | ONE_WAY | NFT | SIDECAR,
    "routed, iptables": ROUTED | IPTABLES,
}
CHAINED: dict[str, dict[str, Any]] = {
    "chained isolation": ROUTED | POLICY,
    "chained isolation and interception": ROUTED | ONE_WAY | SIDECAR,
    "chained isolation, unguarded": ROUTED | UNGUARDED,
    "chained interception": HEAD | {"type": "sidecar-redirect"},
}
FATES = ("kept", "gone", "not given")
RECORDS = ("deleted before", "never added", "lost")


@dataclass
class Scene:
    """A node on a wire, the configuration under test, and what the list has before it."""

    host: Host
    lab: Lab
    conf: dict[str, Any]
    before: dict[str, Any] | None

    def added(self) -> tuple[Pod, dict[str, Any]]:
        pod = self.lab.pod()
        if self.before is None:
            return pod, self.host.add(self.conf, pod)
        previous = self.host.add(self.before, pod)
        return pod, self.host.add(self.conf | {"prevResult": previous}, pod)

    def deleted(self, pod: Pod, result: dict[str, Any]) -> None:
        self.host.delete_pod(self.conf | {"prevResult": result}, pod)
        self.host.delete_pod(self.before or self.conf, pod)

    def forgotten(self, pod: Pod) -> None:
        """The record of the configuration under test is lost."""
        script = "import sqlite3, sys; db = sqlite3.connect('/run/agent-cni/state.db')\n" + "".join(
            f"db.execute(\"DELETE FROM {table} WHERE container = '{pod.container}' AND plugin = '{self.conf['type']}'\")\n"
            for table in ("attachment", "lease", "uses")
        )
        self.host.run("python3", "-c", f"{script}db.commit()")

    def ends(self, pod: Pod, result: dict[str, Any] | None, fate: str) -> None:
        """One DEL, as a runtime makes it; it must say nothing and be done."""
        conf = self.conf | ({"prevResult": result} if result else {})
        if fate == "gone":
            pod.delete()
        named = {"CNI_NETNS": ""} if fate == "not given" else {}
        answer = self.host.cni("DEL", conf, pod, **named)
        assert (answer.code, answer.stdout) == (0, ""), answer


def rules(host: Host) -> str:
    return host.run("nft", "--stateless", "list", "ruleset").stdout


BESIDE = ("bridge, everything", "macvlan, policy", "routed, iptables", "chained isolation and interception")


def left_on(host: Host) -> dict[str, Any]:
    """What is on a node, without what counts a neighbour's packets."""
    return host.snapshot() | {"rules": rules(host)}


@pytest.fixture
def scene(kind: str, lab: Lab) -> Scene:
    host = lab.site().host
    chained = CHAINED.get(kind)
    return Scene(host, lab, chained or ALONE[kind], BRIDGE if chained else None)


@pytest.mark.parametrize(
    ("kind", "company"),
    [*((kind, "alone") for kind in (*ALONE, *CHAINED)), *((kind, "beside another") for kind in BESIDE)],
)
@pytest.mark.tried(
    "each kind of DEL: again, of what never was, with its record lost; with prevResult and without; namespace kept, gone, not given",
    "0 and silent, nothing made, nothing left, the neighbour untouched",
)
def test_every_del_ends_and_makes_nothing(scene: Scene, company: str):
    host = scene.host
    pod, result = scene.added()
    scene.deleted(pod, result)  # what stays for good, a bridge, is there now
    neighbour = scene.added() if company == "beside another" else None
    before = left_on(host)
    for record, given, fate in itertools.product(RECORDS, (True, False), FATES):
        if record == "lost" and not given and (scene.before or "hostAccess" in scene.conf):
            continue  # nothing says any more whose veth it guarded, or which address the host has a route to
        pod = scene.lab.pod()
        if record != "never added":
            pod, result = scene.added()
        if record == "deleted before":
            host.delete_pod(scene.conf | {"prevResult": result}, pod)
        if record == "lost":
            scene.forgotten(pod)
        scene.ends(pod, result if given else None, fate)
        if scene.before:
            host.delete_pod(scene.before, pod)
        if fate == "kept" or (
            fate == "not given" and record != "lost"
        ):  # else nobody says which namespace was the pod's
            assert "agent_cni" not in rules(pod), (record, given, fate)
            assert "ACNI" not in rules(pod), (record, given, fate)
        pod.delete()
        assert eventually(lambda: left_on(host) == before) or left_on(host) == before, (record, given, fate)
    if neighbour:
        conf = scene.conf | ({"prevResult": neighbour[1]} if scene.before else {})
        host.check(conf, *neighbour).ok()
