"""Routes: in the pod, and the host's to one pod."""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Iterable, Iterator
from contextlib import suppress

from cni.errors import Conflict, KernelRefused
from cni.kernel.view import LOCAL_TABLE, MAIN_TABLE, SCOPE_LINK, KernelRoute, Link
from cni.protocol.result import Result
from cni.resources.base import REFRESH, Resource
from cni.resources.links import required
from cni.resources.neighbours import HostNeighbour
from cni.resources.world import World
from cni.values import dataclass

#: What the kernel makes of larger ones (ip_metrics_convert in net/ipv4/metrics.c).
_MOST = {"mtu": 65535 - 15, "advmss": 65535 - 40}


@dataclass(frozen=True)
class DeadEnd(Resource):
    """A network of pods that hosts route to each other, block by block: what no route leads to, because it is nobody's or not known
    yet, would leave by the default route, for anybody to read. It goes with the last pod.
    """

    dst: str

    shared = True
    retires = True

    def ensure(self, world: World) -> None:
        if world.host.refuse_route(self.dst):
            world.created(self)

    def differences(self, world: World) -> Iterator[str]:
        if not world.host.refuses(self.dst):
            yield f"route unreachable {self.dst} is missing: what is for no pod leaves by the default route"

    def remove(self, world: World) -> None:
        world.host.delete_refused(self.dst)

    def describe(self) -> str:
        return f"route unreachable {self.dst}, but where a block of it is"


@dataclass(frozen=True)
class PodRoute(Resource):
    """A route in the pod; `gateway` empty means on the link. `onlink`: no address covers the gateway.

    It stands beside what another network of the pod has to the same destination, and goes with its own link. Later plugins of a
    chain may take it away, and report it no more, or move it into a table of their own (sbr), which no result tells.
    """

    link: str
    dst: str
    gateway: str
    mtu: int
    advmss: int
    priority: int
    table: int
    scope: int
    onlink: bool

    def ensure(self, world: World) -> None:
        link = required(world.pod.link_ref(self.link), self.link)
        route = KernelRoute(self.dst, self.gateway, self.table, self.priority, self.mtu, self.advmss, self.scope)
        try:
            world.pod.add_route(link, route, self.onlink, beside=True)
        except KernelRefused as error:
            if error.errno != errno.EEXIST:
                raise
            if lines := list(self.differences(world)):  # IPv6 has one route by a gateway, whatever its metrics
                raise Conflict(f"{self.link} has another route by that gateway already: {lines[0]}") from None

    def differences(self, world: World) -> Iterator[str]:
        link = world.pod.link_by_name(self.link)
        family = ipaddress.ip_network(self.dst).version
        routes = world.pod.routes(link, family) if link else []
        if any(self._is(route) for route in routes):
            return
        there = any(route.dst == self.dst for route in routes)
        yield (
            f"route {self.dst} in the pod is not {self._spelled()}"
            if there
            else f"route {self.dst} is missing in the pod"
        )

    def repair(self, world: World) -> None:
        """What leads there by the same link and metric is in the place of it; and no gateway is taken that nothing leads to."""
        link = required(world.pod.link_by_name(self.link), self.link)
        there = world.pod.routes(link, ipaddress.ip_network(self.dst).version)
        for route in there:
            if (route.dst, route.table) == (self.dst, self.table) and self.priority in (0, route.priority):
                world.pod.delete_route(link, self.dst, self.table)
        if self.gateway and not self.onlink:
            self._reach_gateway(link, {route.dst for route in there if route.table == MAIN_TABLE}, world)
        self.ensure(world)

    def _reach_gateway(self, link: Link, there: set[str], world: World) -> None:
        """What the kernel made with the address that covers it goes with a flush, and does not come back by itself."""
        gateway = ipaddress.ip_address(self.gateway)
        for own in (item.interface for item in world.pod.addresses(link)):
            if gateway in own.network and str(own.network) not in there:
                world.pod.add_route(link, KernelRoute.connected(own), onlink=False)

    def accepting(self, reported: Result) -> PodRoute | None:
        told = [route.gw for route in reported.routes if route.dst == self.dst]
        return self if "" in told or self.gateway in told else None

    def describe(self) -> str:
        return f"route {self._spelled()} dev {self.link} in the pod"

    def _is(self, route: KernelRoute) -> bool:
        """Whether it is this one; in another table it may be sbr's, which has its default route for all by a far gateway."""
        if route.gateway != self.gateway or route.table == LOCAL_TABLE:
            return False
        if route.table != self.table:
            own, wider = ipaddress.ip_network(self.dst), ipaddress.ip_network(route.dst)
            return own.network_address in wider and wider.prefixlen <= own.prefixlen
        numbers = ("priority",) if route.several else ("mtu", "advmss", "priority")
        wanted = {name: min(getattr(self, name), _MOST.get(name, getattr(self, name))) for name in numbers}
        return route.dst == self.dst and all(number in (0, getattr(route, name)) for name, number in wanted.items())

    def _spelled(self) -> str:
        via = f" via {self.gateway}" if self.gateway else ""
        named = {"mtu": self.mtu, "advmss": self.advmss, "metric": self.priority}
        extra = "".join(f" {name} {value}" for name, value in named.items() if value)
        return f"{self.dst}{via}{extra}{f' table {self.table}' if self.table != 254 else ''}"


