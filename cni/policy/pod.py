"""A policy as resources: on the host, out of the pod's reach, or inside a pod that has no host side."""

from __future__ import annotations

from dataclasses import dataclass

from cni.errors import Conflict, InvalidConfig
from cni.naming import Attachment
from cni.policy.model import Policy
from cni.policy.rules import addresses_of, chain_rules
from cni.protocol.result import Result
from cni.resources import AntiSpoof, BridgeFilter, GuardTable, Host, PodPolicy, PolicyTable, Resource


@dataclass(frozen=True)
class Isolation:
    """What holds a pod to its policy: `first` before its link exists, `then` before that goes up."""

    first: tuple[Resource, ...] = ()
    then: tuple[Resource, ...] = ()


def isolating(
    policy: Policy | None, attachment: Attachment, attached: Result, host: Host, bridge: str = ""
) -> Isolation:
    """Hold a pod to its policy on the host: its end there is `attachment`'s veth, on `bridge` if that is named.

    Raises InvalidConfig where the pod has no address, Conflict where another pod has the same.
    """
    if policy is None:
        return Isolation()
    mac = next(item.mac for item in attached.interfaces if item.name == attachment.ifname)
    addresses = addresses_of(attached, mac)
    if not addresses:
        raise InvalidConfig("$.policy: needs a pod with addresses; there is no ipam")
    _refuse_shared_addresses(addresses, host)
    pod = host.pod or str(attachment)
    rules = chain_rules(policy, addresses, attached.dns.nameservers, pod)
    on_bridge = (BridgeFilter(bridge),) if bridge else ()
    guard = (GuardTable(), AntiSpoof(attachment.host_interface, mac, addresses)) if policy.anti_spoof else ()
    return Isolation((PolicyTable(), PodPolicy(addresses, rules, not policy.host_access, pod)), (*on_bridge, *guard))


def _refuse_shared_addresses(addresses: tuple[str, ...], host: Host) -> None:
    for owner, other in host.others:
        if isinstance(other, PodPolicy) and (shared := set(other.addresses) & set(addresses)):
            raise Conflict(f"{owner} has a policy for {', '.join(sorted(shared))} too; one address has one policy")
