"""This host's part in its cluster, as `show` prints and draws it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

from cni.cluster.config import ClusterConfig
from cni.cluster.engines import store_of
from cni.cluster.model import Alive, Block, Endpoint, Item, Network, Node
from cni.command.picture.pictured import Far
from cni.errors import CniError
from cni.member.steward import free
from cni.state import Store
from cni.state.membership import HELD

Rows = list[dict[str, Any]]


class Elsewhere(NamedTuple):
    """The hosts at the other ends of each VNI's tunnels, with how many pods they have there; each network's VNI; and why nobody can say."""

    hosts: dict[int, list[Far]]
    vnis: dict[str, int]
    why: str = ""


#: By area, what `show` prints of it.
COLUMNS = {
    "cluster": ("node", "vtep", "encryption", "state"),
    "networks": ("network", "mode", "vni", "subnets", "blocks", "used", "free", "state"),
    "blocks": ("network", "block", "size", "used", "state"),
}


def rows(store: Store) -> dict[str, Rows]:
    """A row for this host, each network it shares or is a guest of, and each of its blocks; of a host in no cluster there is none."""
    member = store.member()
    if member is None:
        return {}
    state = member.trouble or member.no_tunnel or ("leaving" if member.leaving else "well")
    who = {"node": member.node, "machine": member.machine, "vtep": member.vtep, "mac": member.mac}
    more = {"underlay": member.underlay, "encryption": member.encryption, "state": state}
    held = [item for item in store.blocks() if item.state == HELD]
    networks = []
    for network, refused in store.shared():
        mine = [item for item in held if item.block.network == network.name]
        agreed = "not asked yet" if refused is None else refused or "agreed"
        networks.append({
            "network": network.name, "mode": network.mode, "vni": network.vni,
            "subnets": [pool.subnet for pool in network.pools], "blocks": len(mine),
            "used": sum(item.leased for item in mine), "free": free(network, mine), "state": agreed,
        })  # fmt: skip
    for name in store.guest_of():  # what else it is the cluster knows
        mine = [item for item in held if item.block.network == name]
        networks.append({
            "network": name, "mode": "", "vni": 0, "subnets": [], "blocks": len(mine), "used": 0, "free": 0,
            "state": "a guest: no pods here",
        })  # fmt: skip
    blocks = [
        {
            "network": item.block.network, "block": item.block.span, "size": item.block.addresses.num_addresses,
            "used": item.leased, "state": item.state,
        }
        for item in store.blocks()
    ]  # fmt: skip
    return {"cluster": [who | more], "networks": networks, "blocks": blocks}


def elsewhere(config: ClusterConfig) -> Elsewhere:
    """What the cluster's store says now."""
    try:
        items = store_of(config).listing().items
    except CniError as error:
        return Elsewhere({}, {}, error.msg)
    vnis = {item.name: item.vni for item in items if isinstance(item, Network) and item.vni}
    return Elsewhere({vni: list(_far(items, network, config.node)) for network, vni in vnis.items()}, vnis)


def _far(items: Iterable[Item], network: str, own: str) -> Iterable[Far]:
    """The hosts that have a block of a network."""
    pods: defaultdict[str, set[str]] = defaultdict(set)
    for item in items:
        if isinstance(item, Endpoint) and item.network == network and item.container:
            pods[item.node].add(item.container)
    alive = {item.node for item in items if isinstance(item, Alive)}
    there = {item.node for item in items if isinstance(item, Block) and item.network == network}
    known = {item.name: item for item in items if isinstance(item, Node)}
    for name in sorted(there & known.keys() - {own}):
        node = known[name]
        address = node.underlay or node.vtep
        yield Far(name, address, len(pods[name]), name in alive, "WireGuard" if node.wireguard else "")
