"""NetworkPolicies as a policy for one pod (Kubernetes API reference, networking.k8s.io/v1).

Policies add up. A pod that a policy of a direction selects is shut in that direction but for what any of them
allows. Where it is not known whether one selects it, it is shut likewise, and nothing of that policy is allowed.

Pods among the peers stay a selection here; which they are is the sets' to know.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cni.policy.book import Book
from cni.policy.labels import Selector
from cni.policy.model import Allowance, Peers, Port, Ruling, Tier, hosts
from cni.policy.objects import (
    ClusterRule,
    DomainPeer,
    NamedPort,
    NodePeer,
    Pod,
    PodPeer,
    Rule,
    document_of,
    names_of,
    unknown,
)
from cni.policy.peers import together
from cni.policy.selection import Selection
from cni.policy.subjects import closing, rules_for, subjects
from cni.values import replace

_EVERYBODY = PodPeer(namespaces=Selector())


def allowances(book: Book, direction: str, pod: str) -> tuple[Allowance, ...] | None:
    """What is let through to (``ingress``) or from (``egress``) ``namespace/name``; None where no policy
    can select it. A pod without an object may have any labels.
    """
    own = _known(book, pod)
    about = closing(book, direction, own)
    if not about:
        return None
    allowing = (
        replace(item, document=document_of(policy))
        for policy, selects in about
        if selects
        for rule in getattr(policy, direction)
        for item in _matching(rule, direction, book.feed, own)
    )
    return tuple(dict.fromkeys(allowing))


def closers(book: Book, direction: str, pod: str) -> str:
    """The documents that shut ``namespace/name`` in a direction but for what they allow, or may; nothing where none can."""
    names = [f"{policy.namespace}/{policy.name}" for policy, _ in closing(book, direction, _known(book, pod))]
    return f"NetworkPolicy {', '.join(sorted(names))}" if names else ""


def tier(book: Book, name: str, pod: str) -> Tier:
    """What the administrators' policies of a tier (``admin``, ``baseline``) say of ``namespace/name``.

    Of one that may be about it nobody knows which of its rulings hold: it denies all that it may have denied, or passed on. Of a pod
    without an object each port may have the name of one that is denied.
    """
    own = _known(book, pod)
    found: dict[str, list[Ruling]] = {"ingress": [], "egress": []}
    for policy, known in subjects(book, name, own):
        document = document_of(policy)
        for direction, rulings in found.items():
            rules = rules_for(policy, direction, own)
            if not known and any(rule.action != "accept" for rule in rules):
                rulings.append(Ruling("deny", Allowance(document=document)))
            rulings += [
                Ruling(rule.action, replace(item, document=document))
                for rule in (rules if known else ())
                for match in _matching(_of_today(rule, book), direction, book.feed, own)
                for item in (_doubtful(match) if rule.action == "deny" else (match,))
            ]
    return Tier(tuple(found["ingress"]), tuple(found["egress"]))


def _known(book: Book, pod: str) -> Pod:
    """``namespace/name`` as far as it is known."""
    namespace, _, name = pod.partition("/")
    return book.pod(namespace, name) or unknown(namespace, name)


def _of_today(rule: ClusterRule, book: Book) -> Rule:
    """A rule with the nodes it means by their addresses."""
    if rule.peers is None:
        return Rule(None, rule.ports)
    peers = tuple(_addresses(peer, book) if isinstance(peer, NodePeer) else peer for peer in rule.peers)
    return Rule(peers, rule.ports)


def _addresses(peer: NodePeer, book: Book) -> tuple[Peers, ...]:
    return hosts(text for node in book.nodes() if peer.nodes.selects(node.labels) for text in node.addresses)


def _matching(rule: Rule, direction: str, feed: str, own: Pod) -> Iterator[Allowance]:
    """What a rule means: a port's name means what it means in the pod that is reached."""
    if direction == "ingress":
        return _into(rule, feed, own.namespace, own.ports)
    return _out_of(rule, feed, own.namespace)


def _doubtful(match: Allowance) -> Iterator[Allowance]:
    """What is denied, and pods without an object with it: each port of theirs may have the name of one that is."""
    yield replace(match, selections=tuple(replace(item, doubt="too") for item in match.selections))
    for item in match.selections:
        if item.port:
            yield Allowance((), (Port(item.port.protocol),), (replace(item, port=None, doubt="only"),))


def _into(rule: Rule, feed: str, namespace: str, own: tuple[tuple[NamedPort, int], ...]) -> Iterator[Allowance]:
    ports = rule.ports
    if ports is not None:
        named = tuple(Port(port.protocol, number, number) for port, number in own if port in ports)
        ports = (*_numbered(rule), *named)
    return _allowing(rule, ports, feed, namespace)


def _out_of(rule: Rule, feed: str, namespace: str) -> Iterator[Allowance]:
    """Where a rule has all peers, a port's name means it in all pods."""
    yield from _allowing(rule, None if rule.ports is None else _numbered(rule), feed, namespace)
    wanted = [port for port in rule.ports or () if isinstance(port, NamedPort)]
    peers = (_EVERYBODY,) if rule.peers is None else rule.peers
    selected = tuple(selection for port in wanted for selection in _selected(peers, feed, namespace, port))
    if selected:
        yield Allowance((), None, selected)


def _allowing(rule: Rule, ports: tuple[Port, ...] | None, feed: str, namespace: str) -> Iterator[Allowance]:
    """What a rule lets through on ports that are numbers; nothing without peers or ports."""
    peers = None if rule.peers is None else _blocks(rule.peers)
    selected, names = tuple(_selected(rule.peers or (), feed, namespace)), names_of(rule)
    if (peers != () or selected or names) and ports != ():
        yield Allowance(peers, ports, selected, domains=names)


def _blocks(peers: Iterable[tuple[Peers, ...] | PodPeer | DomainPeer]) -> tuple[Peers, ...]:
    return together(block for peer in peers if isinstance(peer, tuple) for block in peer)


def _selected(
    peers: Iterable[tuple[Peers, ...] | PodPeer | DomainPeer], feed: str, namespace: str, port: NamedPort | None = None
) -> Iterator[Selection]:
    for peer in peers:
        if isinstance(peer, PodPeer):
            yield Selection(feed, namespace if peer.namespaces is None else "", peer.namespaces, peer.pods, port)


def _numbered(rule: Rule) -> tuple[Port, ...]:
    return tuple(port for port in rule.ports or () if isinstance(port, Port))
