"""Being in a cluster no more."""

from __future__ import annotations

import argparse
import ipaddress
from contextlib import closing

from cni.cluster.config import PATH, ClusterConfig
from cni.command.cluster.cluster import own_part
from cni.command.install import take_idle_links
from cni.command.output import complain, print_json, say
from cni.errors import CniError
from cni.installation import systemd
from cni.installation.place import Place
from cni.kernel.locks import LockFile
from cni.kernel.netlink import Rtnl
from cni.kernel.writing import take_whole
from cni.member.leaving import leave as leave_cluster
from cni.resources import VxlanLink
from cni.state import DEFAULT_FOLDER, Store
from cni.state.uses import node_lock


def leave(options: argparse.Namespace) -> int:
    """Have this host in no cluster: its addresses are free, its tunnels, rows and idle devices are gone, and so is
    cluster.json.

    It refuses while pods have addresses of the cluster, and where the store cannot be told; --force leaves all the same.
    """
    config = ClusterConfig.load(options.config)
    its = _clusters_links()
    by_systemd = options.config == PATH and systemd.runs_members(Place())
    ran = by_systemd and systemd.member_state() in ("active", "activating")
    if by_systemd:
        systemd.stop_member()
    try:
        with leave_cluster(config, force=options.force) as undone:
            undone.extend(_taken(its))
    except CniError as error:
        member, _ = own_part()
        if member and member.leaving:
            error.msg += "; it gives no address any more: agent-cni leave again, or --force"
        elif ran:
            systemd.start_member(anew=False)
        raise
    take_whole(options.config)
    if options.json:
        print_json({"left": config.node, "undone": undone})
        return 0
    complain(*(f"agent-cni: {line}" for line in undone))
    say(f"{config.node} has left the cluster")
    return 0


def _taken(its: set[str]) -> list[str]:
    """Have no idle link of these; what is said where that is not the moment."""
    with closing(LockFile(node_lock())) as lock:
        if not lock.alone():
            return ["bridges and VXLAN devices of the cluster may be left: pods come or go just now"]
        take_idle_links(lambda link: link.name in its)
    return []


def _clusters_links() -> set[str]:
    """The links that are the cluster's: the devices of its networks, and the bridges their pods were on, by what those devices say or
    by the gateways it has; not one that another network has a tunnel on or a gateway.
    """
    with closing(Store.open(DEFAULT_FOLDER)) as store:
        networks, said = [network for network, _ in store.shared()], list(store.said().values())
    names = {network.name for network in networks}
    tunnels = [(item.network in names, it) for item in said for it in item.resources if isinstance(it, VxlanLink)]
    mine = {name for shared, it in tunnels if shared for name in (it.name, it.bridge, it.behind)}
    others = {name for shared, it in tunnels if not shared for name in (it.name, it.bridge, it.behind)}
    subnets = [ipaddress.ip_network(pool.subnet) for network in networks for pool in network.pools]
    with closing(Rtnl()) as host:
        for bridge in (link for link in host.links() if link.kind == "bridge"):
            held = [item.interface.ip for item in host.addresses(bridge) if not item.interface.ip.is_link_local]
            inside = [any(address in subnet for subnet in subnets) for address in held]
            mine |= {bridge.name} if any(inside) else set()
            others |= set() if all(inside) else {bridge.name}
    return mine - others
