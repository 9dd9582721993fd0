"""The fields of what others wrote, each read as what it is to be, or refused by name."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from cni.naming import IPAddress, is_mac

if TYPE_CHECKING:
    from cni.cluster.model import Key

T = TypeVar("T")


class Malformed(Exception):
    """An item of the store that is not what its key says; `str` names it and what is wrong."""


def text(key: Key, raw: Mapping[str, Any], name: str) -> str:
    """A text. Raises Malformed."""
    return str(typed(key, raw, name, str))


def texts(key: Key, raw: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """A list of texts. Raises Malformed."""
    return tuple(text(key, {name: item}, name) for item in typed(key, raw, name, list))


def number(key: Key, raw: Mapping[str, Any], name: str, within: range) -> int:
    """A number that may be. Raises Malformed."""
    value = int(typed(key, raw, name, int))
    if value not in within:
        raise malformed(key, f"{name} is {value}")
    return value


def typed(key: Key, raw: Mapping[str, Any], name: str, kind: type) -> Any:
    """Whatever is of exactly a type. Raises Malformed."""
    value = raw.get(name)
    if type(value) is not kind:
        raise malformed(key, f"{name} is {value!r}")
    return value


def mac(key: Key, said: str) -> str:
    """A MAC, in small letters. Raises Malformed."""
    if not is_mac(said):
        raise malformed(key, f"{said!r} is no MAC")
    return said.lower()


def address(key: Key, said: str) -> IPAddress:
    """An address. Raises Malformed."""
    return parsed(key, said, ipaddress.ip_address)


def parsed(key: Key, said: str, parse: Callable[[str], T]) -> T:
    """An address or a network. A scope is of one host's own, and may be any text (RFC 4007): it would come into scripts.
    Raises Malformed.
    """
    if "%" in said:
        raise malformed(key, f"{said!r} has a scope")
    try:
        return parse(said)
    except ValueError as error:
        raise malformed(key, str(error)) from None


def malformed(key: Key, why: str) -> Malformed:
    """What is raised."""
    return Malformed(f"{'/'.join(key)} in the store: {why}")
