"""What of the cluster's networks this host has: those that calls shared, with the devices they made."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from cni.cluster.model import Node
from cni.cluster.snapshot import Snapshot
from cni.overlay import wireguard
from cni.overlay.peers import Overlay
from cni.resources import Resource, Said, VxlanLink
from cni.state import Store
from cni.values import replace


class Shares(NamedTuple):
    """Who this host is in the cluster, None where it is in none; the overlays of its networks there with their devices, and those
    devices that pods have; what each network of the node says of its own; the link of encrypted tunnels, if there are any; and the networks the state knows at all.
    """

    me: Node | None
    devices: dict[Overlay, VxlanLink]
    in_use: frozenset[str]
    said: tuple[Said, ...]
    tunnel: str
    known: frozenset[str]

    def after(self, before: Shares) -> Shares:
        """What there is, and what was before of a state that is gone or an older copy: it knows nothing of networks pods still have."""
        if not self.me:
            return before
        taken = {overlay.device for overlay in self.devices}
        lost = {
            overlay: device
            for overlay, device in before.devices.items()
            if overlay.network.name not in self.known and overlay.device not in taken
        }
        return self._replace(devices=self.devices | lost)


#: Of a host that is in no cluster.
NOTHING = Shares(None, {}, frozenset(), (), "", frozenset())


def shares(folder: Path, snapshot: Snapshot) -> Shares:
    """What there is. What the cluster says of a network counts: one that it does not take as this host says it now is none, unless
    the host has blocks of it, and its device is the cluster's still. Raises TryAgainLater, Unavailable.
    """
    store = Store.reading(folder)
    if not store:
        return NOTHING
    with closing(store):
        networks, said, member = store.shared(), list(store.said().values()), store.member()
        had = {holding.block.network for holding in store.blocks()}
    if not member:
        return NOTHING
    me = Node(member.node, member.machine, member.vtep, member.mac)
    clustered = {network.name for network, _ in networks}
    said = [item._replace(resources=_as_known(item, me)) if item.network in clustered else item for item in said]
    devices, in_use = {}, set()
    for network, refused in networks:
        mine = [item for item in said if item.network == network.name]
        device = next((one for item in mine for one in item.resources if isinstance(one, VxlanLink)), None)
        if device and (not refused or (network.name in had and _is_the_clusters(device, network.name, snapshot))):
            devices[Overlay(snapshot.networks.get(network.name, network), device.name, device.bridge)] = device
            in_use |= {device.name} if any(item.in_use for item in mine) else set()
    tunnel = wireguard.DEVICE if member.encryption else ""
    return Shares(me, devices, frozenset(in_use), tuple(said), tunnel, frozenset(clustered))


def _is_the_clusters(device: VxlanLink, name: str, snapshot: Snapshot) -> bool:
    """Whether a device is as the cluster has its network; before anything was heard nothing says otherwise."""
    known = snapshot.networks.get(name)
    return known.vni == device.vni if known else not snapshot.revision


def _as_known(said: Said, me: Node) -> tuple[Resource, ...]:
    """What the cluster knows of this host may be newer than what a network's last ADD made of it."""
    return tuple(
        replace(item, local=me.vtep, mac=me.mac) if isinstance(item, VxlanLink) else item for item in said.resources
    )
