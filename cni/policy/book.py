"""What is known of a feed, whatever keeps it: the objects that policies are made of, and whose addresses they have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from cni.policy.labels import Labels
from cni.policy.objects import ClusterPolicy, KubeNode, NetworkPolicy, Pod, document_of
from cni.values import replace


class Book(Protocol):
    """The objects of one feed, as they are now or were when they could last be read.

    `feed` is where they come from: ``folder /path`` or ``cluster``. A pod has the addresses of its attachments on this node
    and those its object or the cluster's endpoints say, but none that is somebody else's by a live attachment or endpoint.
    """

    @property
    def feed(self) -> str:
        """Where they come from."""

    def policies(self, namespace: str) -> Iterable[NetworkPolicy]:
        """The NetworkPolicies of a namespace."""

    def cluster_policies(self) -> Iterable[ClusterPolicy]:
        """Every ClusterNetworkPolicy, by whatever name it was read."""

    def nodes(self) -> Iterable[KubeNode]:
        """Every node that has an object."""

    def pod(self, namespace: str, name: str) -> Pod | None:
        """One pod; None without an object of it."""

    def pods(self) -> Iterable[Pod]:
        """Every pod that has an object."""

    def labels_of(self, namespace: str) -> Labels:
        """A namespace's labels, its name among them; incomplete without an object of it."""

    def faults(self, namespace: str = "") -> list[str]:
        """What is wrong with the policies of a namespace, or with all: where, which, the path in it, and what."""


def faults_of(policies: Iterable[NetworkPolicy | ClusterPolicy]) -> list[str]:
    """What is wrong with policies: where, which, the path in it, and what."""
    return [f"{policy.where}: {document_of(policy)}: {line}" for policy in policies for line in policy.faults]


class Owners:
    """Whose each address is: ``namespace/name``, or nothing where that is nobody who has a name."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names
        self._addresses: dict[str, list[str]] = {}
        for address, name in names.items():
            self._addresses.setdefault(name, []).append(address)

    def place(self, pod: Pod) -> Pod:
        """A pod with the addresses it has: those that are its, and what its object says unless it is somebody else's."""
        name = f"{pod.namespace}/{pod.name}"
        said = [address for address in pod.addresses if self._names.get(address, name) == name]
        found = () if pod.apart else tuple(dict.fromkeys([*self._addresses.get(name, ()), *said]))
        return pod if found == pod.addresses else replace(pod, addresses=found)
