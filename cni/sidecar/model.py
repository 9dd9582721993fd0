"""What is captured in one pod: the values every rule follows from."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from cni.kernel.view import EVERYWHERE
from cni.sidecar.rule import Match
from cni.values import dataclass


@dataclass(frozen=True)
class Interception:
    """What is captured in one pod. Ports are 1 to 65535, ids numeric; a list that is None means everything.

    `wanted` is whether this pod has any of it, `backend` a wish (empty for what the pod and the node use),
    `resolvers` the pod's DNS servers, empty where nobody named them: then any destination is one.
    """

    port: int = 15001
    inbound_port: int = 15001
    tunnel_port: int = 0
    dns_port: int = 15053
    proxy_uids: tuple[int, ...] = (1337,)
    proxy_gids: tuple[int, ...] = (1337,)
    include_inbound_ports: tuple[int, ...] | None = None
    exclude_inbound_ports: tuple[int, ...] = ()
    include_outbound_cidrs: tuple[str, ...] | None = None
    exclude_outbound_cidrs: tuple[str, ...] = ()
    include_outbound_ports: tuple[int, ...] = ()
    exclude_outbound_ports: tuple[int, ...] = ()
    exclude_interfaces: tuple[str, ...] = ()
    virt_interfaces: tuple[str, ...] = ()
    include_groups: tuple[int, ...] | None = None
    exclude_groups: tuple[int, ...] = ()
    capture_dns: bool = False
    transparent: bool = False
    drop_invalid: bool = False
    deny_uncaptured: bool = False
    resolvers: tuple[str, ...] = ()
    backend: str = ""
    wanted: bool = True

    @property
    def captures_inbound(self) -> bool:
        """Whether any inbound port is captured."""
        return self.include_inbound_ports != ()

    @property
    def captures_outbound(self) -> bool:
        """Whether anything outbound is captured, of anybody."""
        anything = self.include_outbound_cidrs != () or self.include_outbound_ports or self.capture_dns
        return bool(anything and (self.include_groups != () or self.virt_interfaces))

    @property
    def open_inbound_ports(self) -> tuple[int, ...]:
        """Ports that are reached from outside without the proxy, the tunnel's among them."""
        tunnel = (self.tunnel_port,) if self.tunnel_port else ()
        return tuple(dict.fromkeys((*tunnel, *self.exclude_inbound_ports)))

    @property
    def hairpin_exceptions(self) -> tuple[int, ...]:
        """Ports of the pod's own address where the proxy meets no proxy: DNS and the tunnel."""
        return (53,) * self.capture_dns + ((self.tunnel_port,) if self.tunnel_port else ())

    @property
    def proxies(self) -> tuple[Match, ...]:
        """The owners of the proxy's sockets."""
        uids, gids = (Match("uid", uid) for uid in self.proxy_uids), _groups(self.proxy_gids)
        return (*uids, *gids)

    @property
    def included_groups(self) -> tuple[Match, ...] | None:
        """The only groups that are captured, or None for all."""
        return None if self.include_groups is None else _groups(self.include_groups)

    @property
    def excluded_groups(self) -> tuple[Match, ...]:
        """Groups that are not captured."""
        return _groups(self.exclude_groups)

    def excluded_cidrs(self, family: int) -> tuple[str, ...]:
        """Destinations of one family (4 or 6) that are not captured."""
        return _of_family(self.exclude_outbound_cidrs, family)

    def included_destinations(self, family: int) -> tuple[tuple[Match, ...], ...]:
        """Destinations of one family that are captured; the empty match is every destination."""
        if self.include_outbound_cidrs is None:
            return ((),)
        cidrs = _of_family(self.include_outbound_cidrs, family)
        return tuple(() if cidr == EVERYWHERE[family] else (Match("destination", cidr),) for cidr in cidrs)

    def resolvers_of(self, family: int) -> tuple[tuple[Match, ...], ...]:
        """The pod's DNS servers of one family; the empty match is any server, where none is named."""
        if not self.resolvers:
            return ((),)
        plain = [text.partition("%")[0] for text in self.resolvers]  # a packet has no zone
        return tuple((Match("destination", cidr),) for cidr in _of_family(plain, family))


def _groups(gids: Iterable[int]) -> tuple[Match, ...]:
    return tuple(Match("gid", gid) for gid in gids)


def _of_family(cidrs: Iterable[str], family: int) -> tuple[str, ...]:
    networks = (ipaddress.ip_network(cidr) for cidr in cidrs)
    return tuple(dict.fromkeys(str(network) for network in networks if network.version == family))
