"""What an attachment asks of our IPAM: the ``ipam`` section, the runtime's wishes, the flat form."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cni.errors import InvalidConfig, InvalidEnvironment
from cni.ipam.ranges import Range, RangeSet, RawSet, first_gap, is_reserved, read_sets
from cni.naming import IPAddress
from cni.protocol import addresses
from cni.protocol.call import Call
from cni.protocol.config import NetConf, folded
from cni.protocol.result import DNS, IPConfig, Result, Route, refuse_gateway
from cni.protocol.versions import at_least
from cni.values import dataclass

#: What says a range, in a list of them or alone.
RANGE_KEYS = ("subnet", "rangeStart", "rangeEnd", "gateway")

Span = tuple[int, int, int]


@dataclass(frozen=True)
class IpamConfig:
    """`reserved` are spans (family, first, last) that are never given; `requested` must be given."""

    sets: tuple[RangeSet, ...]
    requested: tuple[IPAddress, ...] = ()
    reserved: tuple[Span, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: DNS = DNS()
    sticky: bool = False

    @classmethod
    def read(cls, netconf: NetConf, call: Call) -> IpamConfig:
        """Read a validated configuration. Raises InvalidConfig, or InvalidEnvironment for CNI_ARGS."""
        raw = netconf["ipam"]
        sets = read_sets(list(_all_ranges(raw, netconf)))
        if not sets:
            raise InvalidConfig("$.ipam: no subnet, no ranges, and none in runtimeConfig.ipRanges")
        _refuse_two_of_a_family(sets, netconf)
        return cls(
            sets,
            tuple(dict.fromkeys(_requested(netconf, call))),
            tuple(_spans(raw.get("reserved") or ())),
            routes_of(raw),
            _resolv_conf(raw["resolvConf"]) if raw.get("resolvConf") else DNS(),
            bool(raw.get("sticky")),
        )

    @classmethod
    def fixed(cls, interfaces: list[str], gateways: list[str]) -> IpamConfig:
        """The flat form: exactly these addresses, each with the gateway of its family if named."""
        by_family = _gateways(gateways, {ipaddress.ip_interface(text).version for text in interfaces})
        sets: list[RangeSet] = []
        requested: list[IPAddress] = []
        for number, text in enumerate(interfaces):
            own = ipaddress.ip_interface(text)
            gateway = by_family.get(own.version)
            if own.ip == gateway:
                raise InvalidConfig(f"$.ip: {own.ip} is the gateway's address too")
            if is_reserved(own.ip, own.network):
                raise InvalidConfig(
                    f"$.ip[{number}]: {own} is the network's own or its broadcast address, which no pod can have"
                )
            if any(item.ranges[0].subnet.version == own.version for item in sets):
                raise InvalidConfig(f"$.ip[{number}]: a second IPv{own.version} address")
            sets.append(RangeSet((Range(own.network, own.ip, own.ip, gateway),)))
            requested.append(own.ip)
        return cls(tuple(sets), tuple(requested))

    def reserved_in(self, family: int, first: IPAddress, last: IPAddress) -> Iterator[tuple[int, int]]:
        """Spans never given between two addresses: reserved ones and the gateways."""
        for span_family, low, high in self.reserved:
            if span_family == family and low <= int(last) and high >= int(first):
                yield low, high
        for gateway in self.gateways:
            if gateway.version == family:
                yield int(gateway), int(gateway)

    def first_addresses(self) -> Result:
        """What an attachment on an empty node would get. Raises InvalidConfig where there is nothing."""
        return Result(ips=tuple(map(self._first, self.sets)), routes=self.routes, dns=self.dns)

    def _first(self, range_set: RangeSet) -> IPConfig:
        address = next((item for item in self.requested if item in range_set), None) or self._first_free(range_set)
        part = range_set.of(address)
        return IPConfig(f"{address}/{part.subnet.prefixlen}", str(part.gateway or ""))

    def _first_free(self, range_set: RangeSet) -> IPAddress:
        for part in range_set.ranges:
            never = sorted(self.reserved_in(part.subnet.version, part.first, part.last))
            address = first_gap((part.first, part.last), never)
            if address:
                return address
        raise InvalidConfig(f"$.ipam: every address of {range_set} is reserved or a gateway")

    @property
    def gateways(self) -> list[IPAddress]:
        """Every range's gateway."""
        return [part.gateway for item in self.sets for part in item.ranges if part.gateway]


