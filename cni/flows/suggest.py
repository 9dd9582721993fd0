"""The rules that would have allowed just what was seen of a pod: in the configuration's language, and in Kubernetes'."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from cni.flows.seen import Flow
from cni.flows.sighting import Sighting

#: The labels of a pod by its name, ``namespace/name``; None where nobody knows them, or not all of them.
LabelsOf = Callable[[str], Mapping[str, str] | None]
Document = dict[str, Any]

_WITH_PORTS, _WITHOUT = ("tcp", "udp", "sctp"), "icmp"
_SIDES = {"egress": "to", "ingress": "from"}
_NAMESPACE = "kubernetes.io/metadata.name"
_POLICY, _PRIORITY = "policy.networking.k8s.io", 1000
#: What tells replicas of one thing apart, and would have a rule mean one of them, or one of yesterday's.
_OF_ONE = (
    "pod-template-hash", "controller-revision-hash", "pod-template-generation", "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index", "batch.kubernetes.io/controller-uid", "controller-uid", "batch.kubernetes.io/job-completion-index",
)  # fmt: skip


class Port(NamedTuple):
    """A protocol and its port, 0 for one that has none."""

    protocol: str
    number: int


class End(NamedTuple):
    """A peer: names by which it was resolved, or its address and the pod that has it, if one is known."""

    names: tuple[str, ...]
    pod: str
    address: str


class Rule(NamedTuple):
    """Peers, and the ports on each of which each of them was seen."""

    names: tuple[str, ...]
    ends: tuple[End, ...]
    ports: tuple[Port, ...]


def unspoken(found: Iterable[Flow]) -> list[str]:
    """What no rule can speak of, a line each: protocols that are known by their number alone."""
    lines = (f"{flow.seen.address}, protocol {flow.seen.protocol}" for flow in found if not _is_spoken(flow.seen))
    return sorted(set(lines))


def configuration(found: Iterable[Flow]) -> Document:
    """A `policy` section that lets through what was seen of one pod, and nothing else; whom it sees by an address, it says by that."""
    flows = list(found)
    return {direction: [_said(rule, side) for rule in rules(flows, direction)] for direction, side in _SIDES.items()}


def rules(found: Iterable[Flow], direction: str) -> Iterator[Rule]:
    """What was seen in a direction, peers with equal ports together."""
    by_end: dict[End, set[Port]] = {}
    for flow in found:
        if flow.seen.direction == direction and _is_spoken(flow.seen):
            by_end.setdefault(_end(flow.seen), set()).add(_port(flow.seen))
    by_ports: dict[tuple[Port, ...], list[End]] = {}
    for end, ports in by_end.items():
        by_ports.setdefault(tuple(sorted(ports)), []).append(end)
    for among, ends in sorted(by_ports.items()):
        names = sorted({name for end in ends for name in end.names})
        yield Rule(tuple(names), tuple(sorted(end for end in ends if not end.names)), among)


def documents(pod: str, found: Iterable[Flow], labels_of: LabelsOf) -> tuple[list[Document], list[str]]:
    """A NetworkPolicy that lets through what was seen of a pod, and where some was seen by names a ClusterNetworkPolicy for those; and a
    line for whatever neither can say. Pods are meant by their labels where those are known, and else by their addresses.

    ValueError where the pod itself cannot be meant.
    """
    flows = list(found)
    namespace, _, name = pod.partition("/")
    own = _telling(labels_of(pod))
    if not own or not name:
        raise ValueError(f"{pod or 'a pod without a name'} has no labels that are known and tell it from others")
    every = {direction: list(rules(flows, direction)) for direction in _SIDES}
    spec: Document = {"podSelector": {"matchLabels": own}, "policyTypes": ["Ingress", "Egress"]}
    for direction, side in _SIDES.items():
        spec[direction] = [
            {side: _distinct(_peer(end, namespace, labels_of) for end in rule.ends), "ports": ports}
            for rule in every[direction]
            if rule.ends and (ports := [_named(port) for port in rule.ports if port.number])
        ]
    called = {"namespace": namespace, "name": f"seen-{name}"}
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": called, "spec": spec}
    pinged = {
        other
        for rule in (*every["egress"], *every["ingress"])
        if Port(_WITHOUT, 0) in rule.ports
        for other in (*rule.names, *(end.pod or end.address for end in rule.ends))
    }
    return [policy, *_by_names(namespace, name, own, every["egress"])], [
        *(f"{other}, protocol icmp" for other in sorted(pinged)),
        *unspoken(flows),
    ]


def spelled(documents: Iterable[Document]) -> str:
    """Documents as YAML."""
    return "---\n".join("\n".join(_yaml(document)) + "\n" for document in documents)


def _is_spoken(seen: Sighting) -> bool:
    return seen.protocol in (*_WITH_PORTS, _WITHOUT) and bool(seen.port or seen.protocol == _WITHOUT)


def _end(seen: Sighting) -> End:
    """A pod is meant as one, however its address was found."""
    if seen.names and not seen.peer and seen.direction == "egress":
        return End(seen.names, "", "")
    return End((), seen.peer, seen.address)


def _port(seen: Sighting) -> Port:
    return Port(seen.protocol, seen.port if seen.protocol in _WITH_PORTS else 0)


def _said(rule: Rule, side: str) -> Document:
    peers: list[Document] = [{"domainNames": list(rule.names)}] if rule.names else []
    peers += _distinct(_block(end.address) for end in rule.ends)
    return {side: peers, "ports": [_named(port) for port in rule.ports]}


def _named(port: Port) -> Document:
    return {"protocol": port.protocol.upper()} | ({"port": port.number} if port.number else {})


def _block(address: str) -> Document:
    return {"ipBlock": {"cidr": f"{address}/{ipaddress.ip_address(address).max_prefixlen}"}}


def _peer(end: End, namespace: str, labels_of: LabelsOf) -> Document:
    """A pod by its labels, in another namespace with that."""
    labels = _telling(labels_of(end.pod)) if end.pod else {}
    if not labels:
        return _block(end.address)
    there = end.pod.partition("/")[0]
    elsewhere = {} if there == namespace else {"namespaceSelector": {"matchLabels": {_NAMESPACE: there}}}
    return {"podSelector": {"matchLabels": labels}, **elsewhere}


def _telling(labels: Mapping[str, str] | None) -> dict[str, str]:
    return {name: value for name, value in (labels or {}).items() if name not in _OF_ONE}


def _by_names(namespace: str, name: str, own: Mapping[str, str], found: Iterable[Rule]) -> Iterator[Document]:
    """A ClusterNetworkPolicy of what was resolved: a NetworkPolicy knows no names."""
    egress = [
        {"action": "Accept", "to": [{"domainNames": list(rule.names)}], "protocols": protocols}
        for rule in found
        if rule.names
        and (
            protocols := [
                {port.protocol: {"destinationPort": {"number": port.number}}} for port in rule.ports if port.number
            ]
        )
    ]
    if egress:
        pods = {
            "namespaceSelector": {"matchLabels": {_NAMESPACE: namespace}},
            "podSelector": {"matchLabels": dict(own)},
        }
        spec = {"tier": "Admin", "priority": _PRIORITY, "subject": {"pods": pods}, "egress": egress}
        metadata = {"name": f"seen-{namespace}-{name}"}
        yield {"apiVersion": f"{_POLICY}/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": metadata, "spec": spec}


def _distinct(peers: Iterable[Document]) -> list[Document]:
    return list({str(peer): peer for peer in peers}.values())


def _yaml(value: Document | list[Any], indent: str = "") -> Iterator[str]:
    """Lines of a document of objects, lists and scalars, which are quoted as JSON where they are texts: YAML reads that as we mean it."""
    items = value.items() if isinstance(value, dict) else [("", inner) for inner in value]
    for key, inner in items:
        head = f"{json.dumps(key) if '/' in key else key}:" if key else "-"
        if not (isinstance(inner, dict | list) and inner):
            yield f"{indent}{head} {json.dumps(inner)}"
            continue
        first, *rest = _yaml(inner, f"{indent}  ")
        yield from [f"{indent}- {first.strip()}"] if not key else [f"{indent}{head}", first]
        yield from rest
