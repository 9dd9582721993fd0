"""ClusterNetworkPolicy objects, read as their CRD's schema says (policy.networking.k8s.io/v1beta1 of
sigs.k8s.io/network-policy-api v0.3.0), and what they were called before: AdminNetworkPolicy and BaselineAdminNetworkPolicy
(v1alpha1), whose paths in a fault are those of today's form.

What cannot be read fails closed, as the API asks of peers: an Accept of it matches nothing, a Deny or Pass is a Deny of all.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from cni.errors import InvalidConfig
from cni.policy.domains import ascii_pattern
from cni.policy.domains import together as in_order
from cni.policy.fields import (
    choice,
    fields,
    known_fields,
    list_or_fault,
    listed,
    number,
    numbered,
    readable,
    shown,
    text,
)
from cni.policy.labels import Selector
from cni.policy.model import Peers, Port
from cni.policy.objects import ClusterPolicy, ClusterRule, DomainPeer, NamedPort, NodePeer, PodPeer
from cni.policy.peers import block, port_name, together
from cni.policy.selectors import selector_of, whole_selector

_TOP = ("apiVersion", "kind", "metadata", "spec", "status")
_SPEC = ("tier", "priority", "subject", "ingress", "egress")
_SIDES = {"ingress": "from", "egress": "to"}
_ACTIONS = {"Accept": "accept", "Deny": "deny", "Pass": "pass"}
_PROTOCOLS = ("tcp", "udp", "sctp")
_FROM = ("namespaces", "pods")
_TO = (*_FROM, "nodes", "networks")
_POD_PEER = ("podSelector", "namespaceSelector")
_LAST, _MOST, _MOST_BEFORE, _LONGEST_NAME = 1000, 25, 100, 100

T = TypeVar("T")
_Peer = tuple[Peers, ...] | PodPeer | NodePeer | DomainPeer


class _Way(NamedTuple):
    """Where a direction's rules have their peers, and whether an Accept may have names among them."""

    side: str
    names: bool


def cluster_network_policy(raw: dict[str, Any], where: str, _: str, name: str) -> ClusterPolicy:
    """Read one; what is wrong with it stands in its `faults`, each line begins with its path."""
    return _read(raw, where, name, _MOST, [])


def admin_network_policy(raw: dict[str, Any], where: str, _: str, name: str) -> ClusterPolicy:
    """Read one as the ClusterNetworkPolicy of the admin tier that it has become."""
    return _read(_of_today(raw, "Admin"), where, name, _MOST_BEFORE, [])


def baseline_admin_network_policy(raw: dict[str, Any], where: str, _: str, name: str) -> ClusterPolicy:
    """Read one as the ClusterNetworkPolicy of the baseline tier that it has become; only one, called `default`, is valid."""
    faults = [] if name == "default" else [f"metadata.name: {shown(name)} is not 'default'"]
    return _read(_of_today(raw, "Baseline"), where, name, _MOST_BEFORE, faults)


def _read(raw: dict[str, Any], where: str, name: str, most: int, faults: list[str]) -> ClusterPolicy:
    spec = known_fields(known_fields(raw, "", _TOP, faults).get("spec"), "spec", _SPEC, faults)
    doubtful = bool(faults)
    tier = readable([("spec.tier", spec.get("tier"))], lambda item, at: choice(item, at, ("Admin", "Baseline")), faults)
    priority = readable([("spec.priority", spec.get("priority"))], _priority, faults)
    subject = _subject(spec.get("subject"), faults)
    rules = {side: _rules(spec, side, most, faults, names=tier == ("Admin",)) for side in _SIDES}
    if doubtful or not (tier and priority):
        # nobody knows when it is asked: it denies before all others, and accepts after them
        rules = {side: tuple(item for item in found if item.action != "accept") for side, found in rules.items()}
        tier, priority = ("Admin",), (-1,)
    return ClusterPolicy(
        tier[0].lower(), priority[0], name, subject, rules["ingress"], rules["egress"], tuple(faults), where
    )


def _priority(raw: Any, where: str) -> int:
    if type(raw) is not int or not 0 <= raw <= _LAST:
        raise InvalidConfig(f"{where}: {shown(raw)} is no number from 0 to {_LAST}")
    return raw


