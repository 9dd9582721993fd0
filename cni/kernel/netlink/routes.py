"""Routes (rtnetlink(7), linux/rtnetlink.h)."""

from __future__ import annotations

import errno
import ipaddress
import struct
from collections.abc import Iterator
from contextlib import suppress

from cni.errors import KernelRefused
from cni.kernel.netlink.nexthops import NextHop, NextHops, gateway_of, several, text_of_address
from cni.kernel.netlink.wire import (
    CREATE,
    DUMP,
    EXCLUSIVE,
    FAMILY,
    HEADER,
    REPLACE,
    attribute,
    attributes,
    number_of,
    request,
    u32,
    understood,
)
from cni.kernel.view import EVERYWHERE, MAIN_TABLE, SCOPE_UNIVERSE, UPLINK, KernelRoute, Link, LinkRef
from cni.naming import IPAddress
from cni.values import replace

_NEW, _DELETE, _GET = 24, 25, 26
#: struct rtmsg: family, lengths of destination and source, tos, table, protocol, scope, type, flags.
_RTMSG = struct.Struct("=BBBBBBBBI")
_FAMILY = struct.Struct("=H")  # struct rtvia begins with it: a gateway of the other family (RFC 8950)
_DST_LEN_AT, _PROTOCOL_AT, _TYPE_AT = HEADER.size + 1, HEADER.size + 5, HEADER.size + 7
_DST, _OIF, _GATEWAY, _PRIORITY, _PREFSRC, _METRICS, _MULTIPATH = 1, 4, 5, 6, 7, 8, 9
_CACHEINFO, _TABLE, _VIA, _NH_ID = 12, 15, 18, 30
_EXPIRES = slice(8, 12)  # within struct rta_cacheinfo
_MTU, _ADVMSS = 2, 8
_ONLINK, _LOOKUP_TABLE, _FIB_MATCH = 4, 0x1000, 0x2000
_UNICAST, _LOCAL = 1, 2
_KERNEL, _BOOT, _RA = 2, 3, 9  # who made a route (rtm_protocol)
_UNREACHABLE, _LAST = 7, 0xFFFFFFFF  # after every other route
_SCOPE_NOWHERE = 255  # in a deletion: whatever the scope
_KERNELS_TABLES = (253, 254, 255)
_TABLE_IN_ATTRIBUTE = 252  # RT_TABLE_COMPAT: the header's field has eight bits
_EVERYWHERE = {FAMILY[version]: text for version, text in EVERYWHERE.items()}
#: Addresses nobody has (RFC 5737, RFC 3849): what leads to them leads everywhere.
_NOBODY = {4: "192.0.2.1/32", 6: "2001:db8::1/128"}


