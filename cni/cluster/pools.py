"""Subnets of a network that hosts share, and spans of their addresses, read from what others wrote."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import TYPE_CHECKING

from cni.cluster.fields import address, malformed, parsed, text
from cni.values import dataclass

if TYPE_CHECKING:
    from cni.cluster.model import IPNetwork, Key


@dataclass(frozen=True)
class Pool:
    """A subnet of a network, and what of it pods get; `gateway` empty where it has none."""

    subnet: str
    first: str
    last: str
    gateway: str

    @classmethod
    def read(cls, key: Key, raw: object) -> Pool:
        """What a store holds. Raises Malformed."""
        if not isinstance(raw, Mapping):
            raise malformed(key, "a pool is no JSON object")
        subnet: IPNetwork = parsed(key, text(key, raw, "subnet"), ipaddress.ip_network)
        first, last = (address(key, text(key, raw, name)) for name in ("first", "last"))
        if first not in subnet or last not in subnet or int(first) > int(last):
            raise malformed(key, f"{first}-{last} is no part of {subnet}")
        gateway = address(key, said) if (said := text(key, raw, "gateway")) else None
        if gateway and gateway.version != subnet.version:
            raise malformed(key, f"{gateway} is no gateway of {subnet}")
        return cls(str(subnet), str(first), str(last), str(gateway or ""))


def span_of(key: Key, raw: object) -> str:
    """A span of addresses, as ``10.1.0.5-10.1.0.9``. Raises Malformed."""
    low, dash, high = raw.partition("-") if isinstance(raw, str) else ("", "", "")
    ends = [address(key, end) for end in (low, high)]
    if not dash or ends[0].version != ends[1].version:
        raise malformed(key, f"{raw!r} is no span of addresses")
    return f"{ends[0]}-{ends[1]}"
