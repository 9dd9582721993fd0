"""What lets a pod's packets leave its network: forwarding, and masquerading under the node's address."""

from __future__ import annotations

from collections.abc import Iterator

from cni.errors import InvalidConfig
from cni.naming import Attachment, interface_of
from cni.protocol.config import NetConf
from cni.protocol.result import Result
from cni.resources import Host, HostSysctl, Ipv6Forwarding, Resource


def forwarding(family: int) -> Resource:
    """The node forwards packets of an IP version (4 or 6)."""
    if family == 6:
        return Ipv6Forwarding("net.ipv6.conf.all.forwarding", "1")
    return HostSysctl("net.ipv4.ip_forward", "1")


def spared(netconf: NetConf) -> tuple[str, ...]:
    """The networks in which pods keep their addresses, though they are masqueraded. Raises InvalidConfig where they are not."""
    networks = tuple(netconf.get("nonMasqueradeCIDRs") or ())
    if networks and not netconf.get("ipMasq"):
        raise InvalidConfig("$.nonMasqueradeCIDRs: belongs to ipMasq")
    return networks


def masquerading(
    attachment: Attachment, lease: Result, host: Host, *, wanted: bool, within: tuple[str, ...] = ()
) -> Iterator[Resource]:
    """A pod's addresses are hidden outside their subnets and the networks `within` which they are not, in the node's rule
    backend. Of one that nobody remembers only its name is known, and any may be: it is looked for whether it is `wanted` or not.
    """
    backend = host.rules
    if not (wanted or backend):
        return
    from cni.kernel.netfilter import NFTABLES  # a call without masquerading loads nothing of it
    from cni.resources import (
        FreshAddress,
        IptablesMasquerade,
        IptablesMasqueradeRules,
        Masquerade,
        NftMasquerade,
        NftMasqueradeRules,
    )

    in_nft = backend == NFTABLES
    rules = NftMasqueradeRules if in_nft else IptablesMasqueradeRules
    masquerade = NftMasquerade if in_nft else IptablesMasquerade
    interfaces = [interface_of(ip.address) for ip in lease.ips] if wanted else []
    for family in (4, 6) if host.lost and backend else ():
        yield from (rules(backend, family), masquerade(backend, family, "", "", str(attachment)))
    for family in sorted({interface.version for interface in interfaces}):
        yield rules(backend, family)
    for own in interfaces:
        alike = tuple(network for network in within if interface_of(network).version == own.version)
        item = masquerade(backend, own.version, str(own.ip), str(own.network), str(attachment), alike)
        others = (other for _, other in host.others(item.address) if isinstance(other, Masquerade))
        if in_nft and any(
            other.address == item.address and other.near != item.near for other in others
        ):  # until its DEL
            yield FreshAddress(item.address, policy=False, masquerade=True)
        yield item
