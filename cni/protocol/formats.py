"""The string formats our schemas use, checked by the standard library's own parsers."""

from __future__ import annotations

from collections.abc import Callable

from cni.errors import InvalidConfig
from cni.naming import is_mac
from cni.protocol import addresses
from cni.protocol.call import is_name, refuse_unruly_ifname


def _interface(text: str) -> None:
    if "/" not in text:
        raise ValueError(f"{text!r} has no prefix length, such as 192.168.10.10/24")
    addresses.interface(text)


def _mac(text: str) -> None:
    if text and not is_mac(text):
        raise ValueError(f"{text!r} is not a unicast MAC address")


def _name(text: str) -> None:
    if not is_name(text):
        raise ValueError(f"{text!r} must be letters, digits, '_', '.', '-'")


def _ifname(text: str) -> None:
    if text:
        refuse_unruly_ifname(text, "interface", InvalidConfig)


#: What raises one of REFUSALS for a text that is not of a format.
FORMATS: dict[str, Callable[[str], object]] = {
    "cidr": addresses.network,
    "interface": _interface,
    "address": addresses.address,
    "nameserver": addresses.nameserver,
    "mac": _mac,
    "name": _name,
    "ifname": _ifname,
}
REFUSALS = (ValueError, InvalidConfig)
