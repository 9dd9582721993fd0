"""NetworkPolicies as a policy for one pod (Kubernetes API reference, networking.k8s.io/v1).

Policies add up. A pod that a policy of a direction selects is shut in that direction but for what any of them
allows. Where it is not known whether one selects it, it is shut likewise, and nothing of that policy is allowed.

Pods among the peers stay a selection here; which they are is the sets' to know.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cni.policy.book import Book
from cni.policy.labels import Labels, Selector
from cni.policy.model import Allowance, Peers, Port
from cni.policy.objects import NamedPort, PodPeer, Rule
from cni.policy.peers import together
from cni.policy.selection import Selection

_UNKNOWN = Labels({}, complete=False)
_EVERYBODY = PodPeer(namespaces=Selector())


def allowances(book: Book, direction: str, pod: str) -> tuple[Allowance, ...] | None:
    """What is let through to (``ingress``) or from (``egress``) ``namespace/name``; None where no policy
    can select it. A pod without an object may have any labels.
    """
    namespace, _, name = pod.partition("/")
    own = book.pod(namespace, name)
    rules: list[tuple[bool | None, tuple[Rule, ...]]] = [
        (policy.selector.selects(own.labels if own else _UNKNOWN), found)
        for policy in book.policies(namespace)
        if (found := getattr(policy, direction)) is not None
    ]
    if all(selects is False for selects, _ in rules):
        return None
    chosen = [rule for selects, found in rules if selects for rule in found]
    if direction == "ingress":
        allowing = _into(chosen, book.feed, namespace, own.ports if own else ())
    else:
        allowing = _out_of(chosen, book.feed, namespace)
    return tuple(dict.fromkeys(allowing))


def _into(rules: list[Rule], feed: str, namespace: str, own: tuple[tuple[NamedPort, int], ...]) -> Iterator[Allowance]:
    """A port's name means what it means in the pod itself."""
    for rule in rules:
        ports = rule.ports
        if ports is not None:
            named = tuple(Port(port.protocol, number, number) for port, number in own if port in ports)
            ports = (*_numbered(rule), *named)
        yield from _allowing(rule, ports, feed, namespace)


def _out_of(rules: list[Rule], feed: str, namespace: str) -> Iterator[Allowance]:
    """A port's name means in each peer what it means there; where a rule has all peers, in all pods."""
    for rule in rules:
        yield from _allowing(rule, None if rule.ports is None else _numbered(rule), feed, namespace)
        wanted = [port for port in rule.ports or () if isinstance(port, NamedPort)]
        peers = (_EVERYBODY,) if rule.peers is None else rule.peers
        selected = tuple(selection for port in wanted for selection in _selected(peers, feed, namespace, port))
        if selected:
            yield Allowance((), None, selected)


def _allowing(rule: Rule, ports: tuple[Port, ...] | None, feed: str, namespace: str) -> Iterator[Allowance]:
    """What a rule lets through on ports that are numbers; nothing without peers or ports."""
    peers = None if rule.peers is None else _blocks(rule.peers)
    selected = tuple(_selected(rule.peers or (), feed, namespace))
    if (peers != () or selected) and ports != ():
        yield Allowance(peers, ports, selected)


def _blocks(peers: Iterable[tuple[Peers, ...] | PodPeer]) -> tuple[Peers, ...]:
    return together(block for peer in peers if not isinstance(peer, PodPeer) for block in peer)


def _selected(
    peers: Iterable[tuple[Peers, ...] | PodPeer], feed: str, namespace: str, port: NamedPort | None = None
) -> Iterator[Selection]:
    for peer in peers:
        if isinstance(peer, PodPeer):
            yield Selection(feed, namespace if peer.namespaces is None else "", peer.namespaces, peer.pods, port)


def _numbered(rule: Rule) -> tuple[Port, ...]:
    return tuple(port for port in rule.ports or () if isinstance(port, Port))
