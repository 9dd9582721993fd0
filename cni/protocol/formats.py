"""The string formats our schemas use, checked by the standard library's own parsers."""

from __future__ import annotations

from jsonschema import FormatChecker

from cni.errors import InvalidConfig
from cni.naming import is_mac
from cni.protocol import addresses
from cni.protocol.call import is_name, refuse_unruly_ifname

CHECKER = FormatChecker(formats=())


@CHECKER.checks("cidr", raises=ValueError)
def _cidr(value: object) -> bool:
    return not isinstance(value, str) or bool(addresses.network(value)) or True


@CHECKER.checks("interface", raises=ValueError)
def _interface(value: object) -> bool:
    if isinstance(value, str) and "/" not in value:
        raise ValueError(f"{value!r} has no prefix length, such as 192.168.10.10/24")
    return not isinstance(value, str) or bool(addresses.interface(value))


@CHECKER.checks("address", raises=ValueError)
def _address(value: object) -> bool:
    return not isinstance(value, str) or bool(addresses.address(value)) or True


@CHECKER.checks("nameserver", raises=ValueError)
def _nameserver(value: object) -> bool:
    return not isinstance(value, str) or bool(addresses.nameserver(value))


@CHECKER.checks("mac", raises=ValueError)
def _mac(value: object) -> bool:
    if isinstance(value, str) and value and not is_mac(value):
        raise ValueError(f"{value!r} is not a unicast MAC address")
    return True


@CHECKER.checks("name", raises=ValueError)
def _name(value: object) -> bool:
    if isinstance(value, str) and not is_name(value):
        raise ValueError(f"{value!r} must be letters, digits, '_', '.', '-'")
    return True


@CHECKER.checks("ifname", raises=InvalidConfig)
def _ifname(value: object) -> bool:
    if isinstance(value, str) and value:
        refuse_unruly_ifname(value, "interface", InvalidConfig)
    return True