def _subject(raw: Any, faults: list[str]) -> PodPeer:
    """What it applies to; what of it cannot be read may be anybody."""
    before = len(faults)
    found = known_fields(raw, "spec.subject", ("namespaces", "pods"), faults)
    if len(found) == 1 and "pods" in found:
        pods = {"namespaceSelector": {}, **known_fields(found["pods"], "spec.subject.pods", _POD_PEER, faults)}
        return PodPeer(*(selector_of(pods.get(key), f"spec.subject.pods.{key}", faults) for key in _POD_PEER))
    if len(found) == 1:
        return PodPeer(Selector(), selector_of(found["namespaces"], "spec.subject.namespaces", faults))
    if len(faults) == before:
        faults.append("spec.subject: has either namespaces or pods")
    unknown = Selector(complete=False)
    return PodPeer(unknown, unknown)


def _rules(spec: Mapping[str, Any], side: str, most: int, faults: list[str], *, names: bool) -> tuple[ClusterRule, ...]:
    where = f"spec.{side}"
    raw = list_or_fault(spec.get(side), where, faults)
    if raw is None:
        return (_SHUT,)
    if len(raw) > most:
        faults.append(f"{where}: {len(raw)} rules, of at most {most}")
    way = _Way(_SIDES[side], names)
    return tuple(_rule(item, at, way, most, faults) for at, item in numbered(raw, where))


def _rule(raw: Any, where: str, way: _Way, most: int, faults: list[str]) -> ClusterRule:
    own: list[str] = []
    found = known_fields(raw, where, ("name", "action", way.side, "protocols"), own)
    named = readable([(f"{where}.name", found.get("name", ""))], _name, own) if not own else ()
    doubtful = bool(own)
    action = readable([(f"{where}.action", found.get("action"))], lambda item, at: choice(item, at, _ACTIONS), own)
    readers = _PEERS if way.names and action == ("Accept",) else _NAMELESS_PEERS
    peers = _some(found.get(way.side), f"{where}.{way.side}", most, readers[way.side], own)
    ports = None
    if "protocols" in found:
        ports = tuple(
            port for some in _some(found["protocols"], f"{where}.protocols", most, _ports, own) for port in some
        )
    if any(isinstance(port, NamedPort) for port in ports or ()) and not all(
        isinstance(peer, PodPeer) for peer in peers
    ):
        own.append(f"{where}.protocols: only pods have named ports")
        doubtful = True
    faults += own
    if action == ("Accept",):
        return ClusterRule("accept", () if doubtful else peers, ports, "".join(named))
    return _SHUT if own else ClusterRule(_ACTIONS[action[0]], peers, ports, "".join(named))


def _some(raw: Any, where: str, most: int, read: Callable[[Any, str], T], faults: list[str]) -> tuple[T, ...]:
    """What can be read of a list that has at least one item."""
    items = list_or_fault(raw, where, faults)
    if items is not None and not 0 < len(items) <= most:
        faults.append(f"{where}: {len(items)} items, of at least 1 and at most {most}")
    return readable(numbered(items or (), where), read, faults)


def _name(raw: Any, where: str) -> str:
    if len(text(raw, where)) > _LONGEST_NAME:
        raise InvalidConfig(f"{where}: longer than {_LONGEST_NAME} characters")
    return str(raw)


def _ingress_peer(raw: Any, where: str) -> _Peer:
    return _peer(raw, where, _FROM)


def _egress_peer(raw: Any, where: str) -> _Peer:
    return _peer(raw, where, (*_TO, "domainNames"))


def _nameless_peer(raw: Any, where: str) -> _Peer:
    if isinstance(raw, dict) and raw.get("domainNames") is not None:
        raise InvalidConfig(f"{where}.domainNames: only an Accept of the Admin tier may have names")
    return _peer(raw, where, _TO)


def _peer(raw: Any, where: str, known: tuple[str, ...]) -> _Peer:
    found = fields(raw, where, known)
    if len(found) != 1:
        raise InvalidConfig(f"{where}: a peer has one of {', '.join(known)}")
    ((kind, value),) = found.items()
    at = f"{where}.{kind}"
    if kind == "namespaces":
        return PodPeer(Selector(), whole_selector(value, at))
    if kind == "nodes":
        return NodePeer(whole_selector(value, at))
    if kind == "networks":
        return _networks(value, at)
    if kind == "domainNames":
        names = _few(value, at)
        return DomainPeer(in_order(ascii_pattern(item, place) for place, item in numbered(names, at)))
    pods = {"namespaceSelector": {}, **fields(value, at, _POD_PEER)}
    return PodPeer(*(whole_selector(pods.get(key), f"{at}.{key}") for key in _POD_PEER))


