"""Addresses that no answer lets a pod reach unless that is said: the node's, pods', and what no name of the world stands for.

Who owns a name may have it point anywhere (DNS rebinding); what is in the cluster is reached by policies that select pods.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from contextlib import closing, suppress

from cni.errors import CniError
from cni.kernel.netlink.rtnl import Rtnl
from cni.naming import IPAddress
from cni.protocol.result import Result
from cni.state import Store, uses

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NEVER: tuple[_Network, ...] = tuple(
    map(
        ipaddress.ip_network,
        ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/127", "fe80::/10", "ff00::/8"),
    )
)
#: What an IPv6 address may carry an IPv4 one in, and from which byte on: mapped (RFC 4291, 2.5.5.2), translated (RFC 6052, 8215), 6to4
#: (RFC 3056).
_CARRIERS = (
    (ipaddress.IPv6Network("::ffff:0:0/96"), 12),
    (ipaddress.IPv6Network("64:ff9b::/96"), 12),
    (ipaddress.IPv6Network("64:ff9b:1::/48"), 12),
    (ipaddress.IPv6Network("2002::/16"), 2),
)
#: Who gives pods addresses of the network that the node itself is in.
_OUTSIDE = "macvlan"


class Inward:
    """What the node and its pods have, as of the last look."""

    def __init__(self) -> None:
        self._networks: frozenset[_Network] = frozenset()
        self._addresses: frozenset[IPAddress] = frozenset()

    def look(self) -> None:
        """Ask the kernel and the state; what cannot be read now is as it was."""
        with suppress(CniError), closing(Rtnl()) as host:
            self._addresses = frozenset(host.own_addresses())
        with suppress(CniError):
            self._networks = frozenset(_of_pods())

    def has(self, packed: bytes, into: Iterable[_Network]) -> bool:
        """Whether an address is one of these, and of none that is said."""
        address = _carried(ipaddress.ip_address(packed))
        if any(address in network for network in into if network.version == address.version):
            return False
        networks = (*_NEVER, *self._networks)
        return address in self._addresses or any(
            address in network for network in networks if network.version == address.version
        )


def _carried(address: IPAddress) -> IPAddress:
    if address.version == 6:
        for carrier, at in _CARRIERS:
            if address in carrier:
                return ipaddress.IPv4Address(address.packed[at : at + 4])
    return address


def _of_pods() -> Iterable[_Network]:
    """The subnets pods of this node are in, and those of all networks its cluster shares."""
    store = Store.reading(uses.DEFAULT_FOLDER)
    if store is None:
        return
    with closing(store):
        for network, _ in store.shared():
            yield from (ipaddress.ip_network(pool.subnet) for pool in network.pools)
        for record in store.records_on_node() or ():
            with suppress(CniError):  # of a row that somebody changed nothing is known
                for ip in Result.read(record.result or {}).ips:
                    known = ipaddress.ip_interface(ip.address)
                    yield ipaddress.ip_network(known.ip) if record.plugin == _OUTSIDE else known.network
