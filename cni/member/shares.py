"""What of the cluster's networks this host has: those that calls shared, with the devices they made, and as a guest the others."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from cni.cluster.model import LAYER_2, LAYER_3, Network, Node
from cni.cluster.snapshot import Snapshot
from cni.naming import vxlan_interface
from cni.overlay import wireguard
from cni.overlay.peers import NO_UPLINK, Overlay, Uplink
from cni.resources import Said, VxlanLink, World
from cni.state import Store


class Shares(NamedTuple):
    """Who this host is in the cluster, None where it is in none; the overlays of its networks there with their devices, those
    devices that pods have, and those that are the member's own, of networks no call has shared; overlays that cannot have one, and are
    refused; what each network of the node says of its own; the link of encrypted tunnels, if there are any; the networks the state
    knows at all; and the addresses at which other hosts reach this one.
    """

    me: Node | None
    devices: dict[Overlay, VxlanLink]
    in_use: frozenset[str]
    own: frozenset[str]
    without: tuple[Overlay, ...]
    said: tuple[Said, ...]
    tunnel: str
    known: frozenset[str]
    reached: tuple[str, ...]

    def after(self, before: Shares) -> Shares:
        """What there is, and what was before of a state that is gone or an older copy: it knows nothing of networks pods still have."""
        if not self.me:
            return before
        taken = {overlay.device for overlay in self.devices}
        lost = {
            overlay: device
            for overlay, device in before.devices.items()
            if overlay.network.name not in self.known and overlay.device not in taken | before.own
        }
        return self._replace(devices=self.devices | lost)


#: Of a host that is in no cluster.
NOTHING = Shares(None, {}, frozenset(), frozenset(), (), (), "", frozenset(), ())


def shares(folder: Path, snapshot: Snapshot, place_of: Callable[[Network, bool], str | None]) -> Shares:
    """What there is. What the cluster says of a network counts: one that it does not take as this host says it now is none, unless
    the host has blocks of it, and its device is the cluster's still; nor is one without pods here whose device is not where calls had it
    any more. Of any other network the device is the member's own; `place_of`
    says which bridge that is on, if any, or None where there is to be none, told whether calls share the network.
    Raises TryAgainLater, Unavailable.
    """
    store = Store.reading(folder)
    if not store:
        return NOTHING
    with closing(store):
        networks, said, member = store.shared(), list(store.said().values()), store.member()
        names = {network.name for network, _ in networks}
        every = store.said_on_node(()) if member else []
        had = {holding.block.network for holding in store.blocks()}
    if not member:
        return NOTHING
    me = Node(member.node, member.machine, member.vtep, member.mac)
    devices, in_use = {}, set()
    for network, refused in networks:
        mine = [item for item in said if item.network == network.name]
        device = next((one for item in mine for one in item.resources if isinstance(one, VxlanLink)), None)
        if device and (not refused or (network.name in had and _is_the_clusters(device, network.name, snapshot))):
            used = any(item.in_use for item in mine)
            if not used and _is_off(device, network, snapshot, place_of):
                continue  # no call makes it again: this host is a guest now
            devices[Overlay(snapshot.networks.get(network.name, network), device.name, device.bridge)] = device
            in_use |= {device.name} if used else set()
    taken = {(one.name, item.network) for item in every for one in item.resources if isinstance(one, VxlanLink)}
    own, without = _as_guest(me, snapshot, devices, taken, lambda network: place_of(network, network.name in names))
    tunnel = wireguard.DEVICE if member.encryption else ""
    alone = frozenset(device.name for device in own.values() if device not in devices.values())
    reached = tuple(filter(None, (member.vtep, member.underlay)))
    return Shares(me, devices | own, frozenset(in_use), alone, without, tuple(said), tunnel, frozenset(names), reached)


def uplink_of(world: World, have: Shares) -> Uplink:
    """The link by which this host may reach others without a tunnel; none where all is to be in an encrypted one."""
    routed = any(overlay.network.mode == LAYER_3 for overlay in have.devices)
    if not (have.me and routed) or have.tunnel:
        return NO_UPLINK
    vtep = ipaddress.ip_address(have.me.vtep)
    link = world.host.link_by_index(world.host.link_holding(vtep))
    held = world.host.addresses(link) if link else []
    spans = [str(item.interface.network) for item in held if item.interface.ip == vtep]
    return Uplink(link.name, spans[0]) if link and spans else NO_UPLINK


def entrances(world: World, have: Shares) -> tuple[str, ...]:
    """The links that have an address at which other hosts reach this one, sorted. Raises KernelRefused."""
    held = (world.host.link_by_index(world.host.link_holding(ipaddress.ip_address(item))) for item in have.reached)
    return tuple(sorted({link.name for link in held if link}))


def _as_guest(
    me: Node,
    snapshot: Snapshot,
    shared: Mapping[Overlay, VxlanLink],
    taken: Collection[tuple[str, str]],
    place_of: Callable[[Network], str | None],
) -> tuple[dict[Overlay, VxlanLink], tuple[Overlay, ...]]:
    """The part of networks that no call has made one of: by the device another of the cluster has, or one of the member's own; and
    those of which there can be none.
    """
    there, found, without = {overlay.network.name for overlay in shared}, dict[Overlay, VxlanLink](), list[Overlay]()
    devices = {(device.name, device.port): device for device in shared.values()}
    for network in snapshot.networks.values():
        name = vxlan_interface(network.vni)
        if not network.vni or network.name in there:
            continue
        if device := devices.get((name, network.port)):
            found[Overlay(network, name, device.bridge)] = device
        elif any(one == name for one, of in taken if of != network.name) or (bridge := place_of(network)) is None:
            without.append(Overlay(network, "", ""))
        else:
            bridge = bridge if network.mode == LAYER_2 else ""
            device = VxlanLink(name, network.vni, network.port, me.vtep, "", 0, bridge, learning=False, mac=me.mac)
            found[Overlay(network, name, bridge)] = device
    return found, tuple(without)


def _is_off(
    device: VxlanLink, network: Network, snapshot: Snapshot, place_of: Callable[[Network, bool], str | None]
) -> bool:
    """Whether a device of a network of the cluster is not on the bridge it was on any more, or that is gone."""
    return (
        bool(device.bridge)
        and network.name in snapshot.networks
        and place_of(network, True) not in (None, device.bridge)
    )


def _is_the_clusters(device: VxlanLink, name: str, snapshot: Snapshot) -> bool:
    """Whether a device is as the cluster has its network; before anything was heard nothing says otherwise."""
    known = snapshot.networks.get(name)
    return known.vni == device.vni if known else not snapshot.revision
