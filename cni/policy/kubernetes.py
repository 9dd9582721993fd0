"""NetworkPolicy objects as a policy for one pod (Kubernetes API reference, networking.k8s.io/v1).

Policies add up. A pod that a policy of a direction selects is shut in that direction but for what any of them
allows. Objects are plain mappings as their YAML has them; pods and namespaces are known from the same folder.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cni.errors import InvalidConfig
from cni.policy.model import Allowance, Peers, hosts
from cni.policy.peers import ports_of, spans_of

Object = Mapping[str, Any]

#: Every namespace has its name as a label (Kubernetes, "Automatic labelling").
_NAME_LABEL = "kubernetes.io/metadata.name"
_DONE = ("Succeeded", "Failed")


@dataclass(frozen=True)
class Cluster:
    """What a folder says: NetworkPolicy, Pod and Namespace objects."""

    policies: tuple[Object, ...] = ()
    pods: tuple[Object, ...] = ()
    namespaces: tuple[Object, ...] = ()

    def allowances(self, direction: str, pod: str) -> tuple[Allowance, ...] | None:
        """What is let through to (``ingress``) or from (``egress``) ``namespace/name``; None where no policy
        selects it. Raises InvalidConfig naming the policy for what cannot be resolved.
        """
        namespace, _, name = pod.partition("/")
        labels = next((_labels(item) for item in self.pods if _place(item) == (namespace, name)), {})
        selecting = [item for item in self.policies if self._selects(item, direction, namespace, labels)]
        if not selecting:
            return None
        return tuple(found for policy in selecting for found in self._rules(policy, direction))

    def _selects(self, policy: Object, direction: str, namespace: str, labels: Object) -> bool:
        spec = policy.get("spec") or {}
        here = _place(policy)[0] == namespace and matches(spec.get("podSelector"), labels)
        types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]
        return here and direction.capitalize() in types

    def _rules(self, policy: Object, direction: str) -> Iterator[Allowance]:
        namespace, name = _place(policy)
        side = "from" if direction == "ingress" else "to"
        for at, rule in enumerate((policy.get("spec") or {}).get(direction) or ()):
            where = f"NetworkPolicy {namespace}/{name}: spec.{direction}[{at}]"
            try:
                yield self._allowance(rule, side, namespace, where)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise InvalidConfig(f"{where}: {error!r}") from None

    def _allowance(self, rule: Object, side: str, namespace: str, where: str) -> Allowance:
        listed = rule.get(side) or ()
        peers = tuple(found for peer in listed for found in self._peers(peer, namespace, where)) if listed else None
        return Allowance(peers, ports_of(rule.get("ports") or (), where))

    def _peers(self, peer: Object, namespace: str, where: str) -> tuple[Peers, ...]:
        if "ipBlock" in peer:
            return spans_of([peer["ipBlock"]], where)
        if not {"podSelector", "namespaceSelector"} & peer.keys():
            raise InvalidConfig(f"{where}: a peer has ipBlock, podSelector or namespaceSelector")
        return hosts(address for pod in self.pods if self._is(pod, peer, namespace) for address in _addresses(pod))

    def _is(self, pod: Object, peer: Object, namespace: str) -> bool:
        home = _place(pod)[0]
        near = (
            matches(peer["namespaceSelector"], self._namespace(home))
            if "namespaceSelector" in peer
            else home == namespace
        )
        return near and matches(peer.get("podSelector"), _labels(pod))

    def _namespace(self, name: str) -> Object:
        found = next(
            (_labels(item) for item in self.namespaces if (item.get("metadata") or {}).get("name") == name), {}
        )
        return {_NAME_LABEL: name} | dict(found)


def matches(selector: Object | None, labels: Object) -> bool:
    """Whether a label selector selects; an empty one selects everything. Raises ValueError for an operator it lacks."""
    wanted = selector or {}
    equal = all(labels.get(key) == value for key, value in (wanted.get("matchLabels") or {}).items())
    return equal and all(_holds(item, labels) for item in wanted.get("matchExpressions") or ())


def _holds(expression: Object, labels: Object) -> bool:
    key, values = expression["key"], expression.get("values") or ()
    tests = {
        "In": labels.get(key) in values and key in labels,
        "NotIn": labels.get(key) not in values or key not in labels,
        "Exists": key in labels,
        "DoesNotExist": key not in labels,
    }
    if expression["operator"] not in tests:
        raise ValueError(f"operator {expression['operator']!r} is none of {', '.join(tests)}")
    return tests[expression["operator"]]


def _place(item: Object) -> tuple[str, str]:
    metadata = item.get("metadata") or {}
    return metadata.get("namespace") or "default", metadata.get("name") or ""


def _labels(item: Object) -> Object:
    return (item.get("metadata") or {}).get("labels") or {}


def _addresses(pod: Object) -> Iterator[str]:
    """A running pod's own addresses; one in the host's network has none of its own."""
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    if not spec.get("hostNetwork") and status.get("phase") not in _DONE:
        listed = [item["ip"] for item in status.get("podIPs") or ()] or [status.get("podIP")]
        yield from (str(ipaddress.ip_address(text)) for text in listed if text)