class Routes(NextHops):
    """The routes of a namespace."""

    def routes(self, link: Link | LinkRef, family: int) -> list[KernelRoute]:
        """Every route of a family (4 or 6) through a link, whatever its table; of one with several next hops, that part."""
        found = self._routes(family, _OIF, link.index)
        return [route for message in found for index, route in self._ways(message) if index == link.index]

    def _every_route(self, family: int) -> dict[int, list[KernelRoute]]:
        """The same of all links, by their index."""
        found: dict[int, list[KernelRoute]] = {}
        for message in self._dump(request(_GET, DUMP, _RTMSG.pack(FAMILY[family], 0, 0, 0, 0, 0, 0, 0, 0))):
            for index, route in self._ways(message):
                found.setdefault(index, []).append(route)
        return found

    def add_route(self, link: Link | LinkRef, route: KernelRoute, onlink: bool, beside: bool = False) -> None:
        """Add a route; `onlink` takes a gateway no address of the link covers.

        Another route to the same is in its way (EEXIST); with `beside` only its equal is. Then the latest of IPv4 counts, and
        those of IPv6 that have gateways share what they carry.
        """
        self._put_route(link, route, onlink, CREATE if beside else CREATE | EXCLUSIVE)

    def replace_route(self, link: Link | LinkRef, route: KernelRoute, onlink: bool) -> None:
        """Have a route in the place of one to the same with the same metric, whoever's that is."""
        self._put_route(link, route, onlink, CREATE | REPLACE)

    def _put_route(self, link: Link | LinkRef, route: KernelRoute, onlink: bool, how: int) -> None:
        kind = route.protocol or _BOOT, route.scope, _LOCAL if route.local else _UNICAST
        place = _place(route.dst, route.table, kind, _ONLINK * onlink)
        new = request(_NEW, how, place, attribute(_OIF, u32(link.index)), *_details(route))
        via = f" via {route.gateway}" if route.gateway else ""
        self._change(new, f"add route {route.dst}{via} dev {link.name}")

    def delete_route(self, link: Link | LinkRef, dst: str, table: int = MAIN_TABLE, protocol: int = 0) -> None:
        """Remove a route through a link, whoever made it, or one who says so; one that is gone already is removed."""
        place = _place(dst, table, (protocol, _SCOPE_NOWHERE, 0))
        gone = request(_DELETE, 0, place, attribute(_OIF, u32(link.index)))
        self._removal(gone, f"remove route {dst} dev {link.name} table {table}", errno.ESRCH)

    def refuse_route(self, dst: str) -> bool:
        """Have what is sent to a destination refused ("unreachable" in ip-route(8)) where no other route leads there; whether it was
        not so yet.
        """
        new = request(_NEW, CREATE | EXCLUSIVE, *_refusal(dst))
        try:
            self._change(new, f"add route unreachable {dst}")
        except KernelRefused as error:
            if error.errno == errno.EEXIST:
                return False
            raise
        return True

    def keep_refused(self, dst: str, protocol: int) -> None:
        """Have it refused by somebody who says who he is, beside whoever else does."""
        new = request(_NEW, CREATE | EXCLUSIVE, *_refusal(dst, protocol))
        self._change(new, f"add route unreachable {dst}", errno.EEXIST)

    def refuses(self, dst: str) -> bool:
        """Whether it is so."""
        every = self._routes(6 if ":" in dst else 4, _TABLE, MAIN_TABLE)
        return any(
            is_refusal(message) and (route.dst, route.priority) == (dst, _LAST)
            for message in every
            for route in [route_of(message)]
        )

    def refused_by(self, protocol: int) -> list[str]:
        """What somebody has refused who says so."""
        every = (message for family in (4, 6) for message in self._routes(family, _TABLE, MAIN_TABLE))
        refused = (route_of(message) for message in every if is_refusal(message))
        return [route.dst for route in refused if route.protocol == protocol]

    def delete_refused(self, dst: str, protocol: int = 0) -> None:
        """Refuse it no more; what is not refused is so already."""
        gone = request(_DELETE, 0, *_refusal(dst, protocol))
        self._change(gone, f"remove route unreachable {dst}", errno.ESRCH)

    def route_to(self, address: IPAddress) -> tuple[int, ...]:
        """The links packets to an address leave by: their indices, one for each next hop in its order; or none."""
        with suppress(KernelRefused):
            asked = request(_GET, 0, _place(f"{address}/{address.max_prefixlen}", flags=_FIB_MATCH))
            return self._links_in_order(self._channel.question(asked))
        return ()

    def holder_of(self, address: IPAddress) -> int:
        """The index of the link that holds an address of this host, which is up; or 0, also for a moment after an IPv6 one was added."""
        asked = request(_GET, 0, _place(f"{address}/{address.max_prefixlen}", flags=_FIB_MATCH))
        with suppress(KernelRefused):
            message = self._channel.question(asked)
            return next((hop.link for hop in self._hops(message)), 0) if route_of(message).local else 0
        return 0

    def default_route(self) -> tuple[int, ...]:
        """The same as `route_to` of the best default route of the main table, IPv4's before IPv6's."""
        return self._default_route(4) or self._default_route(6)

    def _default_route(self, family: int) -> tuple[int, ...]:
        """What a lookup says, else what all routes do: a full node has one for each pod."""
        table = _LOOKUP_TABLE if family == 4 else 0  # IPv6 says the table without being asked to
        asked = request(_GET, 0, _place(_NOBODY[family], flags=_FIB_MATCH | table))
        with suppress(KernelRefused):
            found = self._channel.question(asked)
            if route_of(found).table == MAIN_TABLE and _is_default(found) and (links := self._links_in_order(found)):
                return links
        every = (message for message in self._routes(family, _TABLE, MAIN_TABLE) if _is_default(message))
        ways = (
            (message[_DST_LEN_AT] == 0, route_of(message).priority, links)
            for message in every
            if (links := self._links(message))
        )
        return min(ways, key=lambda way: way[:2], default=(0, 0, ()))[2]

    @understood
    def routes_by(self, protocol: int) -> list[tuple[int, KernelRoute]]:
        """The routes of the main table somebody made who says so, with the index of each one's link."""
        every = (message for family in (4, 6) for message in self._routes(family, _TABLE, MAIN_TABLE))
        return [way for message in every if message[_PROTOCOL_AT] == protocol for way in self._ways(message)]

    def _ways(self, message: bytes) -> list[tuple[int, KernelRoute]]:
        """A route by each of its next hops, and that one's link."""
        route, hops = route_of(message), self._hops(message)
        if len(hops) == 1 and hops[0].gateway == route.gateway:
            return [(hops[0].link, route)]
        return [(hop.link, replace(route, gateway=hop.gateway, several=len(hops) > 1)) for hop in hops]

    @understood
    def _links(self, message: bytes) -> tuple[int, ...]:
        """The links a route leads out by: "unreachable" stands on `lo` in IPv6."""
        leads = message[_TYPE_AT] == _UNICAST
        return tuple(hop.link for hop in self._hops(message) if hop.link) if leads else ()

    def _links_in_order(self, found: bytes) -> tuple[int, ...]:
        """The same of a route that was looked up. Of several next hops IPv6 names the one first that it would take, which changes with
        what is known of the gateways (rt6_select and rt6_fill_node in net/ipv6/route.c); a dump has them in their order.
        """
        links, route = self._links(found), route_of(found)
        if ":" not in route.dst or len(links) < 2:
            return links
        every = ((route_of(message), self._links(message)) for message in self._routes(6, _TABLE, route.table))
        alike = (way for one, way in every if (one.dst, one.priority) == (route.dst, route.priority))
        return next((way for way in alike if sorted(way) == sorted(links)), links)

    @understood
    def _hops(self, message: bytes) -> list[NextHop]:
        """The next hops of a route. One that names an object says its hops too, unless nexthop_compat_mode is off."""
        said = attributes(message, HEADER.size + _RTMSG.size)
        if _MULTIPATH in said:
            return list(several(said[_MULTIPATH]))
        if _NH_ID in said and _OIF not in said:
            return self._next_hops(number_of(said[_NH_ID]))
        return [NextHop(number_of(said.get(_OIF, b"")), gateway_of(said))]

    def advertised(self) -> set[int]:
        """The links the namespace has IPv6 routes by from routers' advertisements: default ones, and prefixes with a lifetime."""
        return {
            index
            for message in self._routes(6, _TABLE, MAIN_TABLE)
            if _is_advertised(message)
            for index in self._links(message)
        }

    def _routes(self, family: int, attribute_of: int, value: int) -> list[bytes]:
        """Every route of a family with RTA_OIF or RTA_TABLE."""
        place = _RTMSG.pack(FAMILY[family], 0, 0, 0, 0, 0, 0, 0, 0)
        return self._dump(request(_GET, DUMP, place, attribute(attribute_of, u32(value))))


