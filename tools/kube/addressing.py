"""Whose addresses are which, by IP version."""

from __future__ import annotations

PODS = {4: "10.244.0.0/16", 6: "fd00:244::/56"}
SERVICES = {4: "10.96.0.0/16", 6: "fd00:96::/112"}
API = {4: "10.96.0.1", 6: "fd00:96::1"}
DNS = {4: "10.96.0.10", 6: "fd00:96::a"}
_WIRE = {4: ("172.30.0.", 24), 6: ("fd00:30::", 64)}
#: Who has which number on the wire; a node has its own beside the control plane's.
RIG, CONTROL_PLANE = 1, 10


def on_wire(number: int, family: int = 4) -> str:
    return f"{_WIRE[family][0]}{number}"


def with_prefix(number: int, family: int) -> str:
    return f"{on_wire(number, family)}/{_WIRE[family][1]}"


def at(address: str, port: int) -> str:
    """An address and a port as a URL has them."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


GATEWAY, CONTROL = on_wire(RIG), on_wire(CONTROL_PLANE)
