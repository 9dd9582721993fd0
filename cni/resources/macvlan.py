"""macvlan: a pod's own MAC on a physical link, and the host's way to such pods.

Source: the kernel's Documentation/networking and drivers/net/macvlan.c. A host cannot reach macvlans
through the link they stand on; a shim, a macvlan of the host's own on the same link, can.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cni.errors import Conflict, KernelRefused, Unfinished
from cni.kernel import sysctl
from cni.kernel.view import MAIN_TABLE, KernelRoute, Link, MacvlanSettings
from cni.naming import OWNER
from cni.resources.addressing import set_as_far_as_needed
from cni.resources.base import REFRESH, Resource
from cni.resources.links import required
from cni.resources.neighbours import HostNeighbour
from cni.resources.routes import HostRoute, restore
from cni.resources.world import World
from cni.values import dataclass

if TYPE_CHECKING:
    from cni.kernel.netlink.links import LinkSettings


@dataclass(frozen=True)
class Macvlan(Resource):
    """A macvlan born in the pod's namespace under its final name, MAC and MTU.

    `mac` empty keeps what the kernel gives: passthru has its master's. `owner` marks the link (its
    alias) as ours; with neither our MAC nor our mark an interface of that name is somebody else's and is
    never deleted. `in_pod`: the master is in the pod's namespace. It `waits` where the master was down: it has a carrier when that one is up.
    """

    name: str
    master: str
    mode: str
    mac: str
    mtu: int
    queue: int
    in_pod: bool
    owner: str
    waits: bool = False
    of_link = True

    def ensure(self, world: World) -> None:
        master = self._master(world)
        if master is None:
            raise Conflict(f"master {self.master} is gone")
        self._create(world, master)
        world.created(self)
        world.pod.set_link(required(world.pod.link_by_name(self.name), self.name), ifalias=self.owner)

    @property
    def mentions(self) -> tuple[str, ...]:
        return (self.master,)

    def differences(self, world: World) -> Iterator[str]:
        master, link = self._master(world), world.pod.link_by_name(self.name)
        if master is None:
            yield f"master {self.master} is missing"
        elif not (master.up or self.waits):
            yield f"master {self.master} is down"
        if link is None:
            return
        if link.kind != "macvlan":
            yield f"{self.name} is {link.kind or 'a physical link'}, not a macvlan"
        elif link.macvlan_mode != self.mode:
            yield f"{self.name} is in mode {link.macvlan_mode}, not {self.mode}"
        if master and (link.parent, link.parent_elsewhere) != (master.index, not self.in_pod):
            yield f"{self.name} stands on another master than {self.master}"

    def is_lost(self, world: World) -> bool:
        """One of ours that is otherwise cannot be changed while it is there."""
        link = world.pod.link_by_name(self.name)
        if link and not self._is_ours(link):
            raise Conflict(f"{self.name} in the pod is not the macvlan that was made; it is left as it is")
        master = self._master(world)
        if link is None or master is None:
            return link is None and self._renamed(world) is None
        return (link.macvlan_mode, link.parent) != (self.mode, master.index) and self._is_ours(link)

    def lacking(self, world: World) -> Iterator[str]:
        """Who renamed it did not take it away."""
        if other := self._renamed(world):
            yield f"{self.name} is called {other.name} in the pod"
        yield from self.differences(world)

    def repair(self, world: World) -> None:
        """What else is amiss with it alone is its master's."""
        if other := self._renamed(world):
            world.pod.set_link(other, ifname=self.name)
        if self._master(world) is None:
            raise Conflict(f"master {self.master} is gone")

    def remove(self, world: World) -> None:
        link = world.pod.link_by_name(self.name) if world.netns else None
        if link and self._is_ours(link):
            world.pod.delete_link(link)

    def describe(self) -> str:
        place = "the pod" if self.in_pod else "the host"
        return f"macvlan {self.name} in the pod on {self.master} of {place}, mode {self.mode}, {self.mac or 'its MAC'}, MTU {self.mtu}"

    def _renamed(self, world: World) -> Link | None:
        if world.pod.link_ref(self.name):
            return None
        alike = (link for link in world.pod.links() if link.kind == "macvlan" and link.alias == self.owner)
        return next(alike, None)

    def _is_ours(self, link: Link) -> bool:
        ours = link.alias == self.owner or (bool(self.mac) and link.mac == self.mac)
        return link.kind == "macvlan" and ours

    def _master(self, world: World) -> Link | None:
        return (world.pod if self.in_pod else world.host).link_by_name(self.master)

    def _taken(self, world: World, master: Link) -> str:
        taker = (world.pod if self.in_pod else world.host).link_by_index(master.bridge) if master.bridge else None
        if taker is None:
            return "taken by what gets all that arrives there (ipvlan, Open vSwitch)"
        return f"a port of {taker.name} ({taker.kind}), which is a master itself"

    def _create(self, world: World, master: Link) -> None:
        try:
            with world.host_netns() as host:
                settings = MacvlanSettings(self.mode, master.index, None if self.in_pod else host, self.queue)
                world.pod.create_macvlan(self.name, self.mac, self.mtu, settings)
        except Unfinished:
            world.created(self)
            raise
        except KernelRefused as error:
            if error.errno == errno.EEXIST and world.pod.link_by_name(self.name):
                path = world.netns.path if world.netns else "the pod"
                raise Conflict(f"{self.name} exists already in {path}; it is left as it is") from None
            if (
                error.errno == errno.EBUSY
            ):  # what arrives at a link has one taker (netdev_rx_handler_register in net/core)
                raise Conflict(
                    f"master {self.master} is {self._taken(world, master)}; a macvlan cannot stand on it"
                ) from None
            if error.errno == errno.EINVAL:  # all that the kernel says of it (macvlan_common_newlink)
                raise Conflict(
                    f"{self.master} is taken: passthru needs a master without other macvlans, and shares it with none"
                ) from None
            raise


