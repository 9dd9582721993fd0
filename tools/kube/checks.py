"""All checks, in an order in which each leaves what the next needs."""

from __future__ import annotations

from collections.abc import Sequence

import brought
import changes
import domains
import guarded
import meshed
import migration
import nodelocal
import pace
import reach
import releases
from asked import Asked, Report
from cluster import Cluster

CHECKS = (
    reach.nodes, reach.empty_node, reach.deployment, reach.pods_to_pods, reach.nodes_to_pods, reach.large, reach.who_asks,
    reach.cluster_ip, reach.node_port, reach.hairpin, reach.host_port, reach.account, reach.names, reach.operator,
    changes.deletion, changes.churn, changes.daemons_restarted, changes.policy, changes.reboot, changes.lost_node,
    changes.late_node, reach.memory,
)  # fmt: skip
OF_A_MANIFEST = (brought.brought, brought.rights, *CHECKS, brought.rollout, brought.removal)
#: What is only asked where it is named: figures, and what not every network is for, or takes long.
NAMED = (
    migration.migrated, releases.returned, releases.reconfigured, changes.partition, pace.starts, pace.enforced, pace.daemons,
    meshed.mesh, guarded.encrypted, guarded.tunnel, guarded.strict,
    domains.domains, nodelocal.node_local,
)  # fmt: skip
#: Which of them want the kinds of the network-policy-api.
OF_ADMINISTRATORS = {domains.domains.__name__, nodelocal.node_local.__name__}
EVERY = {check.__name__: check for check in (*OF_A_MANIFEST, *NAMED)}


def run(cluster: Cluster, report: Report, names: Sequence[str] = (), many: int = 24) -> None:
    """Those that are named; else all that suit the network. One that breaks off has failed."""
    asked = Asked(cluster, report, many)
    lacks = {} if names or cluster.manifest else cluster.network.lacks
    for name, why in lacks.items():
        report(name, None, f"not asked: {why}")
    for check in [EVERY[name] for name in names] or (OF_A_MANIFEST if cluster.manifest else CHECKS):
        if check.__name__ in lacks:
            continue
        try:
            check(asked)
        except (AssertionError, RuntimeError, OSError, LookupError, StopIteration, ValueError) as error:
            report(check.__name__, False, f"the check itself ended: {error!r}"[:700])
