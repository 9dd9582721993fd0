"""What a change of a feed touches: which pods may stand in other sets of addresses, and whose rules may be others. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property, partial
from typing import NamedTuple

from cni.policy.known import KnownBook, name_of
from cni.policy.labels import Labels
from cni.policy.objects import ClusterPolicy, KubeNode, NetworkPolicy, Object, Pod, unknown
from cni.policy.selection import Selection
from cni.state.documents import Document


class Said(NamedTuple):
    """What a book said of pods, namespaces and policies at one time."""

    pods: dict[tuple[str, str], Pod | None]
    spaces: dict[str, Labels]
    policies: tuple[Object, ...]


def said(book: KnownBook, changed: Iterable[Document]) -> Said:
    """What a book says of what documents are about, of every pod of a namespace among it."""
    pods: dict[tuple[str, str], Pod | None] = {}
    spaces: dict[str, Labels] = {}
    policies: list[Object] = []
    for item in changed:
        if item.kind == "Pod":
            place = item.namespace, name_of(item)
            pods[place] = book.pod(*place)
        elif item.kind == "Namespace":
            spaces[item.name] = book.labels_of(item.name)
            unknown_there = (pod for pod in book.unknown_pods() if pod.namespace == item.name)
            pods |= {(item.name, pod.name): pod for pod in (*book.pods_of(item.name), *unknown_there)}
        elif (found := book.object(item)) is not None:
            policies.append(found)
    return Said(pods, spaces, tuple(policies))


def said_of_pods(book: KnownBook, names: Iterable[tuple[str, str]]) -> Said:
    """What a book says of pods alone, by namespace and name."""
    return Said({name: book.pod_or_unknown(*name) for name in names}, {}, ())


class Effects:
    """What is to be done because a book says something else `now` than `before`."""

    def __init__(self, book: KnownBook, before: Said, now: Said) -> None:
        self._book, self._before, self._now = book, before, now
        self.pods = before.pods.keys() | now.pods.keys()

    @cached_property
    def _spaces(self) -> set[str]:
        return {space for space, _ in self.pods}

    @property
    def feed(self) -> str:
        """Of which."""
        return self._book.feed

    @property
    def addresses(self) -> set[str]:
        """Those that its pods have, or had."""
        known = (pod for said in (self._before, self._now) for pod in said.pods.values() if pod)
        return {address for pod in known for address in pod.addresses}

    def concerns(self, selection: Selection) -> bool:
        """Whether a set of addresses may be to hold others: it means, or meant, a pod of them."""
        if selection.namespaces is None and selection.namespace not in self._spaces:
            return False
        return any(
            selection.selects(pod or unknown(*name), partial(self._labels, said))
            for said in (self._before, self._now)
            for name, pod in said.pods.items()
        )

    @cached_property
    def namespaces(self) -> set[str] | None:
        """Those of whose pods the rules may be others; None for all."""
        changed = (*self._before.policies, *self._now.policies)
        own = [item for item in changed if isinstance(item, NetworkPolicy)]
        if len(own) < len(changed):
            return None
        spaces = self._now.spaces.keys() | self._before.spaces.keys() if self._book.cluster_policies() else set()
        return {*spaces, *self._spaces, *(item.namespace for item in own)}

    def concerns_rules(self, namespace: str, name: str) -> bool:
        """Whether the rules of a pod may be others."""
        place = namespace, name
        if namespace in self._now.spaces.keys() | self._before.spaces.keys() and self._book.cluster_policies():
            return True  # an administrator's policy may mean a pod by its namespace alone, one without an object too
        if self._is_selected_otherwise(place):
            return True
        changed = (*self._before.policies, *self._now.policies)
        if not changed:
            return False
        labels = self._book.labels_of_pod(namespace, name)
        return any(self._selects(policy, namespace, labels) for policy in changed)

    def _is_selected_otherwise(self, place: tuple[str, str]) -> bool:
        """Whether other policies may be about a pod than before, or its ports have other names."""
        if place not in self.pods:
            return False
        was, now = self._before.pods.get(place), self._now.pods.get(place)
        if was is None or now is None:
            return was is not now
        if was.ports != now.ports or self._book.cluster_policies():
            return True
        policies = self._book.policies(place[0])
        return any(item.selector.selects(was.labels) is not item.selector.selects(now.labels) for item in policies)

    def _selects(self, policy: Object, namespace: str, labels: Labels | None) -> bool:
        """Whether a policy may be about a pod; one that is not known may have any labels."""
        if isinstance(policy, NetworkPolicy):
            return policy.namespace == namespace and (labels is None or policy.selector.selects(labels) is not False)
        if isinstance(policy, ClusterPolicy):
            spaces = policy.subject.namespaces
            near = spaces is None or spaces.selects(self._book.labels_of(namespace)) is not False
            return near and (labels is None or policy.subject.pods.selects(labels) is not False)
        return isinstance(policy, KubeNode) and bool(self._book.cluster_policies())

    def _labels(self, said: Said, namespace: str) -> Labels:
        return said.spaces.get(namespace) or self._book.labels_of(namespace)
