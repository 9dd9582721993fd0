"""What a host has of each of its uplinks: the link, its addresses, and the gateways behind it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from cni.cluster.config import is_a_hosts
from cni.kernel.netlink import Rtnl
from cni.kernel.view import EVERYWHERE, MAIN_TABLE, MEMBER, SCOPE_UNIVERSE, UPLINK, KernelRoute, Link
from cni.naming import IPInterface
from cni.values import replace

#: Kinds of links that decide themselves by which of their ports packets go.
_DECIDE = ("bond", "team")
#: The priority of a default route that is another uplink's.
_AFTER_ALL = 0xFFFFFFFF
#: Of a link that carries packets, its state (RFC 2863); some kinds never say.
_CARRY = ("UP", "UNKNOWN")


class Way(NamedTuple):
    """An uplink as `name` calls it: its link, which is the bond's where it is a port of one, and None where there is none. `address` is
    where others send to by it, empty if nobody can; `held` are all its addresses. `gateways` are its default routes, by family, and `preferring` those of the member's that lead by it.
    """

    name: str
    link: Link | None
    address: str
    held: tuple[IPInterface, ...]
    gateways: dict[int, KernelRoute]
    preferring: tuple[KernelRoute, ...] = ()

    @property
    def carries(self) -> bool:
        """Whether its link is up, and somebody at its other end."""
        return self.link is not None and self.link.up and self.link.state in _CARRY

    @property
    def family(self) -> int:
        """That of its address; 0 without one."""
        return ipaddress.ip_address(self.address).version if self.address else 0

    def spans(self, family: int) -> Iterator[ipaddress.IPv4Network | ipaddress.IPv6Network]:
        """Who is on its link without a router."""
        return (item.network for item in self.held if item.version == family)

    def reaches(self, address: str) -> bool:
        """Whether an address is on its link."""
        parsed = ipaddress.ip_address(address)
        return any(parsed in span for span in self.spans(parsed.version))

    def own(self, family: int, near: str = "") -> str:
        """The address it speaks by: to somebody on its link the one of his subnet; empty if it has none."""
        held = [item for item in self.held if item.version == family]
        beside = [item for item in held if near and ipaddress.ip_address(near) in item.network]
        return str((beside or held)[0].ip) if held else ""


def ways(host: Rtnl, names: Sequence[str], before: str = "") -> tuple[Way, ...]:
    """What there is of uplinks, in their order; where others sent to `before` they go on sending as long as that address is there.

    All addresses are IPv4 if one of them is, or was, and else IPv6: hosts of a cluster know each other by one of the two.
    """
    found = [_found(host, name) for name in names]
    every = [item for way in found for item in way.held]
    family = 4 if any(item.version == 4 for item in every) or _is_ipv4(before) else 6
    placed = [way._replace(address=_address(way.held, family, before)) for way in found]
    return tuple(_with_neighbours_gateways(way, placed) for way in placed)


def address(found: Sequence[Way], before: str) -> str:
    """By which of them a host is to be reached that begins: as before, or by the first that carries anything; empty where none has one."""
    usable = [way for way in found if way.address]
    standing = [way for way in usable if way.address == before] or [way for way in usable if way.carries] or usable
    return standing[0].address if standing else ""


def carriers(host: Rtnl, names: Sequence[str]) -> list[Link]:
    """The links by which packets of uplinks come and go, of those that are there."""
    return [link for name in names if (link := _carrier(host, name))]


def _carrier(host: Rtnl, name: str) -> Link | None:
    link = host.link_by_name(name)
    master = host.link_by_index(link.bridge) if link and link.bridge else None
    return master if master and master.kind in _DECIDE else link


def _found(host: Rtnl, name: str) -> Way:
    link = _carrier(host, name)
    if link is None:
        return Way(name, None, "", (), {})
    held = (item for item in host.addresses(link) if item.scope == SCOPE_UNIVERSE and item.protocol != MEMBER)
    sound = tuple(item.interface for item in held if not (item.tentative or item.duplicate))
    routes = {family: host.routes(link, family) for family in (4, 6)}
    gateways = {family: route for family, there in routes.items() if (route := _default(there, family))}
    ours = tuple(route for there in routes.values() for route in there if route.protocol == UPLINK)
    return Way(name, link, "", tuple(item for item in sound if is_a_hosts(str(item.ip))), gateways, ours)


def _default(routes: Iterable[KernelRoute], family: int) -> KernelRoute | None:
    """The best one."""
    own = (route for route in routes if (route.dst, route.table) == (EVERYWHERE[family], MAIN_TABLE))
    return min(own, key=lambda route: route.priority, default=None)


def _address(held: Iterable[IPInterface], family: int, before: str) -> str:
    texts = [str(item.ip) for item in held if item.version == family]
    return before if before in texts else next(iter(texts), "")


def _with_neighbours_gateways(way: Way, every: Iterable[Way]) -> Way:
    """Of uplinks in one subnet often one alone has the default route: its gateway is the others' too."""
    gateways = dict(way.gateways)
    for other in every:
        for family, route in other.gateways.items():
            if family not in gateways and route.gateway and way.reaches(route.gateway):
                gateways[family] = replace(route, source="", priority=_AFTER_ALL)
    return way._replace(gateways=gateways)


def _is_ipv4(text: str) -> bool:
    return bool(text) and ":" not in text