@dataclass(frozen=True)
class HostShim(Resource):
    """The host's own macvlan on a master: how the host and pods on that master reach each other.

    It answers ARP for the host's addresses only towards what is routed through it (arp_filter), so hosts
    on the wire do not learn its MAC. It is known by its alias, because udev and NetworkManager give links MACs of their
    choice; pods know it by `mac` for good.
    """

    name: str
    mac: str
    master: str
    mtu: int = 0
    shared = True
    retires = True
    identity = ("name",)
    mend = REFRESH

    def ensure(self, world: World) -> None:
        found = world.host.link_by_name(self.name)
        link = found or self._created(world)
        if not self._is(world, link):
            raise Conflict(f"{self.name} exists on the host and is not our way to pods on {self.master}")
        set_as_far_as_needed(self._arp_filter, "1")
        self._put_right(world, link)
        anew = found is None or not found.up or found.mac != self.mac
        if anew or not any(self._leads(world, link, 4)):
            self._restore(world, link)

    def differences(self, world: World) -> Iterator[str]:
        link = world.host.link_by_name(self.name)
        if link is None or not self._is(world, link):
            yield f"host access link {self.name} is missing"
            return
        if not link.up:
            yield f"host access link {self.name} is down"
        if link.mac != self.mac:
            yield f"host access link {self.name} has MAC {link.mac}, not {self.mac}"
        if link.mtu < self._mtu(world):
            yield f"host access link {self.name} has MTU {link.mtu}, below {self._mtu(world)}"
        if sysctl.read(self._arp_filter) != "1":
            yield f"sysctl {self._arp_filter} is not 1"

    def remove(self, world: World) -> None:
        """A route through it is some pod's, whoever keeps the record."""
        link = world.host.link_by_name(self.name)
        if link and self._is(world, link) and not any(self._leads(world, link, 4, 6)):
            world.host.delete_link(link)

    def describe(self) -> str:
        return f"host access through macvlan {self.name} on {self.master}"

    @property
    def _arp_filter(self) -> str:
        return sysctl.of_link(4, self.name, "arp_filter")

    @property
    def _alias(self) -> str:
        return f"{OWNER} host access on {self.master}"

    def _is(self, world: World, link: Link) -> bool:
        master = world.host.link_by_name(self.master)
        ours = link.alias == self._alias or link.mac == self.mac  # the release before gave no alias
        return link.kind == "macvlan" and ours and master is not None and link.parent == master.index

    def _mtu(self, world: World) -> int:
        """What its master had; since then that may have less."""
        master = world.host.cached_link(self.master)
        return min(self.mtu, master.mtu) if master else self.mtu

    def _leads(self, world: World, link: Link, *families: int) -> Iterator[KernelRoute]:
        """The routes to pods through it; those of its own addresses are in another table."""
        for family in families:
            routes = (item for item in world.host.routes(link, family) if item.table == MAIN_TABLE)
            yield from (item for item in routes if item.dst.endswith(("/32", "/128")))

    def _restore(self, world: World, link: Link) -> None:
        """What others have through it goes with it, when it is down, when its MAC changes (neigh_changeaddr in net/core), and
        with the host's address (fib_sync_down_addr in net/ipv4), of all of them at once.
        """
        theirs = (item for item in world.at_rest(self.master) if isinstance(item, HostRoute | HostNeighbour))
        restore((item for item in theirs if item.link == self.name), link, world)

    def _created(self, world: World) -> Link:
        master = required(world.host.link_by_name(self.master), self.master)
        settings = MacvlanSettings("bridge", master.index)
        world.make(self, lambda: world.host.create_macvlan(self.name, self.mac, master.mtu, settings))
        return required(world.host.link_by_name(self.name), self.name)

    def _put_right(self, world: World, link: Link) -> None:
        wanted: LinkSettings = {}
        if link.alias != self._alias:
            wanted["ifalias"] = self._alias
        if link.mac != self.mac:
            wanted["address"] = self.mac
        if link.mtu < self._mtu(world):
            wanted["mtu"] = self._mtu(world)
        if wanted or not link.up:
            world.host.set_link(link, up=True, **wanted)
