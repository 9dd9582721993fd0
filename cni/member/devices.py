"""The VXLAN devices of the cluster's networks: made again when somebody took them away, and the member's own, by
which this host reaches pods of networks it has none of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial

from cni import engine, uplink
from cni.cluster.model import Network, Node
from cni.errors import CniError
from cni.kernel.locks import LockFile
from cni.kernel.view import Link
from cni.member.shares import Shares
from cni.naming import OWNER, vxlan_interface
from cni.overlay.peers import Overlay
from cni.overlay.vxlan import OVERHEAD
from cni.resources import UplinkQuery, VxlanLink, World
from cni.state.uses import node_lock
from cni.values import replace


def bridge_of(world: World, network: Network) -> str | None:
    """The bridge a network's device is on, empty where it is on none or not there; None for a stranger's device."""
    link = world.host.link_by_name(vxlan_interface(network.vni))
    bridge = world.host.link_by_index(link.bridge) if link and link.bridge else None
    return None if link and link.alias != OWNER else bridge.name if bridge else ""


class Devices:
    """What the hand does to them; `refused` is told what the kernel, or somebody who is in the way, refuses."""

    def __init__(self, world: World, refused: Callable[[CniError], None]) -> None:
        self._world, self._refused = world, refused

    def keep(self, have: Callable[[], Shares]) -> bool:
        """Have those that there are to be, and none of the member's own besides; False: a call is at work, and may be at them. What
        it makes it does not say before it is done: only when none is do the state and the kernel mean the same.
        """
        if not self._is_work(have()):
            return True
        with closing(LockFile(node_lock())) as lock:
            if not lock.alone():
                return False
            shares = have()
            for overlay, device in self._kept(shares):
                others = [item for item in shares.said if item.network != overlay.network.name]
                self._world.networks = partial(list, others)
                self._try(partial(engine.apply, [device], self._world))
            self.clear(shares)
        return True

    def move(self, me: Node) -> None:
        """Have those that there are send from where this host is by now, also while a call is at work: packets wait for none."""
        for link in self._tunnels(me):
            if link.vxlan and link.vxlan.local != me.vtep:
                self._try(partial(self._world.host.set_vxlan, link, replace(link.vxlan, local=me.vtep)))

    def clear(self, shares: Shares) -> None:
        """Have none of the member's own that no network needs."""
        for link in self._strays(shares):
            self._try(partial(self._world.host.delete_link, link))

    def ports(self, me: Node) -> tuple[str, ...]:
        """The overlays (``PORT VNI``) of the devices other hosts know this one by."""
        found = (link.vxlan for link in self._tunnels(me) if link.vxlan)
        return tuple(f"{vxlan.port} {vxlan.vni}" for vxlan in found)

    def _is_work(self, shares: Shares) -> bool:
        wrong = (line for _, device in self._kept(shares) for line in self._faults(device, shares))
        return any(wrong) or bool(self._strays(shares))

    def _faults(self, device: VxlanLink, shares: Shares) -> Iterator[str]:
        """Of its own the member knows the MTU; one that others gave is theirs to say."""
        yield from device.differences(self._world)
        link = self._world.host.cached_link(device.name)
        if link and device.name in shares.own and link.mtu > device.mtu:
            yield f"{device.name} has MTU {link.mtu}, and there is room for {device.mtu}"

    def _kept(self, shares: Shares) -> Iterator[tuple[Overlay, VxlanLink]]:
        self._world.host.forget_seen()
        for overlay, device in shares.devices.items():
            if device.name in shares.in_use:
                yield overlay, device
            elif device.name in shares.own:
                if mtu := self._room(device.local):
                    yield overlay, replace(device, mtu=mtu)
            elif not (device.bridge or self._world.host.link_by_name(device.name)):
                yield overlay, device

    def _room(self, vtep: str) -> int:
        """The MTU of a tunnel from an address, which some link is to have; 0 where none has."""
        try:
            link = uplink.find(self._world.host, UplinkQuery(local=vtep, vtep=True))
        except CniError as error:
            self._refused(error)
            return 0
        return (link.mtu if link else 1500) - OVERHEAD[6 if ":" in vtep else 4]

    def _strays(self, shares: Shares) -> list[Link]:
        """On a bridge may be pods, whoever knows of them."""
        named = {device.name for device in shares.devices.values()}
        named |= {one.name for item in shares.said for one in item.resources if isinstance(one, VxlanLink)}
        there = self._tunnels(shares.me) if shares.me else []
        return [link for link in there if not link.bridge and link.name not in named]

    def _tunnels(self, me: Node) -> list[Link]:
        self._world.host.forget_seen()
        return [link for link in self._world.host.tunnels() if link.alias == OWNER and link.mac == me.mac]

    def _try(self, what: Callable[[], None]) -> None:
        try:
            what()
        except CniError as error:
            self._refused(error)
