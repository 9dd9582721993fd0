"""What a plan may know of the node, read before planning so that planning waits for nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from cni import uplink
from cni.errors import CniError, TryAgainLater
from cni.kernel import sysctl
from cni.naming import OWNER, Attachment
from cni.node import Node
from cni.plugin import PluginConfig
from cni.protocol.call import Call
from cni.resources import Host, HostPort, NftRules, Uplink, UplinkQuery, Vtep, World
from cni.resources.addressing import GATEWAY, gateway_place
from cni.state import Store
from cni.values import replace

_ANY_MTU = 65535


def survey(node: Node, config: PluginConfig, call: Call) -> Host:
    """Read what a plan may know of the node. Raises TryAgainLater where nobody may be attached now."""
    world, sidecar = node.world, config.sidecar
    query, vtep = uplink_of(node.store, config)
    if vtep and vtep.exposed:
        raise TryAgainLater(vtep.exposed)
    captured = sidecar if sidecar and sidecar.wanted else None
    return Host(
        netns=call.netns,
        pod=call.pod,
        uplink=uplink.find(world.pod if query.in_pod else world.host, query) if query else None,
        rules=_rules(config.rules) if config.rules is not None else "",
        pod_rules=_pod_rules(world, captured.backend) if captured else "",
        pod_families=_pod_families() if captured else (),
        others=node.others,
        port=_port(world, config.ports),
        gateways=partial(_gateways, node),
        chained=config.chained,
        bridge_mtu=_foreign_mtu(world, config.bridge) if config.bridge else 0,
        vtep=vtep,
    )


def surveyed_for_rules(node: Node, config: PluginConfig, call: Call) -> Host:
    """What the rules of an attachment that is there go by: its links were made by the rest, which is not asked again. Those in a pod
    go by the node's addresses too.
    """
    port, there = _port(node.world, config.ports), node.record.resources if node.record else ()
    inside = any(isinstance(item, NftRules) and item.netns for item in there)
    uplink = _uplink_if_there(node.world, config) if inside else None
    return Host(netns=call.netns, pod=call.pod, others=node.others, port=port, chained=config.chained, uplink=uplink)


def uplink_of(store: Store | None, config: PluginConfig) -> tuple[UplinkQuery | None, Vtep | None]:
    """How to find the link that a plan is to know; for a tunnel between hosts of a cluster by how the cluster knows this one."""
    query = config.uplink
    member = store.member() if store and query and query.vtep else None
    if not (query and member):
        return query, None
    why = f"packets between hosts are to be encrypted, and cannot be: {member.no_tunnel}" if member.no_tunnel else ""
    return replace(query, local=member.vtep), Vtep(member.vtep, member.mac, why)


def surveyed_without_record(node: Node, config: PluginConfig, call: Call) -> Host:
    """What a plan may know when it is to tell what a lost attachment is called: nothing here fails or is guessed."""
    there = node.world.netns is not None and config.sidecar is not None
    return Host(
        netns=call.netns,
        uplink=_uplink_if_there(node.world, config),
        others=node.others,
        rules=_unless_missing(_rules, config.rules) if config.rules is not None else "",
        pod_rules=_unless_missing(_pod_rules, node.world, config.sidecar.backend) if there and config.sidecar else "",
        pod_families=(4, 6),
        port=_port(node.world, config.ports),
        lost=True,
    )


def _foreign_mtu(world: World, bridge: str) -> int:
    link = world.host.link_by_name(bridge)
    return link.mtu if link and link.alias != OWNER else 0


def _uplink_if_there(world: World, config: PluginConfig) -> Uplink:
    nameless, query = Uplink("", _ANY_MTU), config.uplink
    if query is None or (query.in_pod and world.netns is None):
        return nameless
    try:
        return uplink.find(world.pod if query.in_pod else world.host, query) or nameless
    except CniError:
        return nameless


def _unless_missing(choose: Callable[..., str], *how: object) -> str:
    try:
        return choose(*how)
    except CniError:
        return ""


def _rules(wanted: str) -> str:
    from cni.kernel import netfilter  # a call without rules loads nothing that makes them

    return netfilter.choose(wanted)


def _pod_rules(world: World, wanted: str) -> str:
    from cni.kernel import netfilter

    node_is_legacy = netfilter.legacy_in_use()
    with world.in_pod():
        return netfilter.choose_in_pod(wanted, node_is_legacy)


def _pod_families() -> tuple[int, ...]:
    """The IP versions the pod may speak: where the kernel has IPv6 anybody may switch it on later, for one interface too,
    and it has link-local addresses before anybody gives it others.
    """
    return (4, 6) if sysctl.read("net.ipv6.conf.all.disable_ipv6") is not None else (4,)


def _port(world: World, names: tuple[str, ...]) -> HostPort | None:
    """The veth among links that plugins before us made on the host."""
    for link in filter(None, map(world.host.link_by_name, names)):
        if link.kind == "veth":
            bridge = world.host.link_by_index(link.bridge) if link.bridge else None
            return HostPort(link.name, bridge.name if bridge else "", lent=True)
    return None


def _gateways(node: Node, link: str, address: str) -> Iterator[tuple[str, str, Attachment]]:
    """The gateways of this node's networks, asked for by who brings one that is new here."""
    if not node.store.is_used_on_node(gateway_place(link, address)):
        for place, owner in node.store.used_like_on_node(GATEWAY):
            held, other = place.removeprefix(GATEWAY).split(" ")
            yield held, other, owner
