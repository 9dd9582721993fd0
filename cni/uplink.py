"""The link an attachment's traffic leaves by, which decides its MTU."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from cni.errors import InvalidConfig
from cni.kernel.view import Link
from cni.resources import Uplink, UplinkQuery

if TYPE_CHECKING:
    from cni.kernel.netlink import Rtnl


def find(host: Rtnl, query: UplinkQuery) -> Uplink | None:
    """The uplink, or None on a host without a default route.

    Raises InvalidConfig where the configuration names a link or address this host lacks.
    """
    link = _named(host, query) or _towards(host, query) or _default(host)
    if link is None:
        return None
    return Uplink(link.name, link.mtu, link.mac, _addresses(host, link) if query.addresses else ())


def _named(host: Rtnl, query: UplinkQuery) -> Link | None:
    if query.dev:
        link = host.link_by_name(query.dev)
        if link is None:
            raise InvalidConfig(
                f"{query.where}: {'the pod' if query.in_pod else 'this host'} has no link {query.dev!r}"
            )
        return link
    return _holding(host, query) if query.local else None


def _holding(host: Rtnl, query: UplinkQuery) -> Link:
    local = ipaddress.ip_address(query.local)
    for link in host.links():
        if local in (held.interface.ip for held in host.addresses(link)):
            return link
    raise InvalidConfig(f"$.vxlan.local: no link of this host holds {query.local}")


def _towards(host: Rtnl, query: UplinkQuery) -> Link | None:
    index = host.route_to(ipaddress.ip_address(query.remote)) if query.remote else 0
    return host.link_by_index(index) if index else None


def _default(host: Rtnl) -> Link | None:
    index = host.default_route()
    return host.link_by_index(index) if index else None


def _addresses(host: Rtnl, link: Link) -> tuple[str, ...]:
    held = (item.interface for item in host.addresses(link))
    return tuple(str(item) for item in held if not item.is_link_local)
