"""The string formats our schemas use, checked by the standard library's own parsers."""

from __future__ import annotations

import re
from collections.abc import Callable

from cni.errors import InvalidConfig
from cni.naming import is_mac
from cni.protocol import addresses
from cni.protocol.call import is_name, refuse_unruly_ifname

_PORTS = 65535
#: Texts, because few calls are given what they are for.
_SERVER = r"https?://(?:[A-Za-z0-9][A-Za-z0-9._-]*|\[(?P<v6>[0-9A-Fa-f:.]+)\])(?::(?P<port>[0-9]{1,5}))?"
_PATH = r"(?:/[A-Za-z0-9._~%/-]*)?"
_PLACE = r"(?:(?P<v4>[0-9.]+)|\[(?P<v6>[0-9A-Fa-f:.]+)\]):(?P<port>[0-9]{1,5})"


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


def _path(text: str) -> None:
    if not text.startswith("/"):
        raise ValueError(f"{text!r} is no absolute path")


def _server(text: str) -> None:
    _refuse_no_url(text, re.fullmatch(_SERVER, text), "a server, such as https://192.0.2.1:2379")


def _url(text: str) -> None:
    _refuse_no_url(text, re.fullmatch(_SERVER + _PATH, text), "a service, such as https://192.0.2.1:4318/otlp")


def _refuse_no_url(text: str, found: re.Match[str] | None, of: str) -> None:
    if not found:
        raise ValueError(f"{text!r} is no URL of {of}")
    if found["v6"]:
        addresses.address(found["v6"])
    _refuse_no_port(text, found["port"])


def _listening(text: str) -> None:
    found = re.fullmatch(_PLACE, text)
    if not found:
        raise ValueError(f"{text!r} is no address and port, such as 127.0.0.1:9402")
    addresses.address(found["v4"] or found["v6"])
    _refuse_no_port(text, found["port"])


def _refuse_no_port(text: str, port: str | None) -> None:
    if port is not None and not 0 < int(port) <= _PORTS:
        raise ValueError(f"{text!r} has no port from 1 to {_PORTS}")


#: What raises one of REFUSALS for a text that is not of a format.
FORMATS: dict[str, Callable[[str], object]] = {
    "cidr": addresses.network,
    "interface": _interface,
    "address": addresses.address,
    "nameserver": addresses.nameserver,
    "mac": _mac,
    "name": _name,
    "ifname": _ifname,
    "path": _path,
    "server": _server,
    "url": _url,
    "listening": _listening,
}
REFUSALS = (ValueError, InvalidConfig)
