"""Ranges and range sets, as host-local defines them: pure arithmetic on addresses."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cni.errors import InvalidConfig
from cni.naming import IPAddress
from cni.values import dataclass

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
_SMALLEST = 4
Span = tuple[IPAddress, IPAddress]
#: A range set as configurations have it: ranges, or the old form, one range and nothing around it.
RawSet = Mapping[str, Any] | Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Range:
    """Part of a subnet to give addresses from, both ends included."""

    subnet: IPNetwork
    first: IPAddress
    last: IPAddress
    gateway: IPAddress | None

    @classmethod
    def read(cls, raw: Mapping[str, Any], where: str) -> Range:
        """Read a range; ends default to the usable addresses, and those that no pod can have (the subnet's own, its broadcast
        address) are left out. The gateway defaults to the first of them, where there is a second.
        """
        if not raw.get("subnet"):
            raise InvalidConfig(f"{where}.subnet: missing")
        subnet = ipaddress.ip_network(raw["subnet"])
        usable = _usable(subnet, where)
        ends = [_end(raw, key, subnet, where) for key in ("rangeStart", "rangeEnd")]
        first, last = ends[0] or usable[0], ends[1] or usable[1]
        if int(first) > int(last):
            raise InvalidConfig(f"{where}: rangeStart {first} is after rangeEnd {last}")
        first, last = max(first, usable[0], key=int), min(last, usable[1], key=int)
        if int(first) > int(last):
            raise InvalidConfig(f"{where}: no pod can have the only address of this range of {subnet}")
        default = usable[0] if usable[0] != usable[1] else None
        gateway = ipaddress.ip_address(raw["gateway"]) if raw.get("gateway") else default
        if gateway and gateway.version != subnet.version:
            raise InvalidConfig(f"{where}.gateway: {gateway} is of another family than {subnet}")
        return cls(subnet, first, last, gateway)

    def __contains__(self, address: IPAddress) -> bool:
        return address.version == self.subnet.version and int(self.first) <= int(address) <= int(self.last)

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


@dataclass(frozen=True)
class RangeSet:
    """Ranges of one family from which an attachment gets one address; `part_of` is the key of the set they are a part of."""

    ranges: tuple[Range, ...]
    part_of: str = ""

    @classmethod
    def read(cls, raw: RawSet, where: str) -> RangeSet:
        """Read a range set. Raises InvalidConfig for mixed families and overlaps."""
        parts = list(_placed(raw, where))
        ranges = tuple(Range.read(item, path) for item, path in parts)
        if len({item.subnet.version for item in ranges}) != 1:
            raise InvalidConfig(f"{where}: a range set has ranges of exactly one family")
        _refuse_overlap([(item, path) for item, (_, path) in zip(ranges, parts, strict=True)])
        return cls(ranges)

    def __str__(self) -> str:
        return ", ".join(str(item) for item in self.ranges)

    def __contains__(self, address: IPAddress) -> bool:
        return any(address in item for item in self.ranges)

    @property
    def key(self) -> str:
        """What its round robin is remembered under."""
        return self.part_of or str(self.ranges[0].subnet)

    def of(self, address: IPAddress) -> Range:
        """The range an address of this set lies in."""
        return next(item for item in self.ranges if address in item)

    def spans_after(self, given: IPAddress | None) -> Iterator[Span]:
        """Every span of the set once, beginning after the address given last and wrapping around."""
        spans = [(item.first, item.last) for item in self.ranges]
        if given is None or given not in self:
            yield from spans
            return
        at = self.ranges.index(self.of(given))
        if given != spans[at][1]:
            yield given + 1, spans[at][1]
        yield from spans[at + 1 :] + spans[:at]
        yield spans[at][0], given


def read_sets(raw: Sequence[tuple[RawSet, str]]) -> tuple[RangeSet, ...]:
    """Read every range set, each with its JSON path. Raises InvalidConfig where two of them overlap."""
    sets = tuple(RangeSet.read(item, where) for item, where in raw)
    _refuse_overlap([(part, where) for item, (_, where) in zip(sets, raw, strict=True) for part in item.ranges])
    return sets


def _placed(raw: RawSet, where: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Each range of a set and its JSON path."""
    if isinstance(raw, Mapping):
        yield raw, where
    else:
        yield from ((item, f"{where}[{number}]") for number, item in enumerate(raw))


def first_gap(span: Span, taken: Iterable[tuple[int, int]]) -> IPAddress | None:
    """The lowest address of a span outside `taken`: pairs (low, high), ascending, overlaps allowed."""
    candidate, last = int(span[0]), int(span[1])
    for low, high in taken:
        if low > candidate:
            break
        candidate = max(candidate, high + 1)
    return type(span[0])(candidate) if candidate <= last else None


def is_reserved(address: IPAddress, subnet: IPNetwork) -> bool:
    """Whether no host may have it: a subnet's first and last address in IPv4, but for a wire's two (RFC 3021)."""
    return subnet.version == 4 and subnet.num_addresses >= _SMALLEST and address in (subnet[0], subnet[-1])


def _usable(subnet: IPNetwork, where: str) -> Span:
    """The first and last address that pods may have; a single address is a range of one, and two are a wire's."""
    if subnet.num_addresses == 1:
        return subnet[0], subnet[0]
    if subnet.num_addresses < _SMALLEST:
        raise InvalidConfig(f"{where}.subnet: {subnet} is too small to give addresses from")
    return subnet[1], subnet[-2] if subnet.version == 4 else subnet[-1]


def _end(raw: Mapping[str, Any], key: str, subnet: IPNetwork, where: str) -> IPAddress | None:
    if not raw.get(key):
        return None
    address = ipaddress.ip_address(raw[key])
    if address not in subnet:
        raise InvalidConfig(f"{where}.{key}: {address} is not in {subnet}")
    return address


def _refuse_overlap(items: Sequence[tuple[Range, str]]) -> None:
    for number, (one, where) in enumerate(items):
        for other, elsewhere in items[number + 1 :]:
            if where != elsewhere and (one.first in other or other.first in one):
                raise InvalidConfig(f"{elsewhere}: {other} overlaps {one} of {where}")
