"""Values of a Kubernetes object, taken as strictly as its API server takes them.

A field that is null is absent, as Kubernetes reads it. What is wrong begins with its path: InvalidConfig where
one value is asked for, a line in `faults` where the rest can do without it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from cni.errors import InvalidConfig
from cni.protocol.config import meant

T = TypeVar("T")

_LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_DOMAIN = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_PLAIN = re.compile(r"[A-Za-z0-9_./-]{1,253}")


def fields(value: Any, where: str, known: Iterable[str]) -> dict[str, Any]:
    """The fields of an object, of which each must be known."""
    faults: list[str] = []
    found = known_fields(value, where, known, faults)
    if faults:
        raise InvalidConfig("; ".join(faults))
    return found


def known_fields(value: Any, where: str, known: Iterable[str], faults: list[str]) -> dict[str, Any]:
    """The known fields of an object; others are faults."""
    if not isinstance(value, dict):
        faults.append(f"{where}: {shown(value)} is no object")
        return {}
    names = tuple(known)
    odd = [key for key in value if key not in names]
    faults += [f"{path_of(where, key)}: unknown field{meant(key, names)}" for key in odd]
    return {key: value[key] for key in names if value.get(key) is not None}


def listed(value: Any, where: str) -> list[Any]:
    """The items of a list; absent is empty."""
    if value is not None and not isinstance(value, list):
        raise InvalidConfig(f"{where}: {shown(value)} is no list")
    return value or []


def list_or_fault(value: Any, where: str, faults: list[str]) -> list[Any] | None:
    """A list, absent is empty; None where there is something else."""
    return next(iter(readable([(where, value)], listed, faults)), None)


def numbered(items: Iterable[Any], where: str) -> Iterator[tuple[str, Any]]:
    """A list's items, each with its path."""
    return ((f"{where}[{at}]", item) for at, item in enumerate(items))


def readable(items: Iterable[tuple[str, Any]], read: Callable[[Any, str], T], faults: list[str]) -> tuple[T, ...]:
    """What can be read of values that come with their paths; what is wrong with the others is a fault."""
    found = []
    for where, item in items:
        try:
            found.append(read(item, where))
        except InvalidConfig as error:
            faults.append(error.msg)
    return tuple(found)


def text(value: Any, where: str) -> str:
    """A text."""
    if not isinstance(value, str):
        raise InvalidConfig(f"{where}: {shown(value)} is no text")
    return value


def name(value: Any, where: str) -> str:
    """A name of an object; absent is empty."""
    if value is not None and not _PLAIN.fullmatch(text(value, where)):
        raise InvalidConfig(f"{where}: {shown(value)} is no name")
    return value or ""


def number(value: Any, where: str) -> int:
    """A port's number."""
    if type(value) is not int or not 1 <= value <= 65535:
        raise InvalidConfig(f"{where}: {shown(value)} is no number from 1 to 65535")
    return value


def choice(value: Any, where: str, known: Iterable[str]) -> str:
    """One of some texts."""
    names = tuple(known)
    if not isinstance(value, str) or value not in names:
        raise InvalidConfig(f"{where}: {shown(value)} is none of {', '.join(names)}")
    return value


def label_key(value: Any, where: str) -> str:
    """A label's key: a name, behind a domain and a slash or not."""
    domain, slash, own = text(value, where).rpartition("/")
    if not own or not _LABEL.fullmatch(own) or (slash and not _DOMAIN.fullmatch(domain)):
        raise InvalidConfig(f"{where}: {shown(value)} is no label's key")
    return str(value)


def label_value(value: Any, where: str) -> str:
    """A label's value, which may be empty."""
    if not _LABEL.fullmatch(text(value, where)):
        raise InvalidConfig(f"{where}: {shown(value)} is no label's value")
    return str(value)


def path_of(where: str, key: Any) -> str:
    """The path of a field."""
    return f"{where}.{key if isinstance(key, str) and _PLAIN.fullmatch(key) else shown(key)}".lstrip(".")


def shown(value: Any) -> str:
    """A value as it can be printed anywhere, shortened; a container of whatever size only by its kind."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    said = json.dumps(value, default=str)
    return said if len(said) <= 60 else said[:57] + "..."
