"""Label selectors of an object, as much of them as can be read (meta/v1, LabelSelector)."""

from __future__ import annotations

from typing import Any

from cni.errors import InvalidConfig
from cni.policy.fields import (
    choice,
    fields,
    known_fields,
    label_key,
    label_value,
    list_or_fault,
    listed,
    numbered,
    path_of,
    readable,
    shown,
)
from cni.policy.labels import OPERATORS, Requirement, Selector


def whole_selector(raw: Any, where: str) -> Selector:
    """A selector. Raises InvalidConfig with all that is wrong in it."""
    faults: list[str] = []
    found = selector_of(raw, where, faults)
    if faults:
        raise InvalidConfig("; ".join(faults))
    return found


def selector_of(raw: Any, where: str, faults: list[str]) -> Selector:
    """As much of a selector as can be read; it is not `complete` where something is wrong."""
    before = len(faults)
    found = known_fields(raw, where, ("matchLabels", "matchExpressions"), faults)
    labels, at = found.get("matchLabels", {}), f"{where}.matchLabels"
    if not isinstance(labels, dict):
        faults.append(f"{at}: {shown(labels)} is no object")
        labels = {}
    equal = readable([(path_of(at, key), (key, value)) for key, value in labels.items()], _equal, faults)
    at = f"{where}.matchExpressions"
    expressions = list_or_fault(found.get("matchExpressions"), at, faults) or []
    return Selector(equal + readable(numbered(expressions, at), _expression, faults), len(faults) == before)


def _equal(raw: tuple[Any, Any], where: str) -> Requirement:
    key, value = raw
    return Requirement(label_key(key, where), "In", frozenset([label_value(value, where)]))


def _expression(raw: Any, where: str) -> Requirement:
    found = fields(raw, where, ("key", "operator", "values"))
    key = label_key(found.get("key"), f"{where}.key")
    operator = choice(found.get("operator"), f"{where}.operator", OPERATORS)
    values = listed(found.get("values"), f"{where}.values")
    if OPERATORS[operator] is not bool(values):
        raise InvalidConfig(f"{where}.values: {operator} {'needs some' if OPERATORS[operator] else 'has none'}")
    known = [label_value(item, at) for at, item in numbered(values, f"{where}.values")]
    return Requirement(key, operator, frozenset(known))