def routes_of(raw: Mapping[str, Any]) -> tuple[Route, ...]:
    """The routes of an ``ipam`` section, ours or a delegate's. Raises InvalidConfig for one that cannot be, and ValueError."""
    found = tuple(Route.read(item) for item in raw.get("routes") or ())
    for number, route in enumerate(found):
        refuse_gateway(f"$.ipam.routes[{number}]", route.dst, route.gw)
    return found


def _gateways(texts: list[str], families: set[int]) -> dict[int, IPAddress]:
    found: dict[int, IPAddress] = {}
    for number, address in enumerate(map(ipaddress.ip_address, texts)):
        if address.version in found:
            raise InvalidConfig(f"$.gateway[{number}]: a second IPv{address.version} gateway")
        if address.version not in families:
            raise InvalidConfig(f"$.gateway[{number}]: {address} is of a family that ip has not")
        found[address.version] = address
    return found


def _all_ranges(raw: Mapping[str, Any], netconf: NetConf) -> Iterator[tuple[RawSet, str]]:
    """The runtime's ranges first, then the single old-style one, then the list, as host-local does; each with its path."""
    for number, item in enumerate(folded(netconf.get("runtimeConfig"), "ipRanges") or ()):
        yield [{key: folded(part, key) for key in RANGE_KEYS} for part in item], f"$.runtimeConfig.ipRanges[{number}]"
    if raw.get("subnet"):
        yield {key: raw[key] for key in RANGE_KEYS if key in raw}, "$.ipam"
    for number, item in enumerate(raw.get("ranges") or ()):
        yield item, f"$.ipam.ranges[{number}]"


def _refuse_two_of_a_family(sets: tuple[RangeSet, ...], netconf: NetConf) -> None:
    families = [item.ranges[0].subnet.version for item in sets]
    version = netconf.get("cniVersion") or "0.1.0"
    if len(families) != len(set(families)) and not at_least(version, "0.3.0"):
        raise InvalidConfig(f"$.ipam.ranges: cniVersion {version} knows one address per family only")


def _requested(netconf: NetConf, call: Call) -> Iterator[IPAddress]:
    in_args = call.arguments().get("IP")
    if in_args:
        yield _address(in_args, InvalidEnvironment, "CNI_ARGS: IP")
    for text in ((netconf.get("args") or {}).get("cni") or {}).get("ips") or ():
        yield _address(text, InvalidConfig, "$.args.cni.ips")
    for text in folded(netconf.get("runtimeConfig"), "ips") or ():
        yield _address(text, InvalidConfig, "$.runtimeConfig.ips")


def _address(text: object, error: type[InvalidConfig | InvalidEnvironment], where: str) -> IPAddress:
    try:
        return addresses.interface(text).ip
    except ValueError:
        raise error(f"{where}: {text!r} is no IP address") from None


def _spans(items: Sequence[str]) -> Iterator[Span]:
    """Addresses, networks and ``first-last`` spans."""
    for number, text in enumerate(items):
        try:
            low, high = _span(text)
        except ValueError as error:
            raise InvalidConfig(f"$.ipam.reserved[{number}]: {error}") from None
        yield low.version, int(low), int(high)


def _span(text: str) -> tuple[IPAddress, IPAddress]:
    first, dash, last = (part.strip() for part in text.partition("-"))
    if not dash:
        network = addresses.network(first)
        return network[0], network[-1]
    low, high = addresses.address(first), addresses.address(last)
    if low.version != high.version or int(low) > int(high):
        raise ValueError(f"{text!r} does not go from a lower to a higher address of one family")
    return low, high


def _resolv_conf(path: str) -> DNS:
    """Read resolv.conf(5)."""
    try:
        lines = _regular(path).read_text().splitlines()
    except (OSError, ValueError) as error:
        raise InvalidConfig(f"$.ipam.resolvConf: {path}: {getattr(error, 'strerror', None) or error}") from None
    words = [line.split() for line in lines if line.strip() and line.lstrip()[0] not in "#;"]
    return DNS(
        tuple(_nameserver(word, path) for first, *rest in words if first == "nameserver" for word in rest[:1]),
        next((rest[0] for first, *rest in words if first == "domain" and rest), ""),
        tuple(word for first, *rest in words if first == "search" for word in rest),
        tuple(word for first, *rest in words if first == "options" for word in rest),
    )


def _regular(path: str) -> Path:
    """A path that leads to a file: a pipe would be waited for, a device read for ever."""
    if Path(path).exists() and not Path(path).is_file():
        raise ValueError("it is no file")
    return Path(path)


def _nameserver(word: str, path: str) -> str:
    try:
        return addresses.nameserver(word)
    except ValueError as error:
        raise InvalidConfig(f"$.ipam.resolvConf: {path}: nameserver {error}") from None
