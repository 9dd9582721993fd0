"""Being in a cluster no more."""

from __future__ import annotations

import argparse

from cni.cluster.config import PATH, ClusterConfig
from cni.command.cluster import own_part
from cni.command.install import take_idle_links
from cni.command.output import complain, print_json, say
from cni.errors import CniError
from cni.installation import systemd
from cni.installation.place import Place
from cni.member.leaving import leave as leave_cluster


def leave(options: argparse.Namespace) -> int:
    """Have this host in no cluster: its addresses are free, its tunnels, rows and idle devices are gone, and so is
    cluster.json.

    It refuses while pods have addresses of the cluster, and where the store cannot be told; --force leaves all the same.
    """
    config = ClusterConfig.load(options.config)
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
    take_idle_links()
    if options.json:
        print_json({"left": config.node, "undone": undone})
        return 0
    complain(*(f"agent-cni: {line}" for line in undone))
    say(f"{config.node} has left the cluster")
    return 0
