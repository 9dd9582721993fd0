"""Which document decides about a connection, asked of the documents themselves and not of the rules they have become.

One end at a time is judged: what goes out of a pod, or into it. A connection within the cluster needs both.
"""

from __future__ import annotations

import ipaddress

from cni.policy.book import Book
from cni.policy.model import Allowance, Peers, Policy, Port
from cni.policy.objects import ClusterRule, DomainPeer, NamedPort, NodePeer, Pod, PodPeer, Rule, document_of, names_of
from cni.policy.subjects import about, closing, rules_for, subjects
from cni.values import dataclass


@dataclass(frozen=True)
class Other:
    """The far end of a connection, and what it is about: `protocol` as in the model, `port` the destination's.

    `pod` is whose address it is, None where nobody's is known. With a `name` it is what that is resolved to, whichever `address` that
    may be; else `resolved` are the names, each of a rule, of which the judged pod resolved one to the address.
    """

    address: str
    pod: Pod | None
    protocol: str
    port: int
    name: str = ""
    resolved: frozenset[tuple[str, ...]] = frozenset()

    def is_let_through(self, allowance: Allowance) -> bool:
        """Whether a rule of a configuration, or the names of a document's, let a connection through to it."""
        if self.name:
            return allowance.admits(self.name, self.protocol, self.port)
        by_name = allowance.domains in self.resolved and allowance.has_port_by_name(self.protocol, self.port)
        return by_name or allowance.covers(ipaddress.ip_address(self.address), self.protocol, self.port)


@dataclass(frozen=True)
class Judgement:
    """Whether one end lets a connection through; `tier` decides: admin, networkpolicy, baseline, or default;
    or node, where it is the pod's own node that asks.

    `documents` are those that do, `rule` the path in the one of them, if it is a rule's.
    """

    allowed: bool
    tier: str
    documents: tuple[str, ...] = ()
    rule: str = ""

    def __str__(self) -> str:
        verb = "allowed" if self.allowed else "denied"
        if self.tier == "default":
            return f"{verb} by default: nothing is said about it"
        by = ", ".join(self.documents)
        return f"{verb} by {by}{f', {self.rule}' if self.rule else ': no rule allows it'} (tier {self.tier})"


def judged(book: Book, pod: Pod, direction: str, other: Other, section: Policy | None = None) -> Judgement:
    """Who decides about a new connection into (``ingress``) or out of (``egress``) a pod; `section` is what its network's
    configuration says besides. A pod without known labels may have any: what could deny it then does.
    """
    if not other.name and other.address in pod.addresses:
        return Judgement(True, "default")
    end = _End(book, pod, direction, other)
    found = end.by_cluster("admin") or end.by_network_policies(section)
    return found or end.by_cluster("baseline") or Judgement(True, "default")


@dataclass(frozen=True)
class _End:
    """One end of a connection: a pod, and which way it is for it."""

    book: Book
    pod: Pod
    direction: str
    other: Other

    def by_cluster(self, tier: str) -> Judgement | None:
        for policy, known in subjects(self.book, tier, self.pod):
            name = document_of(policy)
            rules = rules_for(policy, self.direction, self.pod)
            if not known and any(rule.action != "accept" for rule in rules):
                return Judgement(False, tier, (name,), f"for nobody knows the labels of {self.pod.name}")
            for number, rule in enumerate(rules if known else ()):
                if self._matches(rule):
                    where = f"{self.direction}[{number}]{f' {rule.name!r}' if rule.name else ''}"
                    return None if rule.action == "pass" else Judgement(rule.action == "accept", tier, (name,), where)
        return None

    def by_network_policies(self, section: Policy | None) -> Judgement | None:
        tier, names = "networkpolicy", []
        for policy, selects in closing(self.book, self.direction, self.pod):
            rules: tuple[Rule, ...] = getattr(policy, self.direction)
            name = document_of(policy)
            names.append(name)
            for number, rule in enumerate(rules if selects else ()):
                if self._matches(rule):
                    return Judgement(True, tier, (name,), f"{self.direction}[{number}]")
        if section is not None and getattr(section, self.direction) is not None:
            names.append("the configuration")
            if any(map(self.other.is_let_through, getattr(section, self.direction))):
                return Judgement(True, tier, ("the configuration",), f"$.policy.{self.direction}")
        return Judgement(False, tier, tuple(names)) if names else None

    def _matches(self, rule: Rule | ClusterRule) -> bool:
        denies = isinstance(rule, ClusterRule) and rule.action == "deny"
        if self._is_by_name(rule):
            return True
        near = None if rule.peers is None else [peer for peer in rule.peers if self._is(peer, denies=denies)]
        if near == []:
            return False
        named = self.pod if self.direction == "ingress" else self.other.pod
        if self.direction == "egress" and near and not any(isinstance(peer, PodPeer) for peer in near):
            named = None  # what is meant by its address alone has no names of ports
        return rule.ports is None or any(self._is_port(port, named, denies=denies) for port in rule.ports)

    def _is_by_name(self, rule: Rule | ClusterRule) -> bool:
        """Whether the other is meant because of a name, which has no ports by name."""
        ports = None if rule.ports is None else tuple(port for port in rule.ports if isinstance(port, Port))
        names = names_of(rule)
        return bool(names) and self.other.is_let_through(Allowance((), ports, domains=names))

    def _is(self, peer: tuple[Peers, ...] | PodPeer | NodePeer | DomainPeer, *, denies: bool) -> bool:
        """Whether the other is meant by its address; of one without an object whoever denies does not go by what nobody knows. What a
        name is resolved to is known to be in blocks of all addresses only.
        """
        if self.other.name or isinstance(peer, DomainPeer):
            return isinstance(peer, tuple) and Allowance(peer).has_everybody
        address, pod = ipaddress.ip_address(self.other.address), self.other.pod
        if isinstance(peer, NodePeer):
            nodes = self.book.nodes()
            return any(str(address) in node.addresses and peer.nodes.selects(node.labels) for node in nodes)
        if not isinstance(peer, PodPeer):
            return Allowance(peer).covers(address, self.other.protocol, self.other.port)
        if pod is None or not (pod.labels.complete or denies):
            return False
        if peer.namespaces is None:
            return pod.namespace == self.pod.namespace and bool(peer.pods.selects(pod.labels))
        meant = about(peer, pod, self.book.labels_of)
        return bool(meant) if pod.labels.complete else meant is not False

    def _is_port(self, port: Port | NamedPort, named: Pod | None, *, denies: bool) -> bool:
        """A port's name means what it means in the pod that is reached."""
        other = self.other
        if isinstance(port, NamedPort) and denies and named is not None and not named.labels.complete:
            return port.protocol == other.protocol
        if isinstance(port, NamedPort):
            return port.protocol == other.protocol and named is not None and (port, other.port) in named.ports
        return port.protocol == other.protocol and (not port.first or port.first <= other.port <= port.last)
