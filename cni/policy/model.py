"""Who may talk to a pod and whom it may reach, in the terms of Kubernetes' NetworkPolicy."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from cni.naming import IPAddress
from cni.policy.domains import means, together
from cni.values import dataclass, field, replace

if TYPE_CHECKING:
    from cni.policy.book import Book
    from cni.policy.selection import Selection

PROTOCOLS = ("tcp", "udp", "sctp", "icmp")
#: What names are asked for on: DNS, and DNS over TLS and QUIC (RFC 7858, RFC 9250).
ASKING = (53, 853)
_LAST = {4: (1 << 32) - 1, 6: (1 << 128) - 1}


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
    Besides it lets through to what the names of `domains` (patterns, normal and in order) are resolved to, but to ports on which
    names are asked for only where one of `ports` is just that.
    """

    peers: tuple[Peers, ...] | None = None
    ports: tuple[Port, ...] | None = None
    selections: tuple[Selection, ...] = ()
    document: str = field(default="", compare=False)
    domains: tuple[str, ...] = ()

    @property
    def has_everybody(self) -> bool:
        """Whether all addresses of a family are among its peers."""
        return self.peers is None or any(self.ranges(family) == ((0, last),) for family, last in _LAST.items())

    def ranges(self, family: int) -> tuple[tuple[int, int], ...]:
        """The peers of one family."""
        return tuple(span for peers in self.peers or () if peers.family == family for span in peers.ranges)

    def covers(self, peer: IPAddress, protocol: str, port: int, book: Book | None = None) -> bool:
        """Whether it lets a packet through by its address, if `book` says whom it selects."""
        near = self.peers is None or any(low <= int(peer) <= high for low, high in self.ranges(peer.version))
        return self._has_port(protocol, port) and (
            near or (book is not None and any(item.has(peer, protocol, port, book) for item in self.selections))
        )

    def admits(self, name: str, protocol: str, port: int) -> bool:
        """Whether it lets a packet through to what a name is resolved to, whatever that is."""
        if self.has_everybody:
            return self._has_port(protocol, port)
        return any(means(spelled, name) for spelled in self.domains) and self.has_port_by_name(protocol, port)

    def has_port_by_name(self, protocol: str, port: int) -> bool:
        """Whether a port is let through to what its names are resolved to."""
        if protocol in ("tcp", "udp") and port in ASKING:
            return Port(protocol, port, port) in (self.ports or ())
        return self._has_port(protocol, port)

    def _has_port(self, protocol: str, port: int) -> bool:
        return self.ports is None or any(
            item.protocol == protocol and (not item.first or item.first <= port <= item.last) for item in self.ports
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
class Resolving:
    """What becomes of a pod's questions for names: those that `names` mean (patterns) are answered, those in its `own` domains, and
    with `everything` all, at most `rate` a second. An address is kept at least `keep` seconds; what leads into the node, to pods or is
    link-local only where it is in a block of `into`.
    """

    names: tuple[str, ...] = ()
    everything: bool = False
    rate: int = 200
    keep: int = 60
    into: tuple[str, ...] = ()
    own: tuple[str, ...] = ("cluster.local",)


@dataclass(frozen=True)
class Policy:
    """What is let through in each direction; None is everything, an empty tuple nothing. The `admin` tier is asked before, the
    `baseline` tier about a direction that is None. `closers` are the documents that make a direction not None, in words, by direction.
    `asking` is what the configuration says of questions for names, `resolving` what follows of all that is said.
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
    asking: Resolving = Resolving()

    def closes(self, direction: str) -> bool:
        """Whether a direction lets through less than everything."""
        rules: tuple[Allowance, ...] | None = getattr(self, direction)
        return self.denies(direction) or (rules is not None and Allowance() not in rules)

    @property
    def matches(self) -> list[Allowance]:
        """Everything that its rules look for."""
        tiers = (self.admin.ingress, self.admin.egress, self.baseline.ingress, self.baseline.egress)
        return [*(self.ingress or ()), *(self.egress or ()), *(item.match for tier in tiers for item in tier)]

    @property
    def resolving(self) -> Resolving | None:
        """What becomes of the pod's questions; None where nothing is let through by a name, or nothing is held back. Where whatever
        no rule speaks of is let through, every name may be asked for.
        """
        allowed = [name for match in self.matches for name in match.domains]
        if not (allowed or self.asking.names) or not self.closes("egress"):
            return None
        everything = self.asking.everything or not self._denies_the_rest()
        return replace(self.asking, names=together([*allowed, *self.asking.names]), everything=everything)

    def _denies_the_rest(self) -> bool:
        """Whether nothing goes out but what some rule lets through."""
        tiers = (self.admin,) if self.egress is not None else (self.admin, self.baseline)
        if any(item.action == "deny" and item.match.has_everybody for tier in tiers for item in tier.egress):
            return True
        return self.egress is not None and not any(it.has_everybody and it.ports is None for it in self.egress)

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
