"""Whether a host can be in a cluster by a configuration: asked before anything is written."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from cni.cluster.config import ClusterConfig
from cni.cluster.model import Block, Item, Node
from cni.cluster.store import ClusterStore
from cni.errors import Conflict, InvalidConfig, NameTaken
from cni.kernel import wireguard
from cni.kernel.netlink import Rtnl
from cni.member.identity import machine_id, this_host
from cni.state.membership import Holding, Member


def refuse_unfit(config: ClusterConfig, store: ClusterStore) -> Member:
    """This host as it would be in the cluster. Raises InvalidConfig for files nobody could read and a VTEP that is no address of
    this host, Unavailable where it has none, or no machine id, ToolFailed without the program that encryption takes, and Unreachable.
    """
    if config.encryption:
        wireguard.refuse_missing()
    for path in config.store.files:
        _refuse_unread(Path(path))
    with closing(Rtnl()) as host:
        if config.vtep and not host.holding(ipaddress.ip_address(config.vtep)):
            raise InvalidConfig(f"$.vtep: no link of this host has {config.vtep}")
    return this_host(config, machine_id(), None, "" if config.vtep else store.reached_at(config.node))


def refuse_taken(me: Member, items: Sequence[Item]) -> None:
    """Raise NameTaken where another machine has the name, and Conflict where another host has the VTEP."""
    for node in (item for item in items if isinstance(item, Node)):
        if node.name == me.node and node.machine != me.machine:
            said = f"{node.name} is another machine of the cluster ({node.machine}, this one is {me.machine})"
            raise NameTaken(
                f"{said}: --node gives this one a name; if that one is gone for good: agent-cni node remove {node.name}"
            )
        if node.name != me.node and node.vtep == me.vtep:
            raise Conflict(f"{me.vtep} is {node.name}'s already: --vtep says at which address this host is reached")


def refuse_elsewhere(before: Member, held: Sequence[Holding], me: Member, items: Sequence[Item]) -> None:
    """Raise Conflict where a host that has addresses of a cluster would be in another one, or somebody else in the same."""
    if not held:
        return
    if before.node != me.node:
        raise Conflict(
            f"this host has addresses of the cluster as {before.node}: agent-cni leave, before it is {me.node}"
        )
    known = {item.key for item in items if isinstance(item, Block)}
    if not any(found.block.key in known for found in held):
        raise Conflict(
            f"that store knows of none of the {len(held)} blocks this host has: another cluster's? agent-cni leave first"
        )


def _refuse_unread(path: Path) -> None:
    """The member is root without the right to read what is others' alone."""
    try:
        with path.open("rb"):
            status = path.stat()
    except OSError as error:
        raise InvalidConfig(f"{path}: {error.strerror}") from None
    if status.st_uid and not status.st_mode & 0o004:
        raise InvalidConfig(
            f"{path} belongs to user {status.st_uid} alone, and the member reads what is root's: chown root {path}"
        )
