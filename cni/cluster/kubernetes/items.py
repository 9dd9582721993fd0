"""What objects of the API are in the cluster's own words. Pure.

A Node that agent-cni has annotated is a host; its podCIDRs are its blocks. A pod is an endpoint, whose MAC is made of its address.
"""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice, pairwise
from typing import Any

from cni.cluster.blocks import host_address
from cni.cluster.document import Document
from cni.cluster.fields import Malformed
from cni.cluster.kubernetes.objects import Kind, Node, Object, Pod, Policy, spelled
from cni.cluster.model import LAYER_2, Alive, Block, Endpoint, IPNetwork, Item, Network, read
from cni.cluster.model import Node as Host
from cni.decoding import decoded
from cni.naming import mac_of_address

#: What all our annotations begin with.
DOMAIN = "agent-cni.dev/"
SESSION, NETWORKS = f"{DOMAIN}session", f"{DOMAIN}networks"
#: Of a host, what others are to know, each an annotation.
_TEXTS = ("machine", "vtep", "mac", "wireguard", "underlay")
#: The same, several with commas between them.
_UPLINKS = f"{DOMAIN}uplinks"
#: The condition of a Node that has no network yet.
UNAVAILABLE = "NetworkUnavailable"
#: Of a podCIDR, the addresses that are given at the most: an IPv6 one has 2 to the 64.
_GIVEN = 4096
_DONE = ("Succeeded", "Failed")
#: Where cluster-wide objects are among documents, as those of a folder are.
_NOWHERE = "default"


def annotated(host: Host, token: str) -> dict[str, str | None]:
    """What a host's Node is to say of it, and in which life; None is nothing."""
    said = {f"{DOMAIN}{name}": host.value.get(name) or None for name in _TEXTS}
    return {**said, _UPLINKS: ",".join(host.uplinks) or None, SESSION: token}


def nothing() -> dict[str, str | None]:
    """What the Node of a host says that is in no cluster."""
    return dict.fromkeys((*(f"{DOMAIN}{name}" for name in _TEXTS), _UPLINKS, SESSION, NETWORKS))


def said_by(node: Node) -> dict[str, str]:
    """The annotations of a Node."""
    return node.metadata.annotations or {}


def host_of(node: Node) -> Host | None:
    """The host that a Node is, None before it said so. Raises Malformed."""
    said = said_by(node)
    raw: dict[str, Any] = {name: said[f"{DOMAIN}{name}"] for name in _TEXTS if f"{DOMAIN}{name}" in said}
    raw |= {"uplinks": said[_UPLINKS].split(",")} if said.get(_UPLINKS) else {}
    return Host.read((Host.room, node.metadata.name), raw) if "machine" in raw else None


def networks_of(nodes: Iterable[Node], me: str) -> tuple[list[Network], list[str]]:
    """The networks that hosts have declared, and what of that cannot be read. What this host itself says of one counts, for all are told by
    their configuration; else what the oldest Node says.
    """
    found, refused = dict[str, Network](), list[str]()
    for node in sorted(nodes, key=lambda node: (node.metadata.name != me, *_age(node))):
        try:
            for network in declared(node):
                found.setdefault(network.name, network)
        except Malformed as error:
            refused.append(str(error))
    return [found[name] for name in sorted(found)], refused


def declared(node: Node) -> list[Network]:
    """The networks a host has declared. Raises Malformed."""
    key = (Host.room, node.metadata.name)
    try:
        said = decoded(said_by(node).get(NETWORKS, "{}").encode())
    except ValueError as error:
        raise Malformed(f"{'/'.join(key)} in the store: {NETWORKS}: {error}") from None
    if not isinstance(said, dict):
        raise Malformed(f"{'/'.join(key)} in the store: {NETWORKS} is no JSON object")
    items = (read((Network.room, name), raw) for name, raw in said.items())
    found = [network for network in items if isinstance(network, Network)]
    pools = sorted((ipaddress.ip_network(pool.subnet) for one in found for pool in one.pools), key=_place)
    if any(one.version == other.version and one.overlaps(other) for one, other in pairwise(pools)):
        raise Malformed(f"{'/'.join(key)} in the store: {NETWORKS} overlap")  # each would cut every podCIDR into blocks
    return found


def _place(network: IPNetwork) -> tuple[int, int]:
    return network.version, int(network[0])


def with_declared(node: Node, network: Network) -> str:
    """What a Node is to declare: a network more, in the place of one of its addresses that had another name."""
    try:
        known = declared(node)
    except Malformed:
        known = []
    ours = [ipaddress.ip_network(pool.subnet) for pool in network.pools]
    kept = [one for one in known if one.name != network.name and not any(_overlap(one, pool) for pool in ours)]
    return json.dumps({one.name: one.value for one in sorted([*kept, network], key=lambda one: one.name)})


def _overlap(network: Network, pool: IPNetwork) -> bool:
    theirs = (ipaddress.ip_network(one.subnet) for one in network.pools)
    return any(one.version == pool.version and one.overlaps(pool) for one in theirs)


