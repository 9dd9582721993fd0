"""What every pod interface has, whatever link it is: MAC, addresses, routes, and their announcement."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from functools import cached_property, partial

from cni.errors import CniError, InvalidConfig, InvalidEnvironment
from cni.kernel import sysctl
from cni.kernel.view import EVERYWHERE, MAIN_TABLE, SCOPE_LINK, SCOPE_UNIVERSE
from cni.naming import Attachment, interface_of, is_mac, mac_of_address
from cni.protocol.call import Call
from cni.protocol.config import NetConf, folded
from cni.protocol.result import DNS, Interface, IPConfig, Result, Route, refuse_gateway
from cni.resources import Announcement, GatewayRoute, PodAddress, PodLink, PodRoute, PodSysctl, Resource, Settled
from cni.values import dataclass, replace

#: The least MTU of an Ethernet link, in bytes (RFC 791, ETH_MIN_MTU).
MINIMUM_MTU = 68


def chosen_mac(netconf: NetConf, call: Call) -> str:
    """The MAC somebody asked for, or nothing: runtimeConfig, ``args.cni``, CNI_ARGS, the configuration."""
    asked: tuple[tuple[object, str, type[CniError]], ...] = (
        (folded(netconf.get("runtimeConfig"), "mac"), "$.runtimeConfig.mac", InvalidConfig),
        (((netconf.get("args") or {}).get("cni") or {}).get("mac"), "$.args.cni.mac", InvalidConfig),
        (call.arguments().get("MAC"), "CNI_ARGS: MAC", InvalidEnvironment),
        (netconf.get("mac"), "$.mac", InvalidConfig),
    )
    for value, where, error in asked:
        if value and not (isinstance(value, str) and is_mac(value)):
            raise error(f"{where}: {value!r} is no unicast MAC address")
    return next((str(value).lower().replace("-", ":") for value, _, _ in asked if value), "")


def chosen_dns(netconf: NetConf) -> DNS | None:
    """What a configuration says of resolvers, that there be none too (``"nameservers": []``); None where it says nothing."""
    return DNS.read(netconf["dns"]) if netconf.get("dns") else None


def with_gateways(lease: Result, named: tuple[str, ...] = ()) -> Result:
    """A lease whose addresses all name a gateway: of `named` the one of their family, else the lease's own,
    else the first address of their subnet.

    Raises InvalidConfig where that is the pod's own address, or the subnet has no other.
    """
    by_family: dict[int, str] = {ipaddress.ip_address(text).version: text for text in named}
    ips = (replace(ip, gateway=by_family.get(ip.family) or ip.gateway or _first_of_subnet(ip)) for ip in lease.ips)
    return replace(lease, ips=tuple(ips))


def _first_of_subnet(ip: IPConfig) -> str:
    own = interface_of(ip.address)
    first = own.network[1] if own.network.num_addresses > 1 else own.ip
    if first == own.ip:
        raise InvalidConfig(f"no gateway is given for {own}, and the first address of its subnet is the pod's own")
    return str(first)


def with_default_routes(lease: Result) -> Result:
    """A lease with a default route of each family it has; one that stands there already is kept."""
    there = {route.dst for route in lease.routes}
    families = sorted({ip.family for ip in lease.ips})
    missing = [family for family in families if EVERYWHERE[family] not in there and lease.gateway(family)]
    added = tuple(Route(EVERYWHERE[family], lease.gateway(family)) for family in missing)
    return replace(lease, routes=lease.routes + added)


@dataclass(frozen=True)
class PodNet:
    """A pod's end of an attachment. `asked_mac` empty derives the MAC, `mtu` is in bytes, and `dad`
    waits for IPv6 duplicate address detection. `linked` says that it was there before its addresses were known.
    """

    attachment: Attachment
    asked_mac: str
    mtu: int
    lease: Result
    dad: bool
    linked: bool = False

    @cached_property
    def mac(self) -> str:
        """The MAC asked for, else the address's own, else the attachment's."""
        addresses = [interface_of(ip.address).ip for ip in self.lease.ips if not self.linked]
        first = min(addresses, key=lambda address: address.version, default=None)
        return self.asked_mac or (mac_of_address(first) if first else self.attachment.pod_mac)

    def resources(self, first: Iterable[Resource] = ()) -> Iterator[Resource]:
        """Settings, addresses and what must be there `first` before the link goes up, routes after it."""
        link = self.attachment.ifname
        if self.lease.ips or self.linked:
            yield from self._ipv6_settings()
        for ip in self.lease.ips:
            yield PodAddress(link, ip.address, self.dad)
        yield from first
        yield PodLink(link, self.mac, self.mtu)
        routes = [self._route(route) for route in dict.fromkeys(self.lease.routes)]
        used = {route.gateway for route in routes if route.onlink}
        for gateway in dict.fromkeys(ip.gateway for ip in self.lease.ips if ip.gateway in used):
            yield from _way_to(gateway, link)
        yield from routes

    def announcements(self) -> Iterator[Resource]:
        """What makes the addresses usable at once, for the pod and for its neighbours."""
        link = self.attachment.ifname
        if self.dad and any(ip.family == 6 for ip in self.lease.ips):
            yield Settled(link)
        if self.lease.ips:
            yield Announcement(link, self.mac, tuple(ip.address.split("/")[0] for ip in self.lease.ips))

    def result(
        self, before: tuple[Interface, ...], netns: str, dns: DNS | None, after: tuple[Interface, ...] = ()
    ) -> Result:
        """The attachment's result: this end stands between host interfaces; `dns`, where there is one, wins over the IPAM's."""
        own = Interface(self.attachment.ifname, self.mac, self.mtu, netns)
        ips = tuple(replace(ip, interface=len(before)) for ip in self.lease.ips)
        return Result((*before, own, *after), ips, self.lease.routes, self.lease.dns if dns is None else dns)

    def _ipv6_settings(self) -> Iterator[Resource]:
        """Addresses are the IPAM's: a router's advertisements add none, and no route, whatever the pod's own default."""
        setting = partial(sysctl.of_link, 6, self.attachment.ifname)
        yield PodSysctl(setting("accept_ra"), "0")
        yield PodSysctl(setting("autoconf"), "0")
        used = (text for ip in self.lease.ips for text in (ip.address, ip.gateway))
        if not any(":" in text for text in (*used, *(route.gw for route in self.lease.routes))):
            return
        yield PodSysctl("net.ipv6.conf.lo.disable_ipv6", "0")
        yield PodSysctl(setting("disable_ipv6"), "0")
        yield PodSysctl(setting("keep_addr_on_down"), "1")
        yield PodSysctl(setting("accept_dad"), str(int(self.dad)))

    def _route(self, route: Route) -> PodRoute:
        gateway = route.gw or ("" if route.scope == SCOPE_LINK else self.lease.gateway(route.family))
        refuse_gateway("the IPAM's routes", route.dst, gateway)
        scope = (
            route.scope if route.scope is not None else (SCOPE_UNIVERSE if gateway or route.family == 6 else SCOPE_LINK)
        )
        return PodRoute(
            self.attachment.ifname, route.dst, gateway, route.mtu, route.advmss, route.priority,
            route.table or MAIN_TABLE, scope, bool(gateway) and not self._covers(gateway),
        )  # fmt: skip

    def _covers(self, gateway: str) -> bool:
        address = ipaddress.ip_address(gateway)
        return any(address in interface_of(ip.address).network for ip in self.lease.ips)


def _way_to(gateway: str, link: str) -> Iterator[Resource]:
    """That of a pod's own gateway; a link-local one is on every link."""
    address = ipaddress.ip_address(gateway)
    if address.version == 4 or not address.is_link_local:
        scope = SCOPE_LINK if address.version == 4 else SCOPE_UNIVERSE
        yield GatewayRoute(link, str(ipaddress.ip_network(address)), "", 0, 0, 0, MAIN_TABLE, scope, onlink=False)
