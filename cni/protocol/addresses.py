"""Addresses as texts: what the standard library reads, less what a kernel or a Go runtime would take for another one."""

from __future__ import annotations

import ipaddress
from typing import TypeVar

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_Kind = TypeVar("_Kind", Address, Interface, Network)

_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


def address(text: object) -> Address:
    """An address. ValueError for anything else."""
    return _plain(ipaddress.ip_address(_text(text)), text)


def interface(text: object) -> Interface:
    """An address with its prefix, or alone. ValueError for anything else."""
    return _plain(ipaddress.ip_interface(_text(text)), text)


def network(text: object) -> Network:
    """A network without host bits. ValueError for anything else."""
    found = ipaddress.ip_network(_text(text))
    _plain(found.network_address, text)
    return found


def nameserver(text: object) -> str:
    """A resolver's address; resolv.conf(5) gives link-local ones a zone. ValueError for anything else."""
    address(_text(text).partition("%")[0])
    return str(text)


def _text(value: object) -> str:
    """The text; ipaddress takes a number for an address too."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")  # noqa: TRY004 - one error for whatever is no address
    return value


def _plain(found: _Kind, text: object) -> _Kind:
    if isinstance(found, ipaddress.IPv6Address):  # an interface is one too
        if found.scope_id:
            raise ValueError(f"{text!r} has a zone, which means another thing in each namespace")
        if ipaddress.IPv6Address(int(found)) in _MAPPED:
            raise ValueError(f"{text!r} is an IPv4 address in IPv6's spelling")
    return found