def _networks(raw: Any, where: str) -> tuple[Peers, ...]:
    return together(peers for at, item in numbered(_few(raw, where), where) for peers in _network(item, at))


def _few(raw: Any, where: str) -> list[Any]:
    items = listed(raw, where)
    if not 0 < len(items) <= _MOST:
        raise InvalidConfig(f"{where}: {len(items)} items, of at least 1 and at most {_MOST}")
    return items


def _network(raw: Any, where: str) -> tuple[Peers, ...]:
    """Unlike an ipBlock it has no host bits."""
    found = block(raw, (), where)
    if str(ipaddress.ip_interface(raw).ip) != str(ipaddress.ip_interface(raw).network.network_address):
        raise InvalidConfig(f"{where}: {shown(raw)} has bits behind its prefix")
    return found


def _ports(raw: Any, where: str) -> tuple[Port | NamedPort, ...]:
    """The ports of one entry; a name is one of whatever protocol."""
    found = fields(raw, where, (*_PROTOCOLS, "destinationNamedPort"))
    if len(found) != 1:
        raise InvalidConfig(f"{where}: has one of {', '.join((*_PROTOCOLS, 'destinationNamedPort'))}")
    ((kind, value),) = found.items()
    at = f"{where}.{kind}"
    if kind == "destinationNamedPort":
        return tuple(NamedPort(protocol, port_name(value, at)) for protocol in _PROTOCOLS)
    port = fields(
        fields(value, at, ("destinationPort",)).get("destinationPort"), f"{at}.destinationPort", ("number", "range")
    )
    if len(port) != 1:
        raise InvalidConfig(f"{at}.destinationPort: has either number or range")
    if "number" in port:
        only = number(port["number"], f"{at}.destinationPort.number")
        return (Port(kind, only, only),)
    span = fields(port["range"], f"{at}.destinationPort.range", ("start", "end"))
    first, last = (number(span.get(key), f"{at}.destinationPort.range.{key}") for key in ("start", "end"))
    if first >= last:
        raise InvalidConfig(f"{at}.destinationPort.range: start {first} is not less than end {last}")
    return (Port(kind, first, last),)


_SHUT = ClusterRule("deny", None)
_PEERS: dict[str, Callable[[Any, str], _Peer]] = {"from": _ingress_peer, "to": _egress_peer}
_NAMELESS_PEERS = _PEERS | {"to": _nameless_peer}


def _of_today(raw: dict[str, Any], tier: str) -> dict[str, Any]:
    """An object of v1alpha1 in the form of v1beta1; what it does not know is left as it is."""
    spec = raw.get("spec")
    if not isinstance(spec, dict):
        return raw
    changed = {"tier": tier, **({"priority": 0} if tier == "Baseline" else {}), **spec}
    for side in _SIDES:
        if isinstance(spec.get(side), list):
            changed[side] = [_rule_of_today(item) for item in spec[side]]
    return {**raw, "spec": changed}


def _rule_of_today(rule: Any) -> Any:
    if not isinstance(rule, dict):
        return rule
    changed = {key: value for key, value in rule.items() if key != "ports"}
    if rule.get("action") == "Allow":
        changed["action"] = "Accept"
    if rule.get("ports") is not None:
        ports = rule["ports"]
        changed["protocols"] = [_port_of_today(item) for item in ports] if isinstance(ports, list) else ports
    return changed


def _port_of_today(port: Any) -> Any:
    if not isinstance(port, dict) or len(port) != 1:
        return port
    ((kind, value),) = port.items()
    if kind == "namedPort":
        return {"destinationNamedPort": value}
    if kind not in ("portNumber", "portRange") or not isinstance(value, dict):
        return port
    rest = {key: item for key, item in value.items() if key != "protocol"}
    protocol = value.get("protocol") or "TCP"
    if kind == "portNumber":
        rest = {{"port": "number"}.get(key, key): item for key, item in rest.items()}
    wanted = rest if kind == "portNumber" else {"range": rest}
    return {protocol.lower() if protocol in ("TCP", "UDP", "SCTP") else str(protocol): {"destinationPort": wanted}}
