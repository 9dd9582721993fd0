"""A feed as it was read last, and judged: a book whose pages are read when they are asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property

from cni.policy.book import Elsewhere, Owners, faults_of
from cni.policy.index import PodIndex
from cni.policy.labels import EVERYTHING, Labels, Selector, of_namespace
from cni.policy.manifest import known
from cni.policy.objects import ClusterPolicy, KubeNode, Namespace, NetworkPolicy, Object, Pod, unknown
from cni.state.documents import Document
from cni.state.far import far_pods

#: The kinds that are a ClusterPolicy.
_TIERS = ("ClusterNetworkPolicy", "AdminNetworkPolicy", "BaselineAdminNetworkPolicy")
#: What is gone through once until an object of a kind is another.
_KEPT = {"Pod": "_placed", "Namespace": "_namespaces", "NetworkPolicy": "", "Node": ""}


class KnownBook:
    """The documents of a feed at a `revision`, and why what it says now cannot be read. It is read on where it is kept, as the feed goes on.

    `owners` asks whose each address of this node is, as `placed` wants it: once, until that is asked `anew`; `elsewhere` whose one of
    other hosts is.
    """

    def __init__(self, feed: str, owners: Callable[[], Mapping[str, str]], elsewhere: Elsewhere = far_pods) -> None:
        self.feed = feed
        self._ask_owners, self._elsewhere = owners, elsewhere
        self.revision = 0
        self.unread: tuple[str, ...] = ()
        #: By kind, namespace and name, then by source: of several that say the same one is enough.
        self._documents: dict[str, dict[str, dict[str, dict[str, Document]]]] = {}
        self._read: dict[tuple[str, str, str], Object] = {}
        #: Pods as they were placed since that was asked anew.
        self._at_once: dict[tuple[str, str], Pod] = {}

    def heard(self, revision: int, documents: Iterable[Document], unread: Iterable[str]) -> KnownBook:
        """Know what became another since, or went."""
        self.revision, self.unread = revision, tuple(unread)
        for item in documents:
            name = name_of(item)
            said = self._documents.setdefault(item.kind, {}).setdefault(item.namespace, {}).setdefault(name, {})
            said.pop(item.source, None)
            if item.value is not None:
                said[item.source] = item
            if not said:
                del self._documents[item.kind][item.namespace][name]
            self._read.pop((item.kind, item.namespace, name), None)
            self.__dict__.pop(_KEPT.get(item.kind, "_cluster_policies"), None)
            if item.kind == "Pod" and "_index" in self.__dict__:
                self._go_on(item.namespace, name)
        self._at_once.clear()
        self.__dict__.pop("_unknown", None)
        return self

    def anew(self) -> KnownBook:
        """The same, with whose each address is at this moment."""
        self.__dict__.pop("_placed", None)
        self._at_once.clear()
        before = self.__dict__.pop("_owners", None)
        if before and self._ask_owners() is before.names:
            self.__dict__["_owners"] = before
        self.__dict__.pop("_unknown", None)
        return self

    def policies(self, namespace: str) -> list[NetworkPolicy]:
        """The NetworkPolicies of a namespace."""
        found = self._objects("NetworkPolicy", namespace)
        return [policy for policy in found if isinstance(policy, NetworkPolicy)]

    def cluster_policies(self) -> tuple[ClusterPolicy, ...]:
        """Every ClusterNetworkPolicy, by whatever name it was read."""
        return self._cluster_policies

    def nodes(self) -> list[KubeNode]:
        """Every node that has an object."""
        return [node for node in self._every("Node") if isinstance(node, KubeNode)]

    def pod(self, namespace: str, name: str) -> Pod | None:
        """One pod; None without an object of it."""
        if name not in self._documents.get("Pod", {}).get(namespace, {}):
            return None
        place, pod = (namespace, name), self._object("Pod", namespace, name)
        if place not in self._at_once and isinstance(pod, Pod):
            self._at_once[place] = self._owners.place([pod])[0]
        return self._at_once.get(place)

    def pods(self) -> tuple[Pod, ...]:
        """Every pod that has an object."""
        return self._placed

    def namespaces(self) -> list[str]:
        """Those that have pods."""
        return self._index.namespaces()

    def pods_of(self, namespace: str, like: Selector = EVERYTHING) -> tuple[Pod, ...]:
        """Those of a namespace: at least those that a selector means, or may mean."""
        return self._owners.place(self._index.like(namespace, like))

    def pods_at(self, addresses: Iterable[str]) -> list[Pod]:
        """Those that have one of some addresses."""
        wanted = set(addresses)
        found = (self.pod(*place) for place in dict.fromkeys([*self.claiming(wanted), *self._owners.pods_at(wanted)]))
        return [pod for pod in found if pod and not wanted.isdisjoint(pod.addresses)]

    def claiming(self, addresses: Iterable[str]) -> list[tuple[str, str]]:
        """Those whose objects say that they have one of some addresses, whoever has it: by namespace and name."""
        return [place for address in addresses for place in self._index.saying(address)]

    def labels_of_pod(self, namespace: str, name: str) -> Labels | None:
        """A pod's labels, wherever it is; None without an object of it."""
        pod = (
            self._object("Pod", namespace, name) if name in self._documents.get("Pod", {}).get(namespace, {}) else None
        )
        return pod.labels if isinstance(pod, Pod) else None

    def unknown_pods(self) -> tuple[Pod, ...]:
        """Every pod that has an address, and no object."""
        return self._unknown

    def pod_or_unknown(self, namespace: str, name: str) -> Pod:
        """One pod, with the addresses it has also without an object of it."""
        return self.pod(namespace, name) or self._owners.place([unknown(namespace, name)])[0]

    def object(self, document: Document) -> Object | None:
        """The object of a document's name, as it is now."""
        name = name_of(document)
        there = name in self._documents.get(document.kind, {}).get(document.namespace, {})
        return self._object(document.kind, document.namespace, name) if there else None

    def labels_of(self, namespace: str) -> Labels:
        """A namespace's labels, its name among them; incomplete without an object of it."""
        return of_namespace(namespace, self._namespaces.get(namespace))

    def faults(self, namespace: str = "") -> list[str]:
        """What cannot be read, and what is `wrong`."""
        return [*self.unread, *self.wrong(namespace)]

    def wrong(self, namespace: str = "") -> list[str]:
        """What is wrong with the policies for a namespace, or for all: where, which, the path in it, and what."""
        spaces = [namespace] if namespace else list(self._documents.get("NetworkPolicy", {}))
        policies = [policy for space in spaces for policy in self.policies(space)]
        return faults_of([*policies, *self.cluster_policies()])

    def _every(self, kind: str) -> Iterator[Object]:
        return (item for space in self._documents.get(kind, {}) for item in self._objects(kind, space))

    def _objects(self, kind: str, namespace: str) -> Iterator[Object]:
        return (self._object(kind, namespace, name) for name in self._documents.get(kind, {}).get(namespace, {}))

    def _object(self, kind: str, namespace: str, name: str) -> Object:
        found = self._read.get((kind, namespace, name))
        if found is None:
            said = self._documents[kind][namespace][name]
            found = self._read[kind, namespace, name] = object_of(next(iter(said.values())))
        return found

    @cached_property
    def _index(self) -> PodIndex:
        return PodIndex(pod for pod in self._every("Pod") if isinstance(pod, Pod))

    def _go_on(self, namespace: str, name: str) -> None:
        """Have a pod be found by what it is now."""
        there = name in self._documents["Pod"].get(namespace, {})
        pod = self._object("Pod", namespace, name) if there else None
        if isinstance(pod, Pod):
            self._index.put(pod)
        else:
            self._index.drop(namespace, name)

    @cached_property
    def _cluster_policies(self) -> tuple[ClusterPolicy, ...]:
        found = (item for kind in _TIERS for item in self._every(kind))
        return tuple(item for item in found if isinstance(item, ClusterPolicy))

    @cached_property
    def _namespaces(self) -> dict[str, Labels]:
        return {item.name: item.labels for item in self._every("Namespace") if isinstance(item, Namespace)}

    @cached_property
    def _placed(self) -> tuple[Pod, ...]:
        return self._owners.place(pod for pod in self._every("Pod") if isinstance(pod, Pod))

    @cached_property
    def _unknown(self) -> tuple[Pod, ...]:
        known = self._documents.get("Pod", {})
        return self._owners.strangers(lambda namespace, name: name in known.get(namespace, {}))

    @cached_property
    def _owners(self) -> Owners:
        return Owners(self._ask_owners(), self._elsewhere)


def name_of(document: Document) -> str:
    """What tells it from others of its kind in its namespace."""
    return document.name or f"{document.source} {document.nth}"


def object_of(document: Document) -> Object:
    """The object that a document is. Pods are found by their names: one that has none has the document's."""
    name, value = name_of(document) if document.kind == "Pod" else document.name, json.loads(document.value or "{}")
    return known(document.kind, document.place, document.namespace, name, value)
