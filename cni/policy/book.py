"""What is known of a feed, whatever keeps it: the objects that policies are made of, and whose addresses they have."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from cni.policy.labels import EVERYTHING, Labels, Selector
from cni.policy.objects import ClusterPolicy, KubeNode, NetworkPolicy, Pod, document_of, unknown
from cni.state.elsewhere import Far
from cni.values import replace

#: Asked of pods by namespace and name, or of all, and of addresses: each address with whose it is on other hosts.
Elsewhere = Callable[[Iterable[tuple[str, str]] | None, Iterable[str]], Iterable[tuple[str, Far]]]


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

    def namespaces(self) -> Iterable[str]:
        """Those that have pods."""

    def pods_of(self, namespace: str, like: Selector = EVERYTHING) -> Iterable[Pod]:
        """The pods of a namespace: at least those that a selector means, or may mean."""

    def unknown_pods(self) -> Iterable[Pod]:
        """Every pod that has an address, and no object."""

    def labels_of(self, namespace: str) -> Labels:
        """A namespace's labels, its name among them; incomplete without an object of it."""

    def faults(self, namespace: str = "") -> list[str]:
        """What is wrong with the policies of a namespace, or with all: where, which, the path in it, and what."""


def faults_of(policies: Iterable[NetworkPolicy | ClusterPolicy]) -> list[str]:
    """What is wrong with policies: where, which, the path in it, and what."""
    return [f"{policy.where}: {document_of(policy)}: {line}" for policy in policies for line in policy.faults]


def by_namespace(pods: Iterable[Pod]) -> dict[str, list[Pod]]:
    """Pods, apart by their namespaces."""
    found: dict[str, list[Pod]] = {}
    for pod in pods:
        found.setdefault(pod.namespace, []).append(pod)
    return found


class Owners:
    """Whose each address is: ``namespace/name``, or nothing where that is nobody who has a name; `elsewhere` says of pods, and of
    addresses, what other hosts do.
    """

    def __init__(self, names: Mapping[str, str], elsewhere: Elsewhere) -> None:
        self.names, self._elsewhere = names, elsewhere
        self._addresses: dict[str, list[str]] = {}
        for address, name in names.items():
            self._addresses.setdefault(name, []).append(address)

    def pods_at(self, addresses: Iterable[str]) -> dict[tuple[str, str], None]:
        """The pods that have some addresses here or on other hosts, by namespace and name."""
        wanted = set(addresses)
        here = (self.names[address].partition("/") for address in wanted if self.names.get(address))
        far = self._elsewhere((), wanted - self.names.keys())
        return dict.fromkeys(
            [*((space, name) for space, _, name in here), *((pod.namespace, pod.name) for _, pod in far)]
        )

    def place(self, pods: Iterable[Pod]) -> tuple[Pod, ...]:
        """Pods with the addresses they have: those of their attachments here, those other hosts say they have there, and what
        their objects say, unless it is somebody else's, or of a subnet in which another host says that the pod has another.
        """
        wanted = tuple(pods)
        if not wanted:
            return ()
        claimed = {address for pod in wanted for address in pod.addresses if address not in self.names}
        far = self._elsewhere([(pod.namespace, pod.name) for pod in wanted], claimed)
        return tuple(map(_Map(self.names, self._addresses, far).place, wanted))

    def strangers(self, are_known: Callable[[str, str], bool]) -> tuple[Pod, ...]:
        """The pods that have addresses, here or elsewhere, and are none of those that `are_known` by namespace and name."""
        near = (name.partition("/")[::2] for name in self._addresses if name.count("/") == 1)
        far = ((place.namespace, place.name) for _, place in self._elsewhere(None, ()))
        names = dict.fromkeys(name for name in (*near, *far) if not are_known(*name))
        return tuple(pod for pod in self.place(unknown(*name) for name in names) if pod.addresses)


class _Map:
    """Who has which addresses, here and elsewhere: what an attachment of this node has is nobody's elsewhere."""

    def __init__(self, here: Mapping[str, str], own: Mapping[str, list[str]], far: Iterable[tuple[str, Far]]) -> None:
        self._here, self._own = here, own
        self._far: dict[str, list[tuple[str, str]]] = {}
        self._there: dict[str, str] = {}
        for address, (namespace, called, subnet) in far:
            name = f"{namespace}/{called}"
            self._there[address] = name if self._there.get(address, name) == name else ""
            self._far.setdefault(name, []).append((address, subnet))

    def place(self, pod: Pod) -> Pod:
        """See Owners."""
        name = f"{pod.namespace}/{pod.name}"
        far = [(address, subnet) for address, subnet in self._far.get(name, ()) if self._owner(address, "") == name]
        said = [address for address in pod.addresses if self._owner(address, name) == name]
        believed = [it for it in said if it in self._here or it in self._there or not _is_of_any(it, far)]
        found = dict.fromkeys([*self._own.get(name, ()), *(address for address, _ in far), *believed])
        addresses = () if pod.apart else tuple(found)
        return pod if addresses == pod.addresses else replace(pod, addresses=addresses)

    def _owner(self, address: str, nobody: str) -> str:
        return self._here[address] if address in self._here else self._there.get(address, nobody)


def _is_of_any(address: str, far: Iterable[tuple[str, str]]) -> bool:
    """Whether it is of a subnet in which a pod has another address."""
    return any(subnet and ipaddress.ip_address(address) in ipaddress.ip_network(subnet) for _, subnet in far)
