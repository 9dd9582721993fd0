"""What is said of a flow in words: its ends, how much, and how long ago."""

from __future__ import annotations

from cni.flows.sighting import Sighting

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_STEP = 1024


def peer_of(seen: Sighting) -> str:
    """The other end for people: its name, or one by which its address was resolved, and how it was asked for where that is another address."""
    name = seen.peer or ", ".join(seen.names)
    address = f"{name} ({seen.address})" if name else seen.address
    return f"{address} by {seen.service}" if seen.service else address


def port_of(seen: Sighting) -> str:
    """A port and its protocol."""
    return f"{seen.port}/{seen.protocol}" if seen.port else seen.protocol


def sized(number: float) -> str:
    """Bytes as people say them."""
    for unit in _UNITS:
        if number < _STEP or unit == _UNITS[-1]:
            break
        number /= _STEP
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"


def ago(seconds: float) -> str:
    """A time as people say it."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f}{unit}"
    return f"{max(seconds, 0):.0f}s"
