"""Pods that live while the state does not know of them: it was lost, is an older copy, or another network made them, from which this
host is moved. Their addresses are nobody else's.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Iterator

from cni import log
from cni.cluster.model import Block, Endpoint
from cni.kernel import hostsdir
from cni.kernel.netlink import Rtnl
from cni.kernel.view import Link
from cni.naming import Attachment, is_host_interface
from cni.state import Store
from cni.state.leases import ANOTHER_NETWORK

#: Whose pods have a link on the host that is called after them.
_PLUGIN = "bridge-vxlan"


def take_up(state: Store, said: Iterable[Endpoint]) -> None:
    """Lease the addresses of those of them that live, as the cluster was told of them, in a transaction of the caller's. They have
    no record: DEL, gc and `agent-cni ipam` see to them as to any that lost theirs.
    """
    for endpoint in said:
        attachment, address = _attachment(endpoint), ipaddress.ip_address(endpoint.address)
        if state.holder(endpoint.network, address) is None:
            state.lease(attachment, _PLUGIN, address)
            state.say([endpoint], _PLUGIN)
            log.warning("member", f"{attachment} lives, and the state knew nothing of it: {address} stays its own")


def living(endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    """Those whose link is there. Raises KernelRefused."""
    pods = [endpoint for endpoint in endpoints if endpoint.container]
    if not pods:
        return []
    host = Rtnl()  # a thread's own
    try:
        return [endpoint for endpoint in pods if host.link_by_name(_attachment(endpoint).host_interface)]
    finally:
        host.close()


def take_up_nameless(state: Store, blocks: Collection[Block], node: str) -> None:
    """The same of those the cluster was never told of. No more is known of them than their links, whose names stand for the
    containers', and what those are called that have names. Raises KernelRefused.
    """
    if found := nameless(state, blocks, node):
        with state.transaction():
            take_up(state, found)


def of_another_network(blocks: Collection[Block]) -> list[Endpoint]:
    """The addresses of these blocks that pods have which another network made. Raises KernelRefused."""
    host = Rtnl()
    try:
        links = [link for link in host.links() if link.parent_elsewhere and not is_host_interface(link.name)]
        return [it for link in links for it in _behind(host, link, blocks, "")]
    finally:
        host.close()


def take_up_anothers(state: Store, found: Iterable[Endpoint]) -> None:
    """Lease what they have, in a transaction of the caller's; `free_anothers` gives it back, for no DEL is ours."""
    for endpoint in found:
        address = ipaddress.ip_address(endpoint.address)
        if state.holder(endpoint.network, address) is None:
            state.lease(_attachment(endpoint), ANOTHER_NETWORK, address)


def free_anothers(state: Store, blocks: Collection[Block]) -> None:
    """As long as there are such, have no longer what is gone, and what has come meanwhile. Raises KernelRefused."""
    if held := {*state.leases_by(ANOTHER_NETWORK)}:
        there = {(it.network, ipaddress.ip_address(it.address)): it for it in of_another_network(blocks)}
        if there.keys() != held:
            with state.transaction():
                for key in held - there.keys():
                    state.release(*key)
                take_up_anothers(state, there.values())


def nameless(state: Store, blocks: Collection[Block], node: str) -> list[Endpoint]:
    """The addresses of these blocks that the other ends of links of ours have of whom the state knows nothing. Raises KernelRefused."""
    host = Rtnl()
    try:
        links = [link for link in host.links() if link.parent_elsewhere and is_host_interface(link.name)]
        known = {
            attachment.host_interface for _, attachment, _ in state.all_leases()
        }  # read last: whose link has gone has none
        return [it for link in links if link.name not in known for it in _behind(host, link, blocks, node)]
    finally:
        host.close()


def _behind(host: Rtnl, link: Link, blocks: Collection[Block], node: str) -> Iterator[Endpoint]:
    if found := host.other_end(link):
        namespace, end = found
        for held in host.addresses(end, namespace):
            for block in blocks:
                if held.interface.ip in block.addresses:
                    unnamed = Endpoint(block.network, str(held.interface.ip), node, end.mac, link.name, end.name)
                    yield _named(unnamed)


def _named(endpoint: Endpoint) -> Endpoint:
    """With what is known of it besides, where it has names: their file is not the state's."""
    for entry in hostsdir.entries(endpoint.network):
        if entry.attachment.host_interface == endpoint.container:
            _, container, ifname = entry.attachment
            known = {"container": container, "ifname": ifname, "pod": entry.pod, "names": " ".join(entry.names)}
            return endpoint._replace(**known, unhealthy=bool(entry.unhealthy))
    return endpoint


def _attachment(endpoint: Endpoint) -> Attachment:
    return Attachment(endpoint.network, endpoint.container, endpoint.ifname)
