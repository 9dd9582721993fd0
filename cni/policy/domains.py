"""Names of domains as policies spell them: how they are read, and which names each means.

A pattern is a name, or ``*.`` before one: that means every name below it, by one label or more, and not itself (DomainName of
sigs.k8s.io/network-policy-api v0.3.0). What is read is normal: lower case, ASCII (IDNA 2008 with the mapping of UTS #46, as browsers
have it), without the dot at the end.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Any

from cni.errors import InvalidConfig
from cni.policy.fields import shown

_LABEL = r"[a-z0-9](?:[-a-z0-9_]*[a-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
#: RFC 1035, 2.3.4; a whole name as it is written, without the dot at its end.
_LONGEST_LABEL, _LONGEST = 63, 253
_ANY = "*."


def pattern(value: Any, where: str) -> str:
    """A pattern, normal. Raises InvalidConfig naming the value."""
    if not isinstance(value, str):
        raise InvalidConfig(f"{where}: {shown(value)} is no text")
    wild, name = (_ANY, value[len(_ANY) :]) if value.startswith(_ANY) else ("", value)
    found = _normal(name)
    if not _is_domain(found) or "." not in found:
        raise InvalidConfig(f"{where}: {shown(value)} is no name of a domain, such as api.example.com or *.example.com")
    if _is_address(found):
        raise InvalidConfig(f"{where}: {shown(value)} is an address, not a name: it belongs in an ipBlock")
    return wild + found


def ascii_pattern(value: Any, where: str) -> str:
    """The same of an object of Kubernetes, which has A-labels only. Raises InvalidConfig naming the value."""
    if isinstance(value, str) and not value.isascii():
        raise InvalidConfig(f"{where}: {shown(value)} is not ASCII: spell it with A-labels (xn--)")
    return pattern(value, where)


def domain(value: Any, where: str) -> str:
    """A domain, normal, of one label or more. Raises InvalidConfig naming the value."""
    found = _normal(value) if isinstance(value, str) else ""
    if not _is_domain(found):
        raise InvalidConfig(f"{where}: {shown(value)} is no domain, such as cluster.local")
    return found


def together(patterns: Iterable[str]) -> tuple[str, ...]:
    """Patterns, each once, in one order."""
    return tuple(sorted(set(patterns)))


def means(spelled: str, name: str) -> bool:
    """Whether a pattern that was read means a name, however that is spelled in ASCII."""
    name = name.lower().removesuffix(".")
    return name.endswith(spelled[1:]) and len(name) >= len(spelled) if spelled.startswith(_ANY) else name == spelled


def _normal(name: str) -> str:
    """As it is asked for; nothing, where that cannot be."""
    if not name.isascii():
        import idna  # hardly any name needs it

        try:
            name = idna.encode(name, uts46=True).decode()
        except idna.IDNAError:
            return ""
    return name.lower().removesuffix(".")


def _is_domain(name: str) -> bool:
    return (
        len(name) <= _LONGEST
        and _DOMAIN.fullmatch(name) is not None
        and all(len(label) <= _LONGEST_LABEL for label in name.split("."))
    )


def _is_address(name: str) -> bool:
    try:
        ipaddress.IPv4Address(name)
    except ValueError:
        return False
    return True
