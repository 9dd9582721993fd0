"""The objects of a feed in memory, as a book."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TypeVar

from cni.policy.book import by_namespace, faults_of
from cni.policy.labels import EVERYTHING, Labels, Selector, of_namespace
from cni.policy.objects import ClusterPolicy, KubeNode, Namespace, NetworkPolicy, Object, Pod
from cni.values import dataclass

T = TypeVar("T", bound=Object)


@dataclass(frozen=True)
class Cluster:
    """What a feed says: each object once. A pod's addresses are what its object says."""

    feed: str = ""
    objects: tuple[Object, ...] = ()

    def policies(self, namespace: str) -> tuple[NetworkPolicy, ...]:
        """The NetworkPolicies of a namespace."""
        return tuple(item for item in self._network_policies if item.namespace == namespace)

    def cluster_policies(self) -> tuple[ClusterPolicy, ...]:
        """Every ClusterNetworkPolicy."""
        return self._cluster_policies

    def nodes(self) -> tuple[KubeNode, ...]:
        """Every node."""
        return tuple(self._of(KubeNode))

    def pod(self, namespace: str, name: str) -> Pod | None:
        """One pod, or None."""
        return self._pods.get((namespace, name))

    def pods(self) -> tuple[Pod, ...]:
        """Every pod."""
        return tuple(self._pods.values())

    def namespaces(self) -> Iterable[str]:
        """Those that have pods."""
        return self._by_namespace

    def pods_of(self, namespace: str, like: Selector = EVERYTHING) -> Iterable[Pod]:
        """All of a namespace."""
        return self._by_namespace.get(namespace, ())

    def unknown_pods(self) -> tuple[Pod, ...]:
        """None: it knows of no address but by objects."""
        return ()

    def labels_of(self, namespace: str) -> Labels:
        """A namespace's labels; of one without an object its name is known."""
        return of_namespace(namespace, self._spaces.get(namespace))

    def faults(self, namespace: str = "") -> list[str]:
        """What is wrong with the policies for a namespace, or with all: where, which, the path in it, and what."""
        own = [policy for policy in self._network_policies if namespace in ("", policy.namespace)]
        return faults_of([*own, *self._cluster_policies])

    def _of(self, kind: type[T]) -> Iterator[T]:
        return (item for item in self.objects if isinstance(item, kind))

    @cached_property
    def _network_policies(self) -> tuple[NetworkPolicy, ...]:
        return tuple(self._of(NetworkPolicy))

    @cached_property
    def _cluster_policies(self) -> tuple[ClusterPolicy, ...]:
        return tuple(self._of(ClusterPolicy))

    @cached_property
    def _pods(self) -> dict[tuple[str, str], Pod]:
        return {(item.namespace, item.name): item for item in self._of(Pod)}

    @cached_property
    def _by_namespace(self) -> dict[str, list[Pod]]:
        return by_namespace(self._pods.values())

    @cached_property
    def _spaces(self) -> dict[str, Labels]:
        return {item.name: item.labels for item in self._of(Namespace)}
