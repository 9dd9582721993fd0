"""Who may talk to a pod and whom it may reach, in the terms of Kubernetes' NetworkPolicy."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from cni.naming import IPAddress
from cni.values import dataclass

PROTOCOLS = ("tcp", "udp", "sctp", "icmp")


@dataclass(frozen=True)
class Port:
    """A protocol (tcp, udp, sctp, icmp) and its destination ports; `first` 0 is every port.

    ValueError for any other: rules are spelled from what stands here.
    """

    protocol: str
    first: int = 0
    last: int = 0

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS or not 0 <= self.first <= self.last <= 65535:
            raise ValueError(f"no port: {self.protocol!r} {self.first!r}-{self.last!r}")


@dataclass(frozen=True)
class Peers:
    """Addresses as sorted, disjoint, inclusive ranges of one family (4 or 6), as integers."""

    family: int
    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Allowance:
    """What one rule lets through: from or to any of `peers`, on any of `ports`; None means all."""

    peers: tuple[Peers, ...] | None = None
    ports: tuple[Port, ...] | None = None

    def ranges(self, family: int) -> tuple[tuple[int, int], ...]:
        """The peers of one family."""
        return tuple(span for peers in self.peers or () if peers.family == family for span in peers.ranges)

    def covers(self, peer: IPAddress, protocol: str, port: int) -> bool:
        """Whether it lets a packet through."""
        near = self.peers is None or any(low <= int(peer) <= high for low, high in self.ranges(peer.version))
        ports = self.ports is None or any(
            item.protocol == protocol and (not item.first or item.first <= port <= item.last) for item in self.ports
        )
        return near and ports


@dataclass(frozen=True)
class Policy:
    """What is let through in each direction; None is everything, an empty tuple nothing."""

    ingress: tuple[Allowance, ...] | None = None
    egress: tuple[Allowance, ...] | None = None
    established: bool = True
    dns: bool = False
    anti_spoof: bool = True
    host_access: bool = True
    log: bool = False

    def closes(self, direction: str) -> bool:
        """Whether a direction lets through less than everything."""
        rules: tuple[Allowance, ...] | None = getattr(self, direction)
        return rules is not None and Allowance() not in rules

    def allows(self, direction: str, peer: str, protocol: str, port: int = 0) -> bool:
        """Whether a new connection may be: `direction` is ingress or egress, `peer` the other's address."""
        rules: tuple[Allowance, ...] | None = getattr(self, direction)
        return rules is None or any(rule.covers(ipaddress.ip_address(peer), protocol, port) for rule in rules)


def hosts(addresses: Iterable[str]) -> tuple[Peers, ...]:
    """Single addresses as peers."""
    known = [ipaddress.ip_address(text) for text in addresses]
    by_family = {family: [int(item) for item in known if item.version == family] for family in (4, 6)}
    return tuple(Peers(family, merged([(at, at) for at in found])) for family, found in by_family.items() if found)


def merged(ranges: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Ranges sorted, with those that touch or overlap made one."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if found and low <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        else:
            found.append((low, high))
    return tuple(found)


def without(span: tuple[int, int], holes: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """A range without some parts of it."""
    left, (low, high) = [], span
    for start, end in merged(holes):
        if low < start <= high:
            left.append((low, start - 1))
        if start <= high:
            low = max(low, end + 1)
    return [*left, (low, high)] if low <= high else left