@understood
def _is_default(message: bytes) -> bool:
    """Whether a route leads everywhere, or is the half of that by which the member prefers an uplink."""
    return message[_DST_LEN_AT] == 0 or (message[_DST_LEN_AT] == 1 and message[_PROTOCOL_AT] == UPLINK)


@understood
def is_refusal(message: bytes) -> bool:
    """Whether a route of a message leads nowhere."""
    return message[_TYPE_AT] == _UNREACHABLE


def _refusal(dst: str, protocol: int = 0) -> tuple[bytes, bytes]:
    kind = protocol or _BOOT, SCOPE_UNIVERSE, _UNREACHABLE
    return _place(dst, MAIN_TABLE, kind), attribute(_PRIORITY, u32(_LAST - bool(protocol)))


@understood
def route_of(message: bytes) -> KernelRoute:
    """A route of an RTM_NEWROUTE message; of one with several next hops, without them."""
    family, length, _, _, table, _, scope, kind, _ = _RTMSG.unpack_from(message, HEADER.size)
    said = attributes(message, HEADER.size + _RTMSG.size)
    metrics = attributes(said.get(_METRICS, b""))
    return KernelRoute(
        dst=f"{text_of_address(said[_DST])}/{length}" if _DST in said else _EVERYWHERE[family],
        gateway=gateway_of(said),
        table=number_of(said.get(_TABLE, b"")) or table,
        priority=number_of(said.get(_PRIORITY, b"")),
        mtu=number_of(metrics.get(_MTU, b"")),
        advmss=number_of(metrics.get(_ADVMSS, b"")),
        scope=scope,
        source=text_of_address(said.get(_PREFSRC, b"")),
        local=kind == _LOCAL,
        protocol=message[_PROTOCOL_AT],
    )


@understood
def _is_advertised(message: bytes) -> bool:
    """Whether the kernel has a route of an advertisement: it counts a prefix as its own (addrconf_prefix_route)."""
    if message[_PROTOCOL_AT] != _KERNEL:
        return message[_PROTOCOL_AT] == _RA
    expiry = attributes(message, HEADER.size + _RTMSG.size).get(_CACHEINFO, b"")[_EXPIRES]
    return number_of(expiry) != 0


def _place(dst: str, table: int = 0, kind: tuple[int, int, int] = (0, 0, 0), flags: int = 0) -> bytes:
    """The header, destination and table of a route; `kind` is its protocol, scope and type."""
    network = ipaddress.ip_network(dst)
    in_header = table if table < _TABLE_IN_ATTRIBUTE or table in _KERNELS_TABLES else _TABLE_IN_ATTRIBUTE
    family, length = FAMILY[network.version], network.prefixlen
    place = _RTMSG.pack(family, length, 0, 0, in_header, *kind, flags)
    target = attribute(_DST, network.network_address.packed) if length else b""
    return place + target + (attribute(_TABLE, u32(table)) if table else b"")


def _details(route: KernelRoute) -> Iterator[bytes]:
    """What is said of a route, as far as there is anything to say."""
    if route.gateway:
        gateway = ipaddress.ip_address(route.gateway)
        other = (":" in route.dst) != (gateway.version == 6)
        yield (
            attribute(_VIA, _FAMILY.pack(FAMILY[gateway.version]) + gateway.packed)
            if other
            else attribute(_GATEWAY, gateway.packed)
        )
    if route.source:
        yield attribute(_PREFSRC, ipaddress.ip_address(route.source).packed)
    if route.priority:
        yield attribute(_PRIORITY, u32(route.priority))
    metrics = [attribute(number, u32(value)) for number, value in ((_MTU, route.mtu), (_ADVMSS, route.advmss)) if value]
    if metrics:
        yield attribute(_METRICS, b"".join(metrics))