class GatewayRoute(PodRoute):
    """The way to a gateway no address of the pod covers, on the link: plugins after ours that route by it look for that (sbr).

    No result tells of it.
    """

    def accepting(self, reported: Result) -> GatewayRoute:
        return self


@dataclass(frozen=True)
class HostRoute(Resource):
    """The host's route to one pod address (/32 or /128) through a link of the host.

    `source` is the host's address to speak from, the one the pod can answer; empty leaves the choice.
    """

    link: str
    dst: str
    source: str
    mend = REFRESH

    def ensure(self, world: World) -> None:
        link = required(world.host.link_by_name(self.link), self.link)
        if world.make(self, lambda: self.add(world, link)):
            return
        there = self._found(world, link)  # on our own link it may be a lost pod's, and leads where ours is to lead
        if there is None:
            raise Conflict(f"this host has another route to {self.dst} already")
        if self.source not in ("", there.source):
            world.host.delete_route(link, self.dst)
            self.add(world, link)

    def add(self, world: World, link: Link) -> None:
        """Ask for it, whoever has it."""
        route = KernelRoute(self.dst, "", MAIN_TABLE, 0, 0, 0, SCOPE_LINK, self.source)
        world.host.add_route(link, route, onlink=False)

    def differences(self, world: World) -> Iterator[str]:
        link = world.host.link_by_name(self.link)
        there = self._found(world, link) if link else None
        if link and there is None:
            yield f"host route {self.dst} dev {self.link} is missing"
        elif there and self.source not in ("", there.source):
            yield f"host route {self.dst} dev {self.link} is from {there.source or 'any address'}, not {self.source}"

    def remove(self, world: World) -> None:
        link = world.host.link_by_name(self.link)
        if link:
            world.host.delete_route(link, self.dst)

    def describe(self) -> str:
        return f"route {self.dst} dev {self.link}{f' src {self.source}' * bool(self.source)} on the host"

    def _found(self, world: World, link: Link) -> KernelRoute | None:
        family = ipaddress.ip_network(self.dst).version
        return next((route for route in world.host.routes(link, family) if route.dst == self.dst), None)


def restore(ways: Iterable[HostRoute | HostNeighbour], link: Link, world: World) -> None:
    """Make again what others have through a link of the host, where it is lost; nothing of it is this call's to take back."""
    for item in ways:
        with suppress(KernelRefused):  # there already, or from an address that is not: that one's CHECK says so
            item.add(world, link)
