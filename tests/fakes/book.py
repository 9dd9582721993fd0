"""A book of objects in a list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cni.policy.book import Owners, by_namespace
from cni.policy.labels import EVERYTHING, Labels, Selector, of_namespace
from cni.policy.manifest import objects_of
from cni.policy.objects import ClusterPolicy, KubeNode, Namespace, NetworkPolicy, Pod


class ListedBook:
    """What raw objects say, and nothing else but whose each address is, if `owners` does."""

    feed = "folder /listed"

    def __init__(self, *raw: dict[str, Any], owners: Mapping[str, str] | None = None) -> None:
        self.objects = objects_of(("", item) for item in raw)
        self.owners = owners or {}

    def policies(self, namespace: str) -> Iterable[NetworkPolicy]:
        return [item for item in self.objects if isinstance(item, NetworkPolicy) and item.namespace == namespace]

    def cluster_policies(self) -> Iterable[ClusterPolicy]:
        return [item for item in self.objects if isinstance(item, ClusterPolicy)]

    def nodes(self) -> Iterable[KubeNode]:
        return [item for item in self.objects if isinstance(item, KubeNode)]

    def pods(self) -> Iterable[Pod]:
        return Owners(self.owners, lambda *_: ()).place(item for item in self.objects if isinstance(item, Pod))

    def pod(self, namespace: str, name: str) -> Pod | None:
        return next((item for item in self.pods() if (item.namespace, item.name) == (namespace, name)), None)

    def namespaces(self) -> Iterable[str]:
        return by_namespace(self.pods())

    def pods_of(self, namespace: str, like: Selector = EVERYTHING) -> Iterable[Pod]:
        return by_namespace(self.pods()).get(namespace, ())

    def unknown_pods(self) -> Iterable[Pod]:
        known = {(item.namespace, item.name) for item in self.objects if isinstance(item, Pod)}
        return Owners(self.owners, lambda *_: ()).strangers(lambda *name: name in known)

    def labels_of(self, namespace: str) -> Labels:
        known = [item.labels for item in self.objects if isinstance(item, Namespace) and item.name == namespace]
        return of_namespace(namespace, known[0] if known else None)

    def faults(self, namespace: str = "") -> list[str]:
        return []
