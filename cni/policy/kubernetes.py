"""NetworkPolicies as a policy for one pod (Kubernetes API reference, networking.k8s.io/v1).

Policies add up. A pod that a policy of a direction selects is shut in that direction but for what any of them
allows. Where it is not known whether one selects it, it is shut likewise, and nothing of that policy is allowed.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import groupby

from cni.policy.book import faults_of
from cni.policy.labels import Labels, Selector, of_namespace
from cni.policy.model import Allowance, Peers, Port, hosts
from cni.policy.objects import ClusterPolicy, KubeNode, NamedPort, Namespace, NetworkPolicy, Pod, PodPeer, Rule
from cni.policy.peers import together
from cni.values import dataclass

_UNKNOWN = Labels({}, complete=False)
_EVERYBODY = PodPeer(namespaces=Selector())


@dataclass(frozen=True)
class Cluster:
    """What a folder says: objects by kind."""

    policies: tuple[NetworkPolicy, ...] = ()
    pods: tuple[Pod, ...] = ()
    namespaces: tuple[Namespace, ...] = ()
    cluster_policies: tuple[ClusterPolicy, ...] = ()
    nodes: tuple[KubeNode, ...] = ()

    def faults(self, namespace: str = "") -> list[str]:
        """What is wrong with the policies for a namespace, or with all: where, which, the path in it, and what."""
        own = [policy for policy in self.policies if namespace in ("", policy.namespace)]
        return faults_of([*own, *self.cluster_policies])

    def allowances(self, direction: str, pod: str) -> tuple[Allowance, ...] | None:
        """What is let through to (``ingress``) or from (``egress``) ``namespace/name``; None where no policy
        can select it. A pod without an object may have any labels.
        """
        namespace, _, name = pod.partition("/")
        own = next((item for item in self.pods if (item.namespace, item.name) == (namespace, name)), None)
        rules: list[tuple[bool | None, tuple[Rule, ...]]] = [
            (policy.selector.selects(own.labels if own else _UNKNOWN), found)
            for policy in self.policies
            if policy.namespace == namespace and (found := getattr(policy, direction)) is not None
        ]
        if all(selects is False for selects, _ in rules):
            return None
        chosen = [rule for selects, found in rules if selects for rule in found]
        ports = own.ports if own else ()
        allowing = self._into(chosen, namespace, ports) if direction == "ingress" else self._out_of(chosen, namespace)
        return tuple(dict.fromkeys(allowing))

    def _into(self, rules: list[Rule], namespace: str, own: tuple[tuple[NamedPort, int], ...]) -> Iterator[Allowance]:
        """A port's name means what it means in the pod itself."""
        for rule in rules:
            peers, ports = self._peers(rule, namespace), rule.ports
            if ports is not None:
                named = tuple(Port(port.protocol, number, number) for port, number in own if port in ports)
                ports = (*_numbered(rule), *named)
            if peers != () and ports != ():
                yield Allowance(peers, ports)

    def _out_of(self, rules: list[Rule], namespace: str) -> Iterator[Allowance]:
        """A port's name means in each peer what it means there."""
        for rule in rules:
            peers, ports = self._peers(rule, namespace), None if rule.ports is None else _numbered(rule)
            if peers != () and ports != ():
                yield Allowance(peers, ports)
            wanted = [port for port in rule.ports or () if isinstance(port, NamedPort)]
            there = [
                ((port.protocol, number), pod.addresses)
                for pod in (self._pods_of(rule, namespace) if wanted else ())
                for port, number in pod.ports
                if port in wanted and pod.addresses
            ]
            for (protocol, number), group in groupby(sorted(there), lambda item: item[0]):
                found = hosts(address for _, addresses in group for address in addresses)
                yield Allowance(found, (Port(protocol, number, number),))

    def _peers(self, rule: Rule, namespace: str) -> tuple[Peers, ...] | None:
        if rule.peers is None:
            return None
        found = [self._selected(peer, namespace)[1] if isinstance(peer, PodPeer) else peer for peer in rule.peers]
        return together(peers for some in found for peers in some)

    def _pods_of(self, rule: Rule, namespace: str) -> Iterator[Pod]:
        """The pods among a rule's peers; where it has all, all."""
        for peer in (_EVERYBODY,) if rule.peers is None else rule.peers:
            if isinstance(peer, PodPeer):
                yield from self._selected(peer, namespace)[0]

    def _selected(self, peer: PodPeer, namespace: str) -> tuple[tuple[Pod, ...], tuple[Peers, ...]]:
        """The pods a peer is known to select for a policy of a namespace, and their addresses."""
        key = (peer, namespace if peer.namespaces is None else "")
        if key not in self._known:
            pods = tuple(pod for pod in self.pods if self._is(pod, peer, namespace))
            self._known[key] = pods, hosts(address for pod in pods for address in pod.addresses)
        return self._known[key]

    def _is(self, pod: Pod, peer: PodPeer, namespace: str) -> bool:
        near = (
            pod.namespace == namespace
            if peer.namespaces is None
            else peer.namespaces.selects(self._labels_of(pod.namespace))
        )
        return bool(near and peer.pods.selects(pod.labels))

    def _labels_of(self, namespace: str) -> Labels:
        """Of a namespace without an object its name is known."""
        return of_namespace(namespace, self._spaces.get(namespace))

    @cached_property
    def _spaces(self) -> dict[str, Labels]:
        return {item.name: item.labels for item in self.namespaces}

    @cached_property
    def _known(self) -> dict[tuple[PodPeer, str], tuple[tuple[Pod, ...], tuple[Peers, ...]]]:
        return {}


def _numbered(rule: Rule) -> tuple[Port, ...]:
    return tuple(port for port in rule.ports or () if isinstance(port, Port))
