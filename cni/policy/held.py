"""How a pod is held to its policy: the resources that come before its link exists, and those before it goes up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cni.errors import Conflict, InvalidConfig
from cni.naming import Attachment, interface_of
from cni.policy.gates import entering, leaving
from cni.policy.model import Allowance, Policy, hosts
from cni.policy.nameless import denied_with_pods
from cni.policy.owners import refuse_shared_addresses
from cni.policy.rules import addresses_of, chain_rules
from cni.protocol.result import Result
from cni.resources import (
    AntiSpoof,
    Asking,
    AskingPod,
    AskingTable,
    BridgeFilter,
    DomainSet,
    Gate,
    GateTable,
    GuardTable,
    Host,
    HostPort,
    LostPort,
    NftRules,
    PeerEntries,
    PeerSet,
    PodPolicy,
    PolicyTable,
    PortOpening,
    Resource,
    VethPair,
)
from cni.resources.gate import bucket_of
from cni.values import dataclass, replace

#: Which plugin's chains: one that makes the interface (custom-plugin's is routed), or comes after that.
_OWN, _ROUTED, _CHAINED = range(3)

#: What is in force before a pod's link.
_IN_FORCE_FIRST = (PolicyTable, PeerSet, DomainSet, AskingTable, Asking, PodPolicy, PeerEntries, AskingPod)

_GATES = (GateTable, Gate)

#: What comes and goes with what a policy says.
_FED = (PeerSet, DomainSet, AskingTable, Asking, AskingPod, PodPolicy, PeerEntries, *_GATES)

_Stages = tuple[tuple[Resource, ...], tuple[Resource, ...]]


@dataclass(frozen=True)
class _Held:
    """A pod to be held: its interface's result, MAC and addresses, what its chains are called after, what people call it, and
    what it is `named` in Kubernetes, if it is.
    """

    attachment: Attachment
    attached: Result
    mac: str
    addresses: tuple[str, ...]
    token: str
    pod: str
    named: str


def holding(
    policy: Policy,
    attachment: Attachment,
    attached: Result,
    host: Host,
    port: HostPort | None,
) -> _Stages:
    """What `isolating` says of a pod that has a policy, and raises."""
    token = attachment.token(_CHAINED if host.chained else _ROUTED if port and not port.bridge else _OWN)
    if host.lost:
        return _traces(attachment, token, host.netns, port, attached)
    mac = _mac_in_pod(attached, attachment.ifname)
    if not mac:
        raise InvalidConfig(f"$.prevResult.interfaces: does not say which MAC {attachment.ifname} has")
    addresses = addresses_of(attached, mac)
    if not addresses:
        raise InvalidConfig("$.policy: needs a pod with addresses; there is no ipam")
    if port is not None:  # in a pod's own namespace it meets nobody's
        refuse_shared_addresses(attachment, addresses, host, policed=True)
    held = _Held(attachment, attached, mac, addresses, token, host.pod or str(attachment), host.pod)
    policy = denied_with_pods(policy, [interface_of(ip.address) for ip in attached.ips])
    return _in_pod(policy, held, host) if port is None else _on_host(policy, held, port)


def as_of_today(
    there: tuple[Resource, ...],
    policy: Policy | None,
    attachment: Attachment,
    attached: Result,
    host: Host,
) -> tuple[Resource, ...]:
    """What an attachment that has `there` is to have under a policy of today: its rules are others, in the order of a plan, everything
    else is as it was. What is not among it any more is to be removed. Raises Conflict where what held it on the host is gone.
    """
    made = (HostPort(item.host, item.bridge) for item in there if isinstance(item, VethPair))
    port = next(made, host.port)
    if port is None and any(
        isinstance(item, Gate) or (isinstance(item, PodPolicy) and not item.netns) for item in there
    ):
        raise Conflict(
            "the host's end of its link is gone or has another name: in the pod its policy would be in reach"
        )
    first, then = holding(policy, attachment, attached, host, port) if policy else ((), ())
    rules = {item.place: item for item in (*first, *then) if isinstance(item, NftRules)}
    kept = [rules.get(item.place, item) for item in there if item.place in rules or not isinstance(item, _FED)]
    for stage, next_to in ((_IN_FORCE_FIRST, _IN_FORCE_FIRST), (_GATES, (*_GATES, BridgeFilter, PortOpening))):
        today = [item for item in rules.values() if isinstance(item, stage)]
        at = next((at for at, item in enumerate(kept) if isinstance(item, next_to)), 0)
        kept[at:] = [*today, *(item for item in kept[at:] if item not in today)]
    return tuple(kept)


def _on_host(policy: Policy, held: _Held, port: HostPort) -> _Stages:
    families = sorted({6 if ":" in text else 4 for text in held.addresses})
    rules = chain_rules(policy, held.token, families, held.attached.dns.resolvers, held.pod)
    chains = PodPolicy(held.addresses, rules, not policy.host_access, held.pod, token=held.token)
    gates = tuple(_gates(policy, held, port))
    judged, told = _judged(policy, held, port.name)
    return (
        (
            *judged[:1],
            PolicyTable(edition=2),
            *_sets(policy, families),
            *_named(policy, held, families),
            *judged[1:],
            chains,
            _entries(held),
            *told,
        ),
        (
            *((GateTable(bucket_of(held.token)), *gates) if gates else ()),
            *((BridgeFilter(port.bridge),) if port.bridge else ()),
            PortOpening(port.name, bool(port.bridge), port.lent, held.token if gates else ""),
        ),
    )


def _gates(policy: Policy, held: _Held, port: HostPort) -> Iterator[Gate]:
    """Where a direction is closed, nothing passes that its chains could not judge."""
    bucket = bucket_of(held.token)
    if policy.anti_spoof or policy.closes("egress"):
        mac = held.mac if policy.anti_spoof else ""
        yield Gate(port.name, "ingress", held.token, leaving(held.addresses, mac), held.attachment.ifname, mac, bucket)
    if policy.closes("ingress"):
        networks = [interface_of(ip.address) for ip in held.attached.ips]
        # whom an administrator denies is told by sets, which the gates' table does not have
        groups = () if policy.denies("ingress") else policy.ingress or ()
        lines = entering(held.addresses, networks, groups)
        yield Gate(port.name, "egress", held.token, lines, held.attachment.ifname, bucket=bucket)


def _in_pod(policy: Policy, held: _Held, host: Host) -> _Stages:
    """The same chains where there is no host side. The node's addresses get in by a rule like any other."""
    node = [text.split("/")[0] for text in (host.uplink.addresses if host.uplink else ())]
    if policy.host_access and policy.ingress is not None and node:
        policy = replace(policy, ingress=(*policy.ingress, Allowance(hosts(node))))
    rules = chain_rules(policy, held.token, (4, 6), held.attached.dns.resolvers, held.pod)
    name = held.attachment.ifname
    guarded = name if policy.anti_spoof else ""
    chains = PodPolicy(held.addresses, rules, False, held.pod, host.netns, guarded, held.token, name)
    table = PolicyTable(host.netns, edition=2)
    sets = *_sets(policy, (4, 6), host.netns), *_named(policy, held, (4, 6), host.netns)
    judged, told = _judged(policy, held, name, host.netns)
    return ((), (*judged[:1], table, *sets, *judged[1:], chains, _entries(held), *told))


