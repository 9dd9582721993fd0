"""Whom an administrator's policies are about, in the order in which they are asked, and what documents are called."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cni.policy.book import Book
from cni.policy.labels import Labels
from cni.policy.model import Port
from cni.policy.objects import ClusterPolicy, ClusterRule, NamedPort, NetworkPolicy, Pod, PodPeer
from cni.values import replace


def subjects(book: Book, tier: str, pod: Pod) -> Iterator[tuple[ClusterPolicy, bool | None]]:
    """The policies of a tier that are or may be about a pod, in the order in which they are asked, each with whether that is known.

    Of one priority the API leaves the order open: here it is that of their names.
    """
    found = (policy for policy in book.cluster_policies() if policy.tier == tier)
    for policy in sorted(found, key=lambda policy: (policy.priority, policy.name)):
        meant = about(policy.subject, pod, book.labels_of)
        if meant is not False:
            yield policy, meant


def about(subject: PodPeer, pod: Pod, labels_of: Callable[[str], Labels]) -> bool | None:
    """Whether a pod is meant, by its own labels and its namespace's; None where that is not known."""
    near = subject.namespaces.selects(labels_of(pod.namespace)) if subject.namespaces else True
    own = subject.pods.selects(pod.labels)
    return False if False in (near, own) else True if near and own else None


def rules_for(policy: ClusterPolicy, direction: str, pod: Pod) -> tuple[ClusterRule, ...]:
    """The rules of a direction as they are for a pod: each port of one that is not known may have a name that is denied."""
    rules: tuple[ClusterRule, ...] = getattr(policy, direction)
    if direction == "egress" or pod.labels.complete:
        return rules
    return tuple(_without_names(rule) if rule.action == "deny" else rule for rule in rules)


def _without_names(rule: ClusterRule) -> ClusterRule:
    ports = rule.ports and tuple(Port(port.protocol) if isinstance(port, NamedPort) else port for port in rule.ports)
    return replace(rule, ports=ports)


def closing(book: Book, direction: str, pod: Pod) -> list[tuple[NetworkPolicy, bool | None]]:
    """The NetworkPolicies that shut a pod in a direction but for what they allow, or may, each with whether it selects the pod;
    None where that is not known.
    """
    judged = (
        (policy, policy.selector.selects(pod.labels))
        for policy in book.policies(pod.namespace)
        if getattr(policy, direction) is not None
    )
    return [(policy, selects) for policy, selects in judged if selects is not False]
