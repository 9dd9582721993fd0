"""The link an attachment's traffic leaves by, which decides its MTU."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from cni.errors import InvalidConfig, TryAgainLater
from cni.kernel.view import Link
from cni.resources import Uplink, UplinkQuery

if TYPE_CHECKING:
    from cni.kernel.netlink import Rtnl


def find(host: Rtnl, query: UplinkQuery) -> Uplink | None:
    """The uplink, or None on a host without a default route. Of a route with several next hops it is the first one's link,
    with the least of their MTUs: nobody knows which way a packet takes.

    Raises InvalidConfig where the configuration names a link or address this host lacks.
    """
    links = _named(host, query) or _leaving(host, query)
    if not links:
        return None
    first, mtu = links[0], links[0].mtu if query.master else min(link.mtu for link in links)
    return Uplink(first.name, mtu, first.mac, _addresses(host, first) if query.addresses else (), first.up)


def is_own(address: str) -> bool:
    """Whether this host has an address, on whatever link."""
    from cni.kernel.netlink import Rtnl  # a call that asks the kernel nothing does not load it

    host = Rtnl.kept()
    try:
        return bool(host.holding(ipaddress.ip_address(address)))
    finally:
        host.give_back()


def _named(host: Rtnl, query: UplinkQuery) -> list[Link]:
    if query.dev:
        link = host.link_by_name(query.dev)
        if link is None:
            raise InvalidConfig(
                f"{query.where}: {'the pod' if query.in_pod else 'this host'} has no link {query.dev!r}"
            )
        return [link]
    return _holding(host, query) if query.local else []


def _holding(host: Rtnl, query: UplinkQuery) -> list[Link]:
    """The link that has a VTEP's address; one on a loopback is reached by others, and says nothing of an MTU."""
    link = host.link_by_index(host.holding(ipaddress.ip_address(query.local)))
    if link is None and query.vtep:
        raise TryAgainLater(f"no link of this host holds {query.local}, to which the cluster's other hosts send")
    if link is None:
        raise InvalidConfig(f"$.vxlan.local: no link of this host holds {query.local}")
    return [] if link.loopback else [link]


def _leaving(host: Rtnl, query: UplinkQuery) -> list[Link]:
    """The links of the way to the first remote that is another host, else of the default route: as many as it has next hops."""
    remotes = map(ipaddress.ip_address, query.remotes)
    remote = next((item for item in remotes if not host.holder_of(item)), None)
    towards = host.route_to(remote) if remote else ()
    return [link for index in towards or host.default_route() if (link := host.link_by_index(index))]


def _addresses(host: Rtnl, link: Link) -> tuple[str, ...]:
    held = (item.interface for item in host.addresses(link))
    return tuple(str(item) for item in held if not item.is_link_local)
