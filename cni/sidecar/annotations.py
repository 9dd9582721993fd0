"""A pod's annotations in Istio's names, as keys of the `sidecar` section they override.

A malformed value is an error:
taken for "capture everything" or for nothing it would surprise the pod.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cni.errors import InvalidConfig
from cni.protocol import addresses
from cni.protocol.call import refuse_unruly_ifname

_PREFIX = "traffic.sidecar.istio.io/"
_MODES = {"REDIRECT": "redirect", "TPROXY": "tproxy", "NONE": "none"}


def overrides(told: Mapping[str, str]) -> dict[str, Any]:
    """The keys a pod's annotations set. Raises InvalidConfig naming annotation and value."""
    found = {}
    for name, (key, read) in _KNOWN.items():
        if name in told:
            try:
                found[key] = read(told[name])
            except (ValueError, InvalidConfig) as error:
                raise InvalidConfig(f"annotation {name}: {told[name]!r}: {error}") from None
    return found


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _port(word: str) -> int:
    if not (word.isascii() and word.isdecimal() and 1 <= int(word) <= 65535):
        raise ValueError(f"{word!r} is no port")
    return int(word)


def _ports(text: str) -> list[int]:
    return [_port(word) for word in _words(text)]


def _ports_or_all(text: str) -> list[int] | str:
    return "*" if text.strip() == "*" else _ports(text)


def _cidrs(text: str) -> list[str]:
    """Host bits are dropped, as iptables does for Istio."""
    return [str(addresses.interface(word).network) for word in _words(text)]


def _cidrs_or_all(text: str) -> list[str]:
    return ["*"] if text.strip() == "*" else _cidrs(text)


def _interfaces(text: str) -> list[str]:
    names = _words(text)
    for name in names:
        refuse_unruly_ifname(name, "interface", InvalidConfig)
    return names


def _mode(text: str) -> str:
    if text not in _MODES:
        raise ValueError(f"none of {', '.join(_MODES)}")
    return _MODES[text]


_KNOWN: dict[str, tuple[str, Callable[[str], Any]]] = {
    f"{_PREFIX}includeOutboundIPRanges": ("includeOutboundCIDRs", _cidrs_or_all),
    f"{_PREFIX}excludeOutboundIPRanges": ("excludeOutboundCIDRs", _cidrs),
    f"{_PREFIX}includeOutboundPorts": ("includeOutboundPorts", _ports),
    f"{_PREFIX}excludeOutboundPorts": ("excludeOutboundPorts", _ports),
    f"{_PREFIX}includeInboundPorts": ("includeInboundPorts", _ports_or_all),
    f"{_PREFIX}excludeInboundPorts": ("excludeInboundPorts", _ports),
    f"{_PREFIX}kubevirtInterfaces": ("virtInterfaces", _interfaces),
    "istio.io/reroute-virtual-interfaces": ("virtInterfaces", _interfaces),  # the newer name, which wins
    f"{_PREFIX}excludeInterfaces": ("excludeInterfaces", _interfaces),
    "sidecar.istio.io/interceptionMode": ("mode", _mode),
}
