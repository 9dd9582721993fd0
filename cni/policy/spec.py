"""NetworkPolicy objects, read as the API server validates them (networking.k8s.io/v1; pkg/apis/networking/validation).

What is wrong in one part does not take the rest with it: that part lets nothing through, and is named.
"""

from __future__ import annotations

from typing import Any

from cni.errors import InvalidConfig
from cni.policy.fields import choice, fields, known_fields, list_or_fault, listed, number, numbered, readable
from cni.policy.labels import Selector
from cni.policy.model import Peers, Port
from cni.policy.objects import NamedPort, NetworkPolicy, PodPeer, Rule
from cni.policy.peers import block, port_name
from cni.policy.selectors import selector_of, whole_selector

_TOP = ("apiVersion", "kind", "metadata", "spec", "status")
_SPEC = ("podSelector", "ingress", "egress", "policyTypes")
_SIDES = {"ingress": "from", "egress": "to"}
_PROTOCOLS = ("TCP", "UDP", "SCTP")


def network_policy(raw: dict[str, Any], where: str, namespace: str, name: str) -> NetworkPolicy:
    """Read one; what is wrong with it stands in its `faults`, each line begins with its path.

    Where something unknown may have been meant for what is absent, that is not read as absent.
    """
    faults: list[str] = []
    spec = known_fields(known_fields(raw, "", _TOP, faults).get("spec", {}), "spec", _SPEC, faults)
    doubtful = bool(faults)
    selector = Selector(complete=not doubtful)
    if "podSelector" in spec:
        selector = selector_of(spec["podSelector"], "spec.podSelector", faults)
    rules = {side: _rules(spec.get(side), side, faults) for side in _SIDES}
    sure, may_be = _directions(spec, doubtful, faults)
    found = {side: rules[side] if side in sure else () if side in may_be else None for side in _SIDES}
    return NetworkPolicy(namespace, name, selector, found["ingress"], found["egress"], tuple(faults), where)


def _directions(spec: dict[str, Any], doubtful: bool, faults: list[str]) -> tuple[set[str], set[str]]:
    """The directions it is about for sure, and those it may be about: both, where what says so cannot be read."""
    types = list_or_fault(spec.get("policyTypes"), "spec.policyTypes", faults)
    if types is None:
        return set(), set(_SIDES)
    readable(numbered(types, "spec.policyTypes"), lambda item, at: choice(item, at, ("Ingress", "Egress")), faults)
    named = [item.lower() for item in types if isinstance(item, str) and item.lower() in _SIDES]
    sure = set(named) if types else {"ingress", *(["egress"] if spec.get("egress") else [])}
    return sure, set(_SIDES) if len(named) < len(types) or (doubtful and not types) else sure


def _rules(raw: Any, side: str, faults: list[str]) -> tuple[Rule, ...]:
    where = f"spec.{side}"
    rules = list_or_fault(raw, where, faults) or []
    return readable(numbered(rules, where), lambda rule, at: _rule(rule, at, _SIDES[side], faults), faults)


def _rule(raw: Any, where: str, side: str, faults: list[str]) -> Rule:
    """Absent or empty peers are all peers; some, of which none can be read, are none."""
    found = fields(raw, where, (side, "ports"))
    peers, ports = (listed(found.get(key), f"{where}.{key}") for key in (side, "ports"))
    return Rule(
        readable(numbered(peers, f"{where}.{side}"), _peer, faults) if peers else None,
        readable(numbered(ports, f"{where}.ports"), _port, faults) if ports else None,
    )


def _peer(raw: Any, where: str) -> tuple[Peers, ...] | PodPeer:
    found = fields(raw, where, ("ipBlock", "podSelector", "namespaceSelector"))
    if not found:
        raise InvalidConfig(f"{where}: a peer has ipBlock, podSelector or namespaceSelector")
    if "ipBlock" in found:
        if len(found) > 1:
            raise InvalidConfig(f"{where}: a peer with ipBlock has nothing else")
        span = fields(found["ipBlock"], f"{where}.ipBlock", ("cidr", "except"))
        return block(span.get("cidr"), listed(span.get("except"), f"{where}.ipBlock.except"), f"{where}.ipBlock")
    chosen = {key: whole_selector(value, f"{where}.{key}") for key, value in found.items()}
    return PodPeer(chosen.get("podSelector", Selector()), chosen.get("namespaceSelector"))


def _port(raw: Any, where: str) -> Port | NamedPort:
    found = fields(raw, where, ("protocol", "port", "endPort"))
    protocol = choice(found.get("protocol", "TCP"), f"{where}.protocol", _PROTOCOLS).lower()
    port, end = found.get("port"), found.get("endPort")
    if "endPort" in found and not isinstance(port, int):
        raise InvalidConfig(f"{where}.endPort: needs a port that is a number")
    if isinstance(port, str):
        return NamedPort(protocol, port_name(port, f"{where}.port"))
    first = 0 if port is None else number(port, f"{where}.port")
    last = first if end is None else number(end, f"{where}.endPort")
    if last < first:
        raise InvalidConfig(f"{where}.endPort: {last} is less than port {first}")
    return Port(protocol, first, last)
