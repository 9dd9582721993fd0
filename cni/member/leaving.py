"""How a host leaves its cluster: nothing of it stays in the store, in the kernel, or in its state. Each step can be the last:
who is asked again goes on.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path

from cni.cluster.config import ClusterConfig
from cni.cluster.engines import store_of
from cni.cluster.model import Node
from cni.cluster.store import ClusterStore
from cni.errors import Conflict, NameTaken, TryAgainLater, Unavailable, Unreachable
from cni.kernel.bell import ring
from cni.member import barrier, far_names
from cni.member.identity import machine_id, node_of, this_host
from cni.member.reconciler import Reconciler
from cni.member.tunnels import without
from cni.member.uplinks import routes
from cni.naming import VTEP_TABLE
from cni.state import DEFAULT_FOLDER, Store
from cni.state.daemons import MEMBER, alone
from cni.state.membership import Member
from cni.values import replace

#: How long a member that runs has to end, in seconds.
_PATIENCE = 15.0
_STEP = 0.05
_NAMED = 5


def leave(
    config: ClusterConfig, folder: Path = DEFAULT_FOLDER, *, force: bool = False
) -> AbstractContextManager[list[str]]:
    """Leave the cluster, whether a member runs or not; it ends. Within, its state says still what was the cluster's: who ends there is
    asked again. What could not be done though it was forced, a line each.

    Raises Conflict while pods have addresses of the cluster, Unreachable where the store is not told, and Unavailable where the kernel
    does not let go of something, all unless forced;
    TryAgainLater where the member that runs does not end.
    """
    return left(config, store_of(config), folder, machine_id(), force=force)


@contextmanager
def left(config: ClusterConfig, store: ClusterStore, folder: Path, machine: str, *, force: bool) -> Iterator[list[str]]:
    """The same, with a store that is open."""
    member = _announced(config, folder, machine, force=force)
    with _ended(folder):
        undone = _told(store, node_of(member, config), member.token, force=force)
        reconciler = Reconciler(node_of(member, config), folder)
        undone += _shut(reconciler.clear())
        undone += _refused(reconciler.refused, force=force)
        barrier.clear()
        far_names.forget()
        routes.clear_all()
        without(config, folder)
        yield undone
        with closing(Store.open(folder)) as state, state.transaction():
            state.forget_member()


def clustered_pods(state: Store) -> list[str]:
    """The attachments that have addresses of the cluster."""
    networks = {network.name for network, _ in state.shared()} | {holding.block.network for holding in state.blocks()}
    return sorted({str(attachment) for _, attachment, _ in state.all_leases() if attachment.network in networks})


def _announced(config: ClusterConfig, folder: Path, machine: str, *, force: bool) -> Member:
    """Have no address given from now on, and a member that runs end."""
    with closing(Store.open(folder)) as state, state.transaction():
        pods = clustered_pods(state)
        if pods and not force:
            some = ", ".join(pods[:_NAMED]) + (f" and {len(pods) - _NAMED} more" if len(pods) > _NAMED else "")
            raise Conflict(f"{len(pods)} pods have addresses of the cluster: {some}; delete them first, or --force")
        member = state.member() or this_host(config, machine, None)
        member = replace(member, leaving=True, trouble="this host leaves the cluster")
        state.put_member(member)
    ring(folder)
    return member


@contextmanager
def _ended(folder: Path) -> Iterator[None]:
    """Be the only one on this host, once the member that runs has ended. Raises TryAgainLater where it does not."""
    deadline = time.monotonic() + _PATIENCE
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(alone(MEMBER))
                break
            except Conflict:
                if time.monotonic() > deadline:
                    raise TryAgainLater(f"the member of this host did not end within {_PATIENCE:g} s") from None
            time.sleep(_STEP)
        yield


def _told(store: ClusterStore, me: Node, token: str, *, force: bool) -> list[str]:
    """Have the store forget this host."""
    try:
        store.leave(store.join(me, token))
    except NameTaken:
        return []  # what it had under the name is not its own any more
    except Unreachable as error:
        if not force:
            raise
        return [
            f"the store still knows {me.name} and its blocks: on another host, agent-cni node remove {me.name} ({error.msg})"
        ]
    return []


def _refused(lines: list[str], *, force: bool) -> list[str]:
    """What stays in the kernel, which nobody would take away who is in no cluster any more."""
    if lines and not force:
        raise Unavailable(f"what this host has of the cluster is not all taken away: {'; '.join(lines)}")
    return [f"left on this host: {line}" for line in lines]


def _shut(overlays: Iterable[str]) -> list[str]:
    """What is said of overlays that pods are left on: whoever sent VXLAN there would be in their network."""
    some = ", ".join(overlays)
    mend = f"nft delete table {VTEP_TABLE}"
    return [
        f"pods are left on overlays whose VXLAN is dropped now (port VNI: {some}); when they are gone, {mend}"
    ] * bool(some)
