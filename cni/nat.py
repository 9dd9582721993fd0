"""What lets a pod's packets leave its network: forwarding, and masquerading under the node's address."""

from __future__ import annotations

from collections.abc import Iterator

from cni.naming import Attachment, interface_of
from cni.protocol.result import Result
from cni.resources import Host, HostSysctl, Ipv6Forwarding, Resource


def forwarding(family: int) -> Resource:
    """The node forwards packets of an IP version (4 or 6)."""
    if family == 6:
        return Ipv6Forwarding("net.ipv6.conf.all.forwarding", "1")
    return HostSysctl("net.ipv4.ip_forward", "1")


def masquerading(attachment: Attachment, lease: Result, host: Host, *, wanted: bool) -> Iterator[Resource]:
    """A pod's addresses are hidden outside their subnets, in the node's rule backend. Of one that nobody remembers only its
    name is known, and any may be: it is looked for whether it is `wanted` or not.
    """
    backend = host.rules
    if not (wanted or backend):
        return
    from cni.kernel.netfilter import NFTABLES  # a call without masquerading loads nothing of it
    from cni.resources import IptablesMasquerade, IptablesMasqueradeRules, NftMasquerade, NftMasqueradeRules

    in_nft = backend == NFTABLES
    rules = NftMasqueradeRules if in_nft else IptablesMasqueradeRules
    masquerade = NftMasquerade if in_nft else IptablesMasquerade
    interfaces = [interface_of(ip.address) for ip in lease.ips] if wanted else []
    for family in (4, 6) if host.lost and backend else ():
        yield from (rules(backend, family), masquerade(backend, family, "", "", str(attachment)))
    for family in sorted({interface.version for interface in interfaces}):
        yield rules(backend, family)
    for own in interfaces:
        yield masquerade(backend, own.version, str(own.ip), str(own.network), str(attachment))
