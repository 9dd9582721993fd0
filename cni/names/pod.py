"""A pod's names as resources: the server of its network, and the file that tells that of the pod. The rest of the room is not loaded by
a call without names.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cni.errors import InvalidConfig
from cni.naming import Attachment, interface_of
from cni.protocol.call import Call
from cni.protocol.config import NetConf
from cni.protocol.result import DNS, Result
from cni.resources import Host, Resource
from cni.values import dataclass

if TYPE_CHECKING:
    from cni.names.config import Names


@dataclass(frozen=True)
class Naming:
    """What tells a pod's names: the `server` before its link, and `last`, once it is there."""

    server: tuple[Resource, ...] = ()
    last: tuple[Resource, ...] = ()


def section_of(netconf: NetConf, call: Call) -> Names | None:
    """The names a main plugin's configuration asks for, or None. Raises InvalidConfig."""
    if netconf.get("names") is None:
        if netconf.get("health"):
            raise InvalidConfig("$.health: belongs to names: a pod that is not well is not answered")
        return None
    from cni.names.config import read

    return read(netconf, call)


def naming(names: Names | None, attachment: Attachment, lease: Result, whole: Result, host: Host) -> Naming:
    """Have a pod be known by its names in a network whose subnets are those of `whole`."""
    if names is None or host.unleased:
        return Naming()
    from cni.resources import NameServer, PodNames

    zones = tuple(dict.fromkeys(zone for ip in whole.ips for zone in _zones(ip.address)))
    server = NameServer(attachment.network, names.bridge, names.domain, zones, names.upstream, names.consul)
    addresses = tuple(str(interface_of(ip.address).ip) for ip in lease.ips)
    own = PodNames(*attachment, addresses, names.known_as, host.pod, names.health)
    return Naming((server,), (own,) if names.known_as or host.lost else ())


def resolved(names: Names | None, lease: Result, dns: DNS | None) -> DNS | None:
    """What a pod's resolver goes by: the gateways of its own addresses, and what is said besides."""
    if names is None:
        return dns
    said = lease.dns if dns is None else dns
    servers = tuple(dict.fromkeys(ip.gateway for ip in lease.ips if ip.gateway))
    search = tuple(dict.fromkeys((*names.search, *said.search)))
    return DNS(servers, said.domain or names.domain, search, said.options)


def _zones(subnet: str) -> Iterator[str]:
    """The zones of reverse names that a subnet is made of (RFC 1035, 3.5; RFC 3596, 2.5)."""
    network = interface_of(subnet).network
    step = 8 if network.version == 4 else 4
    length = min(-(-network.prefixlen // step) * step, network.max_prefixlen)
    for part in network.subnets(new_prefix=length):
        digits = ipaddress.ip_address(part.network_address).reverse_pointer.split(".")
        yield ".".join(digits[(network.max_prefixlen - length) // step :])
