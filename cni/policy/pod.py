"""A policy as resources: on the host, out of the pod's reach, or inside a pod that has no host side.

How a pod is held stands in ``held.py``, which a call without a policy does not load.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cni.naming import Attachment, interface_of
from cni.policy.owners import refuse_shared_addresses
from cni.protocol.result import Result
from cni.resources import FreshAddress, Host, HostPort, PeerEntries, Resource
from cni.values import dataclass

if TYPE_CHECKING:
    from cni.policy.model import Policy


@dataclass(frozen=True)
class Isolation:
    """What holds a pod to its policy: `first` before its link exists, `then` before that goes up."""

    first: tuple[Resource, ...] = ()
    then: tuple[Resource, ...] = ()


def isolating(
    policy: Policy | None,
    attachment: Attachment,
    attached: Result,
    host: Host,
    port: HostPort | None,
) -> Isolation:
    """Hold a pod to its policy: on the host where the pod has a `port` there, else in its own namespace.

    `attached` has the pod's interface with its MAC and addresses. Raises InvalidConfig where it has none,
    Conflict where another pod has the same.
    """
    if policy is None or host.unleased:
        return Isolation()
    from cni.policy.held import holding

    return Isolation(*holding(policy, attachment, attached, host, port))


def peering(lease: Result, host: Host) -> Iterator[Resource]:
    """What makes a pod without a policy one whom others' policies may mean, wherever its interface is."""
    own = tuple(str(interface_of(ip.address).ip) for ip in lease.ips)
    if own and not (host.lost or host.unleased):
        yield PeerEntries(own, host.pod)


def unheld(
    attachment: Attachment, lease: Result, host: Host, *, policed: bool, masqueraded: bool
) -> Iterator[Resource]:
    """What keeps a pod on the host from inheriting what held or hid somebody else under its addresses: a policy, if it has
    none, and masquerading, if it has none. Raises Conflict where that one is there.
    """
    own = [str(interface_of(ip.address).ip) for ip in lease.ips] if not host.lost else []
    if own and not policed:
        refuse_shared_addresses(attachment, tuple(own), host, policed=False)
        yield from peering(lease, host)
    others = [item for _, item in host.others(*own)] if own and not masqueraded else []
    hidden: set[str] = set()
    if others:
        from cni.resources import Masquerade  # hardly ever has anybody the address of a pod that comes

        hidden = {item.address for item in others if isinstance(item, Masquerade)}
    for address in own:
        masquerading = not masqueraded and address not in hidden
        if not policed or masquerading:
            yield FreshAddress(address, not policed, masquerading)
