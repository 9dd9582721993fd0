"""How a node that is drawn is: what of its pods and networks is not as it was made, the ports that lead to pods, and its uplinks."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress

from cni import uplink
from cni.command.doctor import attached, overlays
from cni.command.libcni import ports_of
from cni.command.picture.pictured import Health, Uplink
from cni.errors import CniError
from cni.kernel.netlink import Rtnl
from cni.kernel.view import Link
from cni.resources import FloodList, Macvlan, UplinkQuery, VxlanLink
from cni.state import Record


def health_of(options: argparse.Namespace, records: Iterable[Record]) -> Health:
    """All that the doctor would say of attachments and tunnels, without asking other hosts."""
    tunnels: dict[str, list[str]] = {}
    with suppress(CniError):
        tunnels = overlays.ailing(options)
    known = {record.attachment for record in records}
    ports = {who: found for who in known if (found := ports_of(who, options.cache_dir))}
    return Health(attached.ailing(options), tunnels, ports)


def uplinks_of(records: Iterable[Record]) -> list[Uplink]:
    """The links of the default routes, and those by which tunnels leave."""
    with closing(Rtnl()) as host:
        links = {index: link for index in host.default_route() if (link := host.link_by_index(index))}
        for name in _ways(host, records):
            link = host.link_by_name(name)
            links |= {link.index: link} if link else {}
        return [_uplink(host, link) for link in links.values()]


def _ways(host: Rtnl, records: Iterable[Record]) -> Iterator[str]:
    """The link each tunnel's packets leave by, and a macvlan's master, which is one."""
    for record in records:
        remotes = tuple(vtep for item in record.resources if isinstance(item, FloodList) for vtep in item.vteps)
        for tunnel in (item for item in record.resources if isinstance(item, VxlanLink)):
            with suppress(CniError):
                found = uplink.find(host, UplinkQuery(tunnel.dev, tunnel.local, remotes))
                yield from [found.name] if found else []
        yield from (item.master for item in record.resources if isinstance(item, Macvlan) and not item.in_pod)


def _uplink(host: Rtnl, link: Link) -> Uplink:
    held = (item.interface for item in host.addresses(link))
    addresses = tuple(str(item) for item in held if not item.is_link_local)
    fault = "it is set down" if not link.up else "it has no carrier" if link.state in ("DOWN", "LOWERLAYERDOWN") else ""
    return Uplink(link.name, link.mtu, addresses, fault)
