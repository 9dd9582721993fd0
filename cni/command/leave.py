"""Being in a cluster no more."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import closing

from cni.cluster.config import PATH, ClusterConfig
from cni.command.cluster import own_part
from cni.command.install import take_idle_links
from cni.command.output import complain, print_json, say
from cni.errors import CniError
from cni.installation import systemd
from cni.installation.place import Place
from cni.kernel.files import LockFile
from cni.kernel.view import Link
from cni.member.leaving import leave as leave_cluster
from cni.resources import VxlanLink
from cni.state import DEFAULT_FOLDER, Store


def leave(options: argparse.Namespace) -> int:
    """Have this host in no cluster: its addresses are free, its tunnels, rows and idle devices are gone, and so is
    cluster.json.

    It refuses while pods have addresses of the cluster, and where the store cannot be told; --force leaves all the same.
    """
    config = ClusterConfig.load(options.config)
    is_its = _clusters_links()
    by_systemd = options.config == PATH and systemd.runs_members(Place())
    ran = by_systemd and systemd.member_state() in ("active", "activating")
    if by_systemd:
        systemd.stop_member()
    try:
        undone = leave_cluster(config, force=options.force)
    except CniError as error:
        member, _ = own_part()
        if member and member.leaving:
            error.msg += "; it gives no address any more: agent-cni leave again, or --force"
        elif ran:
            systemd.start_member(anew=False)
        raise
    options.config.unlink()
    with closing(LockFile(DEFAULT_FOLDER / "lock")) as lock:
        if lock.alone():
            take_idle_links(is_its)
        else:
            undone.append("bridges and VXLAN devices of the cluster may be left: pods come or go just now")
    if options.json:
        print_json({"left": config.node, "undone": undone})
        return 0
    complain(*(f"agent-cni: {line}" for line in undone))
    say(f"{config.node} has left the cluster")
    return 0


def _clusters_links() -> Callable[[Link], bool]:
    """Whether a link without pods is the cluster's: its devices, and bridges, but for what another network has a tunnel on."""
    with closing(Store.open(DEFAULT_FOLDER)) as store:
        clustered, said = {network.name for network, _ in store.shared()}, list(store.said().values())
    tunnels = [(item.network in clustered, it) for item in said for it in item.resources if isinstance(it, VxlanLink)]
    mine = {tunnel.name for shared, tunnel in tunnels if shared}
    others = {name for shared, tunnel in tunnels if not shared for name in (tunnel.name, tunnel.bridge)}
    return lambda link: link.name not in others and (link.kind == "bridge" or link.name in mine)
