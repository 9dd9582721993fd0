"""Who may talk to a pod and whom it may reach, in the terms of Kubernetes' NetworkPolicy."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from cni.naming import IPAddress
from cni.values import dataclass, field

if TYPE_CHECKING:
    from cni.policy.book import Book
    from cni.policy.selection import Selection

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
    """What one rule lets through: from or to any of `peers` and of the pods of `selections`, on any of `ports`; None means
    all. A selection that has a port is let through on that. `document` is what says so, ``kind namespace/name``, if one does.
    """

    peers: tuple[Peers, ...] | None = None
    ports: tuple[Port, ...] | None = None
    selections: tuple[Selection, ...] = ()
    document: str = field(default="", compare=False)

    def ranges(self, family: int) -> tuple[tuple[int, int], ...]:
        """The peers of one family."""
        return tuple(span for peers in self.peers or () if peers.family == family for span in peers.ranges)

    def covers(self, peer: IPAddress, protocol: str, port: int, book: Book | None = None) -> bool:
        """Whether it lets a packet through, if `book` says whom it selects."""
        near = self.peers is None or any(low <= int(peer) <= high for low, high in self.ranges(peer.version))
        ports = self.ports is None or any(
            item.protocol == protocol and (not item.first or item.first <= port <= item.last) for item in self.ports
        )
        return ports and (
            near or (book is not None and any(item.has(peer, protocol, port, book) for item in self.selections))
        )


@dataclass(frozen=True)
class Ruling:
    """What becomes of what `match` covers: `action` is accept, deny, or pass, which leaves it to the next tier."""

    action: str
    match: Allowance


@dataclass(frozen=True)
class Tier:
    """An administrator's rulings by direction: the first that matches decides."""

    ingress: tuple[Ruling, ...] = ()
    egress: tuple[Ruling, ...] = ()


@dataclass(frozen=True)
class Policy:
    """What is let through in each direction; None is everything, an empty tuple nothing. The `admin` tier is asked before, the
    `baseline` tier about a direction that is None. `closers` are the documents that make a direction not None, in words, by direction.
    """

    ingress: tuple[Allowance, ...] | None = None
    egress: tuple[Allowance, ...] | None = None
    admin: Tier = Tier()
    baseline: Tier = Tier()
    closers: Mapping[str, str] = field(default_factory=dict, compare=False)
    established: bool = True
    dns: bool = False
    anti_spoof: bool = True
    host_access: bool = True
    log: bool = False

    def closes(self, direction: str) -> bool:
        """Whether a direction lets through less than everything."""
        rules: tuple[Allowance, ...] | None = getattr(self, direction)
        return self.denies(direction) or (rules is not None and Allowance() not in rules)

    @property
    def matches(self) -> list[Allowance]:
        """Everything that its rules look for."""
        tiers = (self.admin.ingress, self.admin.egress, self.baseline.ingress, self.baseline.egress)
        return [*(self.ingress or ()), *(self.egress or ()), *(item.match for tier in tiers for item in tier)]

    def denies(self, direction: str) -> bool:
        """Whether an administrator denies anything in a direction."""
        return any(item.action == "deny" for tier in (self.admin, self.baseline) for item in getattr(tier, direction))

    def allows(self, direction: str, peer: str, protocol: str, port: int = 0, book: Book | None = None) -> bool:
        """Whether a new connection may be: `direction` is ingress or egress, `peer` the other's address. Whom a rule selects
        is what `book` says; without one, nobody.
        """
        asked = ipaddress.ip_address(peer), protocol, port, book
        rules: tuple[Allowance, ...] | None = getattr(self, direction)
        for tier in (self.admin, self.baseline):
            decided = next((item.action for item in getattr(tier, direction) if item.match.covers(*asked)), "pass")
            if decided != "pass":
                return bool(decided == "accept")
            if rules is not None:
                return any(rule.covers(*asked) for rule in rules)
        return True


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
