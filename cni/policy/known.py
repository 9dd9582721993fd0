"""A feed as it was read last, and judged: a book whose pages are read when they are asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, lru_cache

from cni.policy.book import faults_of, placed
from cni.policy.kubernetes import Cluster
from cni.policy.labels import Labels, of_namespace
from cni.policy.manifest import Object, known
from cni.policy.objects import ClusterPolicy, KubeNode, Namespace, NetworkPolicy, Pod
from cni.state.documents import Document

#: The kinds that are a ClusterPolicy.
_TIERS = ("ClusterNetworkPolicy", "AdminNetworkPolicy", "BaselineAdminNetworkPolicy")


class KnownBook:
    """The documents of a feed at a revision. `unread` is why what it says now cannot be read, `owners` asks whose each address is,
    as `placed` wants it.
    """

    def __init__(
        self,
        feed: str,
        revision: int,
        documents: Iterable[Document],
        unread: Iterable[str],
        owners: Callable[[], Mapping[str, str]],
    ) -> None:
        self.feed = feed
        self.revision = revision
        self.unread = tuple(unread)
        self._ask_owners = owners
        self._by_kind: dict[str, dict[str, dict[str, Document]]] = {}
        for item in documents:  # of several that say the same one is enough
            spaces = self._by_kind.setdefault(item.kind, {})
            spaces.setdefault(item.namespace, {})[item.name or f"{item.source} {item.nth}"] = item

    def policies(self, namespace: str) -> list[NetworkPolicy]:
        """The NetworkPolicies of a namespace."""
        found = map(object_of, self._by_kind.get("NetworkPolicy", {}).get(namespace, {}).values())
        return [policy for policy in found if isinstance(policy, NetworkPolicy)]

    def cluster_policies(self) -> tuple[ClusterPolicy, ...]:
        """Every ClusterNetworkPolicy, by whatever name it was read."""
        return self._cluster_policies

    def nodes(self) -> list[KubeNode]:
        """Every node that has an object."""
        return [node for node in self._objects("Node") if isinstance(node, KubeNode)]

    def pod(self, namespace: str, name: str) -> Pod | None:
        """One pod; None without an object of it."""
        found = self._by_kind.get("Pod", {}).get(namespace, {}).get(name)
        pod = object_of(found) if found else None
        return next(placed([pod], self._owners)) if isinstance(pod, Pod) else None

    def pods(self) -> tuple[Pod, ...]:
        """Every pod that has an object."""
        return self._pods

    def labels_of(self, namespace: str) -> Labels:
        """A namespace's labels, its name among them; incomplete without an object of it."""
        return of_namespace(namespace, self._namespaces.get(namespace))

    def faults(self, namespace: str = "") -> list[str]:
        """What cannot be read, and what is wrong with the policies for a namespace, or for all: where, which, the path in it, and what."""
        spaces = [namespace] if namespace else list(self._by_kind.get("NetworkPolicy", {}))
        policies = [policy for space in spaces for policy in self.policies(space)]
        return [*self.unread, *faults_of([*policies, *self.cluster_policies()])]

    def cluster(self) -> Cluster:
        """All of it at once, with the addresses that objects say."""
        policies = [policy for space in self._by_kind.get("NetworkPolicy", {}) for policy in self.policies(space)]
        spaces = tuple(item for item in self._objects("Namespace") if isinstance(item, Namespace))
        pods = tuple(item for item in self._objects("Pod") if isinstance(item, Pod))
        return Cluster(tuple(policies), pods, spaces, self.cluster_policies(), tuple(self.nodes()))

    def _objects(self, kind: str) -> Iterator[Object]:
        return (object_of(item) for found in self._by_kind.get(kind, {}).values() for item in found.values())

    @cached_property
    def _cluster_policies(self) -> tuple[ClusterPolicy, ...]:
        found = (item for kind in _TIERS for item in self._objects(kind))
        return tuple(item for item in found if isinstance(item, ClusterPolicy))

    @cached_property
    def _namespaces(self) -> dict[str, Labels]:
        return {item.name: item.labels for item in self._objects("Namespace") if isinstance(item, Namespace)}

    @cached_property
    def _pods(self) -> tuple[Pod, ...]:
        return tuple(placed((pod for pod in self._objects("Pod") if isinstance(pod, Pod)), self._owners))

    @cached_property
    def _owners(self) -> Mapping[str, str]:
        return self._ask_owners()


def object_of(document: Document) -> Object:
    """The object that a document is."""
    return _read(document.kind, document.place, document.namespace, document.name, document.value or "{}")


@lru_cache(maxsize=4096)
def _read(kind: str, place: str, namespace: str, name: str, text: str) -> Object:
    return known(kind, place, namespace, name, json.loads(text))
