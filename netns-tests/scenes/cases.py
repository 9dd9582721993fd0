"""Policies written by hand for nine pods, a clause of the API reference each, and what is to be so of them in the writer's own words.

A file of policy/matrix has a mapping of cases. A case has NetworkPolicies by `namespace/name`, ClusterNetworkPolicies by `cluster NAME`, and
of each its spec; `pods` and `namespaces` say which labels some have instead, `others` are objects beside, `far` whose pod a machine plays.
`open` and `shut` are connections: who, whom, and where it matters protocol, port and family. `<x/a>` and `<x/a 6>` are addresses.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

import yaml
from reference import End, Raw, Reference

FOLDER = Path(__file__).parents[1] / "policy/matrix"
SPACES, NAMES = ("x", "y", "z"), ("a", "b", "c")
PODS = [f"{space}/{name}" for space in SPACES for name in NAMES]
NODE, OUTSIDE = "node", "outside"
PORTS, PROTOCOLS = (80, 81), ("TCP", "UDP", "SCTP")
#: What each pod calls its ports: the same name is another number in another pod.
NAMED = {
    "a": [("web", 80, "TCP"), ("dns", 80, "UDP"), ("sig", 81, "SCTP")],
    "b": [("web", 81, "TCP"), ("dns", 81, "UDP"), ("only-b", 80, "TCP")],
    "c": [("web", 80, "UDP"), ("alt", 81, "TCP"), ("sig", 80, "SCTP")],
}
_ADDRESS = re.compile(r"<([\w/-]+?)( 6)?>")
_OWN = ("pods", "namespaces", "others", "far", "open", "shut")

#: Addresses by party and family.
Addresses = Mapping[str, Mapping[int, str]]


class Probe(NamedTuple):
    """One question: whether `source` reaches `to` at an address, by names of parties; `kept` from a socket that is as old as its party."""

    source: str
    to: str
    address: str
    protocol: str
    port: int
    kept: bool = False

    @property
    def family(self) -> int:
        return 6 if ":" in self.address else 4

    def __str__(self) -> str:
        return f"{self.source} to {self.to} {self.protocol} {self.port} (IPv{self.family}{', kept' * self.kept})"


@dataclass(frozen=True)
class Case:
    """One case: its name, and what the file says of it."""

    name: str
    said: Raw

    @property
    def documents(self) -> list[Raw]:
        """Its policies."""
        return [policy(key, spec) for key, spec in self.said.items() if key not in _OWN]

    @property
    def world(self) -> list[Raw]:
        """Its namespaces and pods."""
        spaces = {space: {"ns": space} for space in SPACES} | self.said.get("namespaces", {})
        pods = {key: {"labels": {"pod": key[-1]}} for key in PODS} | self.said.get("pods", {})
        made = [namespace(name, labels) for name, labels in spaces.items()]
        return [*made, *(pod(key, **has) for key, has in pods.items()), *self.said.get("others", [])]

    @property
    def far(self) -> dict[str, str]:
        """Which pod of elsewhere a machine plays."""
        return self.said.get("far", {})

    def facts(self, addresses: Addresses) -> Iterator[tuple[Probe, bool]]:
        """What its writer says is let through, or not."""
        for yes in (True, False):
            for text in self.said.get("open" if yes else "shut", ()):
                source, to, *rest = text.split()
                protocol = next((it for it in rest if it in PROTOCOLS), "TCP")
                numbers = [int(it) for it in rest if it.isdigit()]
                port = next((it for it in numbers if it in PORTS), 80)
                for family in [it for it in numbers if it in (4, 6)] or (4, 6):
                    yield Probe(source, to, addresses[to][family], protocol, port), yes


@cache
def cases(*files: str) -> list[Case]:
    """The cases of some files, or of all."""
    found = [FOLDER / f"{name}.yaml" for name in files] or sorted(FOLDER.glob("*.yaml"))
    return [
        Case(f"{file.stem}: {name}", said) for file in found for name, said in yaml.safe_load(file.read_text()).items()
    ]


def policy(key: str, spec: Raw) -> Raw:
    """A NetworkPolicy `namespace/name`, or a ClusterNetworkPolicy `cluster NAME`."""
    space, _, name = key.partition("/")
    if not name:
        kind, version = "ClusterNetworkPolicy", "policy.networking.k8s.io/v1beta1"
        return {"apiVersion": version, "kind": kind, "metadata": {"name": key.removeprefix("cluster ")}, "spec": spec}
    metadata = {"namespace": space, "name": name}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def namespace(name: str, labels: dict[str, str]) -> Raw:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def pod(key: str, labels: dict[str, str], ports: list[Raw] | None = None) -> Raw:
    """A pod whose ports are called as its name says, or others."""
    space, name = key.split("/")
    usual = [
        {"name": it, "containerPort": number, "protocol": protocol} for it, number, protocol in NAMED.get(name, ())
    ]
    containers = [{"name": "it", "ports": usual if ports is None else ports}]
    metadata = {"namespace": space, "name": name, "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": containers}}


def placed(objects: Iterable[Raw], addresses: Addresses) -> list[Raw]:
    """Objects with addresses in place of names, and pods that are there with their own."""
    text = json.dumps(list(objects))
    found: list[Raw] = json.loads(_ADDRESS.sub(lambda it: addresses[it[1]][6 if it[2] else 4], text))
    for item in found:
        own = addresses.get(f"{item['metadata'].get('namespace')}/{item['metadata']['name']}")
        if item["kind"] == "Pod" and own and "status" not in item:
            ips = [{"ip": address} for address in own.values()]
            item["status"] = {"phase": "Running", "podIP": ips[0]["ip"], "podIPs": ips}
    return found


@dataclass
class Expected:
    """What the reference says of parties under some objects; a machine that plays a pod is nobody's to hold."""

    objects: list[Raw]
    addresses: Addresses
    far: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.reference = Reference(tuple(self.objects))

    def allows(self, probe: Probe) -> bool:
        return self.reference.allows(*self.ends(probe), probe.protocol, probe.port)

    def words(self, probe: Probe) -> tuple[bool, bool]:
        """What each end says: out of the source, and into the other."""
        source, to = self.ends(probe)
        return tuple(
            self.reference.passes(direction, me, peer, probe.protocol, probe.port)
            for direction, me, peer in (("egress", source, to), ("ingress", to, source))
        )

    def ends(self, probe: Probe) -> tuple[End, End]:
        """Who asks, and who is asked."""
        own = self.addresses[probe.source][probe.family]
        return self._end(probe.source, own), self._end(probe.to, probe.address)

    def _end(self, name: str, address: str) -> End:
        if name in self.far:
            own = self.reference.addresses(self.far[name])
            return End(address, self.far[name] if address in own else "", held=False)
        return End(address, name if "/" in name else "", name if name == NODE else "")
