"""A book as it would be with other documents: what `agent-cni policy check` asks beside the one that is."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import TypeVar

from cni.policy.book import Book, by_namespace
from cni.policy.labels import EVERYTHING, Labels, Selector, of_namespace
from cni.policy.objects import ClusterPolicy, KubeNode, Namespace, NetworkPolicy, Object, Pod
from cni.values import replace

T = TypeVar("T", NetworkPolicy, ClusterPolicy, KubeNode, Pod)


class Amended:
    """A book with some objects put in place of those of their names, or, `removed`, without those."""

    def __init__(self, book: Book, changed: Iterable[Object], *, removed: bool = False) -> None:
        self._book, self._changed, self._removed = book, tuple(changed), removed
        self.feed = book.feed

    def policies(self, namespace: str) -> Iterable[NetworkPolicy]:
        """The NetworkPolicies of a namespace."""
        found = self._amended(self._book.policies(namespace), NetworkPolicy)
        return [item for item in found if item.namespace == namespace]

    def cluster_policies(self) -> Iterable[ClusterPolicy]:
        """Every ClusterNetworkPolicy."""
        return self._amended(self._book.cluster_policies(), ClusterPolicy)

    def nodes(self) -> Iterable[KubeNode]:
        """Every node."""
        return self._amended(self._book.nodes(), KubeNode)

    def pods(self) -> Iterable[Pod]:
        """Every pod."""
        return self._pods.values()

    def unknown_pods(self) -> Iterable[Pod]:
        """Every pod that has an address, and would have no object."""
        return [pod for pod in self._book.unknown_pods() if (pod.namespace, pod.name) not in self._pods]

    def pod(self, namespace: str, name: str) -> Pod | None:
        """One pod."""
        return self._pods.get((namespace, name))

    def namespaces(self) -> Iterable[str]:
        """Those that have pods."""
        return self._by_namespace

    def pods_of(self, namespace: str, like: Selector = EVERYTHING) -> Iterable[Pod]:
        """All of a namespace."""
        return self._by_namespace.get(namespace, ())

    def labels_of(self, namespace: str) -> Labels:
        """A namespace's labels."""
        changed = [item for item in self._changed if isinstance(item, Namespace) and item.name == namespace]
        if not changed:
            return self._book.labels_of(namespace)
        return of_namespace(namespace, None if self._removed else changed[-1].labels)

    def faults(self, namespace: str = "") -> list[str]:
        """What is wrong with what would be put in."""
        return [
            f"{item.where}: {item.name}: {line}"
            for item in self._changed
            if isinstance(item, NetworkPolicy | ClusterPolicy)
            for line in item.faults
        ]

    @cached_property
    def _pods(self) -> dict[tuple[str, str], Pod]:
        """A pod whose object would be another keeps its addresses, unless that one says some."""
        known = (*self._book.pods(), *self._book.unknown_pods())
        before = {(item.namespace, item.name): item.addresses for item in known}
        return {
            (item.namespace, item.name): replace(
                item, addresses=item.addresses or before.get((item.namespace, item.name), ())
            )
            for item in self._amended(self._book.pods(), Pod)
        }

    @cached_property
    def _by_namespace(self) -> dict[str, list[Pod]]:
        return by_namespace(self._pods.values())

    def _amended(self, items: Iterable[T], kind: type[T]) -> list[T]:
        changed: dict[object, T] = {place_of(item): item for item in self._changed if isinstance(item, kind)}
        kept: list[T] = [item for item in items if place_of(item) not in changed]
        return kept if self._removed else kept + list(changed.values())


def place_of(item: Object) -> tuple[str, str]:
    """What tells apart the objects of a kind: their namespaces, if they have some, and names."""
    return getattr(item, "namespace", ""), item.name