def _age(node: Node) -> tuple[str, str]:
    return node.metadata.creation_timestamp or "", node.metadata.name


def spans_of(node: Node) -> list[str]:
    """The podCIDRs of a Node, whatever networks they are of."""
    return node.spec.podCIDRs or list(filter(None, [node.spec.podCIDR]))


def available() -> dict[str, str]:
    """The condition of a Node whose pods have a network."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    said = {"type": UNAVAILABLE, "status": "False", "reason": "AgentCniServes", "message": "pods can be attached here"}
    return said | {"lastHeartbeatTime": now, "lastTransitionTime": now}


def blocks_of(node: Node, host: Host, networks: Iterable[Network]) -> tuple[list[Block], list[str]]:
    """The blocks of a host in networks that its podCIDRs are of: each podCIDR's beginning, in pieces of a network's block; and why
    there are none of one.
    """
    known, found, refused = list(networks), list[Block](), list[str]()
    for text in spans_of(node):
        try:
            whole: IPNetwork = ipaddress.ip_network(text)
        except ValueError as error:
            refused.append(f"nodes/{host.name} in the store: podCIDR: {error}")
            continue
        for network in known:
            if not network.pool_of(whole[0]):
                continue
            if whole.num_addresses < network.block:
                why = f"podCIDR {text} is smaller than a block of {network.name}, {network.block} addresses (blockSize)"
                refused.append(f"nodes/{host.name} in the store: {why}")
            length = whole.max_prefixlen - (network.block.bit_length() - 1)
            spans = whole.subnets(new_prefix=max(length, whole.prefixlen))
            found += [
                Block(network.name, str(span), host.name, host.machine)
                for span in islice(spans, max(1, _GIVEN // network.block))
                if whole.num_addresses >= network.block
            ]
    return found, refused


def of_node(node: Node, networks: Iterable[Network], me: str) -> tuple[list[Item], list[str]]:
    """A Node as a host, whether it is alive, its blocks, and what speaks by them; and what of it cannot be read."""
    try:
        host = host_of(node)
    except Malformed as error:
        return [], [str(error)]
    if host is None:
        return [], []
    known = {network.name: network for network in networks}
    blocks, refused = blocks_of(node, host, known.values())
    items: list[Item] = [host, *blocks]
    if _is_heard_of(node):
        items.append(Alive(host.name, said_by(node).get(SESSION, "")))
    for block in blocks:
        network = known[block.network]
        if host.name != me and network.mode == LAYER_2 and network.vni:
            items.append(Endpoint(block.network, host_address(network, block.span), host.name, host.mac))
    return items, refused


def _is_heard_of(node: Node) -> bool:
    """Whether its kubelet is: the API's controllers say Unknown of one that is not."""
    conditions = {one.type: one.status for one in node.status.conditions or ()}
    return conditions.get("Ready") != "Unknown"


def internal_address(node: Node) -> str:
    """The first InternalIP of a Node, which is its pods' hostIP; empty where it has none."""
    found = next((one.address for one in node.status.addresses or () if one.type == "InternalIP"), "")
    with suppress(ValueError):
        return str(ipaddress.ip_address(found))
    return ""


def addresses_of(pod: Pod) -> list[str]:
    """The addresses that are a pod's own; one that has ended, or is in its node's network, has none."""
    if pod.spec.host_network or pod.status.phase in _DONE:
        return []
    return [one.ip for one in pod.status.podIPs or ()] or list(filter(None, [pod.status.podIP]))


def of_pod(pod: Pod, networks: Iterable[Network], me: str) -> list[Item]:
    """A pod's endpoints, elsewhere: what this host has it knows itself. Its MAC is made of its address in the network's first pool."""
    own = [ipaddress.ip_address(text) for text in addresses_of(pod)] if pod.spec.node_name != me else []
    found: list[Item] = []
    for network in networks:
        pools = {address: pool for address in own if (pool := network.pool_of(address))}
        ordered = sorted(pools, key=lambda address: network.pools.index(pools[address]))
        name = f"{pod.metadata.namespace}/{pod.metadata.name}"
        found += [
            Endpoint(network.name, str(one), pod.spec.node_name, mac_of_address(ordered[0]), pod=name)
            for one in ordered
        ]
    return found


def document_of(kind: Kind, served: str, found: Object) -> Document:
    """What policies are made of, without what nobody asks for."""
    metadata: dict[str, Any] = {"name": found.metadata.name}
    metadata |= {"namespace": found.metadata.namespace} if found.metadata.namespace else {}
    metadata |= {"labels": found.metadata.labels} if found.metadata.labels else {}
    said: dict[str, Any] = {"apiVersion": kind.api_version(served), "kind": kind.name, "metadata": metadata}
    match found:
        case Pod():
            said |= {"spec": found.spec, "status": found.status}
        case Policy() if kind.group:
            said |= {"spec": found.spec}
        case Node():
            addresses = [one for one in found.status.addresses or () if one.type.endswith("IP")]
            said |= {"status": {"addresses": addresses}}
    return Document(kind.name, found.metadata.namespace or _NOWHERE, found.metadata.name, spelled(said))
