"""The routes by which an uplink is preferred: halves of what other routes lead to, so that none of those is in their way, nor they in
those', and all stands as before once they are gone.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from itertools import product

from cni.kernel.netlink import Rtnl
from cni.kernel.view import EVERYWHERE, MAIN_TABLE, SCOPE_LINK, SCOPE_UNIVERSE, UPLINK, KernelRoute
from cni.member.uplinks.way import Way
from cni.values import replace


def ensure(host: Rtnl, every: Sequence[Way], taken: Way, silent: Collection[str]) -> None:
    """Have packets leave by the uplink that is taken: those to everywhere, those to a subnet that others are in too, and those to the
    subnets of others behind which there is nobody (`silent`). Raises KernelRefused.
    """
    wanted = {route.dst: route for route in _wanted(every, taken, silent)} if taken.carries and taken.link else {}
    there = {route.dst: route for route in taken.preferring}
    for dst, route in wanted.items():
        if taken.link and there.get(dst) != route:
            host.replace_route(taken.link, route, onlink=bool(route.gateway))
    for way in every:
        gone = {route.dst for route in way.preferring} - wanted.keys()
        for link, dst in product(filter(None, [way.link]), gone):
            host.delete_route(link, dst, protocol=UPLINK)


def clear(host: Rtnl, kept: Collection[int] = ()) -> None:
    """Prefer none, but for those of some links (their indices). Raises KernelRefused."""
    for index, route in host.routes_by(UPLINK):
        if index not in kept and (link := host.link_by_index(index)):
            host.delete_route(link, route.dst, protocol=UPLINK)


def clear_all() -> None:
    """The same, for who has no socket: a host that has no uplinks to choose from any more. Raises KernelRefused."""
    with closing(Rtnl()) as host:
        clear(host)


def _wanted(every: Sequence[Way], taken: Way, silent: Collection[str]) -> Iterator[KernelRoute]:
    others = [way for way in every if way.link and taken.link and way.link.index != taken.link.index]
    for family in (4, 6):
        gateway = taken.gateways.get(family)
        beside = {span: way.name for way in others for span in way.spans(family) if way.link and way.link.up}
        for span, name in beside.items():
            own = taken.own(family, str(span[0]))
            if span in taken.spans(family):
                yield from _halves(str(span), "", own)
            elif name in silent and gateway and ipaddress.ip_address(gateway.gateway or own) not in span:
                yield from _halves(str(span), gateway.gateway, own)
        if gateway and any(_is_before(way, taken, family) for way in others):
            yield from _halves(
                EVERYWHERE[family], gateway.gateway, gateway.source or taken.own(family, gateway.gateway)
            )


def _is_before(way: Way, taken: Way, family: int) -> bool:
    """Whether an uplink's default route may be before that of the one that is taken; of two that are equal nobody knows."""
    own, other = taken.gateways[family], way.gateways.get(family)
    return other is not None and other.priority <= own.priority


def _halves(dst: str, gateway: str, source: str) -> Iterator[KernelRoute]:
    whole = ipaddress.ip_network(dst)
    scope = SCOPE_UNIVERSE if gateway or whole.version == 6 else SCOPE_LINK
    one = KernelRoute("", gateway, MAIN_TABLE, UPLINK, 0, 0, scope, source, protocol=UPLINK)
    for half in whole.subnets() if whole.prefixlen < whole.max_prefixlen else ():
        yield replace(one, dst=str(half))