def _sets(policy: Policy, families: Iterable[int], netns: str = "") -> Iterator[PeerSet]:
    """The sets that a policy's rules name."""
    texts = dict.fromkeys(selection.text for match in policy.matches for selection in match.selections)
    return (PeerSet(text, family, netns) for text in texts for family in families)


def _named(policy: Policy, held: _Held, families: Iterable[int], netns: str = "") -> Iterator[DomainSet]:
    """The pod's own sets that its rules name, of what names are resolved to."""
    known = dict.fromkeys(match.domains for match in policy.matches if match.domains)
    return (DomainSet(names, held.token, family, netns) for names in known for family in families)


def _judged(
    policy: Policy, held: _Held, link: str, netns: str = ""
) -> tuple[tuple[NftRules, ...], tuple[NftRules, ...]]:
    """What has a pod's questions for names judged, and what the gate that does is told once the pod's sets are there."""
    said = policy.resolving
    if said is None:
        return (), ()
    rules = tuple(dict.fromkeys(match.domains for match in policy.matches if match.domains))
    besides = tuple(name for name in said.names if not any(name in names for names in rules))
    table, asking = AskingTable(netns), Asking(held.addresses, held.token, said.rate, netns)
    told = AskingPod(
        held.token, held.pod, held.addresses, link, tuple(map(" ".join, rules)), netns,
        besides, said.everything, said.keep, said.into, said.own,
    )  # fmt: skip
    return (table, asking), (told,)


def _entries(held: _Held) -> PeerEntries:
    return PeerEntries(tuple(str(interface_of(ip.address).ip) for ip in held.attached.ips), held.named)


def _traces(attachment: Attachment, token: str, netns: str, port: HostPort | None, known: Result) -> _Stages:
    """What may be there of an attachment of which nothing is known but its identity, and perhaps its addresses: the release
    before called chains after those.
    """
    mac = _mac_in_pod(known, attachment.ifname)
    own = addresses_of(known, mac) if known.ips and mac else ()
    before = tuple(f"{way}-{address.replace(':', '-')} return" for address in own for way in ("in", "out"))
    entries = PeerEntries(tuple(str(interface_of(ip.address).ip) for ip in known.ips), "")
    on_host = (
        AskingTable(),
        PolicyTable(edition=2),
        DomainSet((), token),
        Asking((), token, 0),
        AskingPod(token, "", (), "", ()),
        PodPolicy((), (), False, "", token=token),
        PodPolicy(own, before, True, ""),
        entries,
    )
    gates = (GuardTable(), *(item for bucket in ("", bucket_of(token)) for item in _gates_of(token, bucket)))
    opening = (PortOpening(port.name, True) if port.bridge else LostPort(port.name),) if port else ()
    name = attachment.ifname
    chains = PodPolicy((), (), False, "", netns, name, token, name)
    judged = AskingTable(netns), Asking((), token, 0, netns), AskingPod(token, "", (), "", (), netns)
    inside = PolicyTable(netns, edition=2), DomainSet((), token, netns=netns), *judged, chains
    guard = (
        (AntiSpoof(port.name, "", (), lent=True),) if port else ()
    )  # of the release before; the veth is another's to take
    return (on_host, (*gates, *guard, *opening, *(inside if netns and port is None else ())))


def _gates_of(token: str, bucket: str) -> Iterator[Resource]:
    """The gates that a pod may have, in a table of its own or a bucket."""
    yield GateTable(bucket or token)
    yield from (Gate("", hook, token, (), bucket=bucket) for hook in ("ingress", "egress"))


def _mac_in_pod(result: Result, ifname: str) -> str:
    """A link of the host may be called like the pod's, as a bridge that has the place of eth0."""
    return next((item.mac for item in result.interfaces if item.name == ifname and item.sandbox), "")
