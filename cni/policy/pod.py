"""A policy as resources: on the host, out of the pod's reach, or inside a pod that has no host side."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cni.errors import Conflict, InvalidConfig
from cni.naming import Attachment
from cni.policy.model import Allowance, Policy, hosts
from cni.policy.rules import addresses_of, chain_rules
from cni.protocol.result import Result
from cni.resources import AntiSpoof, BridgeFilter, GuardTable, Host, HostPort, PodPolicy, PolicyTable, Resource


@dataclass(frozen=True)
class Isolation:
    """What holds a pod to its policy: `first` before its link exists, `then` before that goes up."""

    first: tuple[Resource, ...] = ()
    then: tuple[Resource, ...] = ()


def isolating(
    policy: Policy | None, attachment: Attachment, attached: Result, host: Host, port: HostPort | None
) -> Isolation:
    """Hold a pod to its policy: on the host where the pod has a `port` there, else in its own namespace.

    `attached` has the pod's interface with its MAC and addresses. Raises InvalidConfig where it has none,
    Conflict where another pod has the same.
    """
    if policy is None:
        return Isolation()
    mac = next((item.mac for item in attached.interfaces if item.name == attachment.ifname), "")
    if not mac:
        raise InvalidConfig(f"$.prevResult.interfaces: does not say which MAC {attachment.ifname} has")
    addresses = addresses_of(attached, mac)
    if not addresses:
        raise InvalidConfig("$.policy: needs a pod with addresses; there is no ipam")
    _refuse_shared_addresses(addresses, host)
    pod = host.pod or str(attachment)
    if port is None:
        return _in_pod(policy, attachment, addresses, attached, host)
    rules = chain_rules(policy, addresses, attached.dns.nameservers, pod)
    on_bridge = (BridgeFilter(port.bridge),) if port.bridge else ()
    guard = (GuardTable(), AntiSpoof(port.name, mac, addresses, port.lent)) if policy.anti_spoof else ()
    return Isolation((PolicyTable(), PodPolicy(addresses, rules, not policy.host_access, pod)), (*on_bridge, *guard))


def _in_pod(
    policy: Policy, attachment: Attachment, addresses: tuple[str, ...], attached: Result, host: Host
) -> Isolation:
    """The same chains where there is no host side. The node's addresses get in by a rule like any other."""
    node = [text.split("/")[0] for text in (host.uplink.addresses() if host.uplink else ())]
    if policy.host_access and policy.ingress is not None and node:
        policy = replace(policy, ingress=(*policy.ingress, Allowance(hosts(node))))
    pod = host.pod or str(attachment)
    rules = chain_rules(policy, addresses, attached.dns.nameservers, pod)
    link = attachment.ifname if policy.anti_spoof else ""
    return Isolation((), (PolicyTable(host.netns), PodPolicy(addresses, rules, False, pod, host.netns, link)))


def _refuse_shared_addresses(addresses: tuple[str, ...], host: Host) -> None:
    """Two networks of a node may have one address; a policy table that knows pods by address may not."""
    for owner, other in host.others(*addresses):
        if isinstance(other, PodPolicy) and (shared := set(other.addresses) & set(addresses)):
            raise Conflict(f"{owner} has a policy for {', '.join(sorted(shared))} too; one address has one policy")
