"""The bridge pods are on: ours, or somebody's that keeps what he gave it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

from cni.errors import Conflict
from cni.kernel import sysctl
from cni.kernel.view import Link
from cni.naming import OWNER, is_mac, mac_of_address
from cni.protocol.result import Result
from cni.resources.addressing import announcing, set_as_far_as_needed
from cni.resources.base import Resource
from cni.resources.links import required
from cni.resources.world import World
from cni.values import dataclass, replace


@dataclass(frozen=True)
class Bridge(Resource):
    """A Linux bridge, set up. One that is somebody else's is used as it is. Ours has the largest MTU of the pods on it, and the MAC it was
    given at creation.

    `mac` empty means a random one, fixed from creation, so no port can make it flap. What the chain's result says of it is `reported`.
    """

    name: str
    mac: str
    mtu: int
    promiscuous: bool
    reported: str = ""
    shared = True

    def ensure(self, world: World) -> None:
        link = world.host.cached_link(self.name) or self._created(world)
        if link.kind != "bridge":
            raise Conflict(f"{self.name} exists on the host and is {link.kind or 'no bridge'}, not a bridge")
        if link.alias != OWNER:
            self._keep_mac(world, link)
        else:
            self._put_right(world, link)
        if not link.up:
            world.host.set_link(link, up=True)
        if self.promiscuous and not link.promiscuous:
            world.host.set_promiscuous(link)

    def differences(self, world: World) -> Iterator[str]:
        link = world.host.link_by_name(self.name)
        if link is None or link.kind != "bridge":
            yield f"bridge {self.name} is missing"
            return
        if not link.up:
            yield f"bridge {self.name} is down"
        if self.reported not in ("", link.mac) and not self._has_right_mac(world, link):
            yield f"bridge {self.name} has MAC {link.mac}, not {self.reported}"
        if link.mtu < self.mtu:
            yield f"bridge {self.name} has MTU {link.mtu}, below the pod's {self.mtu}"
        if self.promiscuous and not link.promiscuous:
            yield f"bridge {self.name} is not promiscuous"

    def repair(self, world: World) -> None:
        """One that is made anew has the MAC that was told of the one before."""
        replace(self, mac=self.mac or self.reported).ensure(world)

    def remove(self, world: World) -> None:
        link = world.host.link_by_name(self.name)
        if link and not any(port.bridge == link.index for port in world.host.links()):
            world.host.delete_link(link)

    def accepting(self, reported: Result) -> Bridge:
        found = (item.mac for item in reported.interfaces if item.name == self.name and not item.sandbox)
        return replace(self, reported=next(found, ""))

    def describe(self) -> str:
        mac = self.mac or "a fixed random MAC"
        return f"bridge {self.name}, {mac}, MTU {self.mtu}{', promiscuous' * self.promiscuous}"

    def _created(self, world: World) -> Link:
        world.make(self, lambda: world.host.create_bridge(self.name, self.mac or _random_mac(), self.mtu))
        # Where to send what it forwards to an IPv6 pod, a host asks by its own link-local address: not before DAD is done with that
        # (ndisc_solicit in net/ipv6/ndisc.c), a second or two after the first port.
        set_as_far_as_needed(sysctl.of_link(6, self.name, "accept_dad"), "0")
        return required(world.host.link_by_name(self.name), self.name)

    def _keep_mac(self, world: World, link: Link) -> None:
        """A bridge that nobody gave a MAC has its lowest port's, our first one's too, and after the last none: before there
        is one it is given its own (br_stp_recalculate_bridge_id in net/bridge).
        """
        if link.state == "UP":
            return
        mac = link.mac if is_mac(link.mac) else self.mac or _random_mac()
        world.host.set_link(link, address=mac)
        world.host.link_by_name(self.name)  # as the result is to say

    def _has_right_mac(self, world: World, link: Link) -> bool:
        """Of several networks on a bridge it has one's: whichever came first."""
        if self.mac == link.mac or not (self.mac or self.reported):
            return True
        held = (item.interface.ip for item in world.host.addresses(link))
        return link.mac in map(mac_of_address, held)

    def _put_right(self, world: World, link: Link) -> None:
        if link.mtu < self.mtu or (link.mtu > self.mtu and not self._must_carry_more(world, link)):
            world.changed(self, partial(world.host.set_link, link, mtu=link.mtu))
            world.host.set_link(link, mtu=self.mtu)
            world.host.link_by_name(self.name)  # as the result is to say
        if not self._has_right_mac(world, link):
            self._put_mac_right(world, link)

    def _must_carry_more(self, world: World, link: Link) -> bool:
        """Whether a pod on it has a larger MTU; a tunnel's follows the bridge's."""
        return any(port.mtu > self.mtu for port in world.host.ports(link) if port.kind != "vxlan")

    def _put_mac_right(self, world: World, link: Link) -> None:
        """Who knows the MAC it had hears of it (ip-sysctl.rst: arp_notify, ndisc_notify)."""
        announcing((4, 6), self.name)
        world.host.set_link(link, address=self.mac)
        world.host.link_by_name(self.name)


def _random_mac() -> str:
    return f"0a:{os.urandom(5).hex(':')}"  # its first byte: of one station, and locally administered
