"""A host whose pods a folder feeds: the pods are real, and of the rest of a bigger cluster there are objects.

`BENCH_PODS=50` makes all of it smaller. Each object is a file, as of those who write one for each.
"""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agents import serving
from bench_modes import ROUTED
from cluster import Node
from interception import address_of
from lab import Lab, Pod

PODS = int(os.environ.get("BENCH_PODS", "500"))
SPACES, APPS, WIDTH = PODS // 25, 10, 4

Object = dict[str, Any]


def named(kind: str, space: str, name: str, version: str = "v1", **rest: Any) -> Object:
    metadata = {"name": name} | ({"namespace": space} if space else {}) | rest.pop("metadata", {})
    return {"apiVersion": version, "kind": kind, "metadata": metadata} | rest


def kube_pod(number: int, app: int, address: str = "") -> Object:
    labels, status = {"app": f"a{app % APPS}", "tier": f"t{number % 3}"}, {"podIP": address} if address else {}
    return named("Pod", space_of(number), f"p{number}", metadata={"labels": labels}, status=status)


def document(number: int, port: int = 80) -> Object:
    """One that lets three kinds of pods in, and its own out to two, as such documents do."""
    app = number // SPACES

    def of(far: int, **more: Any) -> Object:
        return {"podSelector": {"matchLabels": {"app": f"a{(app + far) % APPS}"}}} | more

    team = {"namespaceSelector": {"matchLabels": {"team": f"m{number % 5}"}}}
    spec = {
        "podSelector": {"matchLabels": {"app": f"a{app % APPS}"}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {"from": [of(1), of(2, **team)], "ports": [{"port": port}]},
            {"from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]},
        ],
        "egress": [
            {"to": [of(3), of(4, **team)], "ports": [{"port": 5432}]},
            {"ports": [{"port": 53, "protocol": "UDP"}]},
        ],
    }
    return named("NetworkPolicy", space_of(number), f"d{number}", "networking.k8s.io/v1", spec=spec)


def space_of(number: int) -> str:
    return f"ns{number % SPACES}"


def far_address(number: int) -> str:
    return f"10.200.{number >> 8}.{number & 255}"


@dataclass
class Town:
    """A host with pods that a folder feeds, an object to a file."""

    host: Node
    folder: Path
    pods: int = 0
    documents: int = 0
    placed: list[Pod] = field(default_factory=list)
    apps: dict[int, int] = field(default_factory=dict)
    addresses: dict[int, str] = field(default_factory=dict)
    changed: int = 0

    def put(self, name: str, item: Object) -> float:
        """Have a file say this, at once; when."""
        (self.folder / "new").write_text(json.dumps(item))
        began = time.perf_counter()
        (self.folder / "new").rename(self.folder / f"{name}.json")
        return began

    def take(self, name: str) -> float:
        began = time.perf_counter()
        (self.folder / f"{name}.json").unlink()
        return began

    def pod(self, number: int) -> Object:
        """Its object, as it is to be."""
        return kube_pod(number, self.apps[number], self.addresses.get(number, ""))

    def grow(self, pods: int, documents: int) -> None:
        """Have so many of each; those that are beyond this host's own are elsewhere."""
        self.folder.mkdir(exist_ok=True)
        for number in range(SPACES) if not self.pods else ():
            labels = {"labels": {"team": f"m{number % 5}"}}
            self.put(f"space{number}", named("Namespace", "", f"ns{number}", metadata=labels))
        for number in range(self.pods, pods):
            self.apps[number] = number // SPACES
            if number >= PODS:
                self.addresses[number] = far_address(number)
            self.put(f"pod{number}", self.pod(number))
        for number in range(self.documents, documents):
            self.put(f"document{number}", document(number))
        self.pods, self.documents = pods, documents

    def attach(self, lab: Lab) -> None:
        """This host's pods."""
        began = time.perf_counter()
        self.placed = [lab.pod() for _ in range(PODS)]
        agent = serving(self.host)

        def add(number: int) -> Object:
            return self.host.add(self.conf, self.placed[number], CNI_ARGS=args(number))

        try:
            with ThreadPoolExecutor(WIDTH) as pool:
                results = list(pool.map(add, range(PODS)))
        finally:
            agent.process.terminate()
            agent.process.communicate(timeout=60)
        for number, result in enumerate(results):
            self.addresses[number] = address_of(result, 4)
            self.put(f"pod{number}", self.pod(number))
        print(f"\n{PODS} pods were attached in {time.perf_counter() - began:.0f} s, their namespaces made")

    @property
    def conf(self) -> Object:
        apart = {"name": "town", "ipam": {"subnet": "10.91.0.0/16"}}
        return ROUTED | apart | {"policy": {"policyDir": str(self.folder)}}

    @property
    def size(self) -> str:
        return f"{self.pods} x {self.documents}"


def args(number: int) -> str:
    return f"IgnoreUnknown=1;K8S_POD_NAMESPACE={space_of(number)};K8S_POD_NAME=p{number}"
