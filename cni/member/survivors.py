"""Pods that live while the state does not know of them: it was lost, or is an older copy. Their addresses are nobody else's."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from cni import log
from cni.cluster.model import Endpoint
from cni.kernel.netlink import Rtnl
from cni.naming import Attachment
from cni.state import Store

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


def _attachment(endpoint: Endpoint) -> Attachment:
    return Attachment(endpoint.network, endpoint.container, endpoint.ifname)
