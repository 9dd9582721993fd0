"""The last steps of an ADD: wait until traffic passes, then say where the addresses live."""

from __future__ import annotations

import ipaddress
import os
import time
from collections.abc import Callable, Iterator

from cni.errors import Conflict, KernelRefused
from cni.kernel import kept, sysctl
from cni.naming import IPAddress
from cni.resources.addressing import announcing, set_as_far_as_needed
from cni.resources.base import Resource
from cni.resources.links import required
from cni.resources.world import World
from cni.values import dataclass

_PATIENCE, _STEP = 5.0, 0.002
#: States of a link on which detection waits for a carrier (addrconf_dad_kick in net/ipv6).
_NO_CARRIER = ("DOWN", "LOWERLAYERDOWN")
#: A setting, and a value of it (linux/if_link.h).
_MODE, _NO_LINK_LOCAL = "addr_gen_mode", "1"


@dataclass(frozen=True)
class Forwarding(Resource):
    """The host end carries traffic: the bridge enables a port only after the link state settled."""

    port: str
    opens = True
    follows = True

    def ensure(self, world: World) -> None:
        _wait(lambda: required(world.host.link_by_name(self.port), self.port).state == "UP", f"{self.port} to forward")

    def describe(self) -> str:
        return f"wait until {self.port} forwards"


@dataclass(frozen=True)
class Settled(Resource):
    """Duplicate address detection on a pod's link is over and found no duplicate (RFC 4862, 5.4)."""

    link: str
    follows = True

    def ensure(self, world: World) -> None:
        link = required(world.pod.link_by_name(self.link), self.link)
        if link.state in _NO_CARRIER:
            return
        _wait(lambda: not any(item.tentative and not item.duplicate for item in world.pod.addresses(link)),
              f"duplicate address detection on {self.link}")  # fmt: skip
        for item in world.pod.addresses(link):
            if item.duplicate:
                raise Conflict(f"{item.interface} is in use by another host on this network")

    def describe(self) -> str:
        return f"wait for duplicate address detection on {self.link} in the pod"


@dataclass(frozen=True)
class Vacant(Resource):
    """Nobody on a macvlan's wire has its addresses: asked under a MAC of the moment, because another node that gives
    the same address gives the same MAC, and takes what comes from that for its own pod's (macvlan_handle_frame).

    IPv4 is asked for by ARP probes (RFC 5227), IPv6 by the kernel. The link-local address follows from `mac`, which the link
    has afterwards; detection is over then, and not repeated.
    """

    link: str
    mac: str
    addresses: tuple[str, ...]

    def ensure(self, world: World) -> None:
        link = required(world.pod.link_ref(self.link), self.link)
        setting, passing = sysctl.of_link(6, self.link, _MODE), f"0a:{os.urandom(5).hex(':')}"
        with world.in_pod():
            before = sysctl.read(setting) or ""
            set_as_far_as_needed(setting, _NO_LINK_LOCAL)
        world.pod.set_link(link, address=passing)
        world.pod.set_link(link, up=True)
        self._refuse_held(world, passing)
        Settled(self.link).ensure(world)
        world.pod.set_link(link, address=self.mac)
        with world.in_pod():
            set_as_far_as_needed(setting, before)

    def lacking(self, world: World) -> Iterator[str]:
        """One that was killed has left the link without the address that follows from its MAC."""
        if world.pod.link_ref(self.link):
            with world.in_pod():
                now, usual = (sysctl.read(sysctl.of_link(6, link, _MODE)) for link in (self.link, "default"))
            if now == _NO_LINK_LOCAL != usual:
                yield f"nobody was asked whether {', '.join(self.addresses)} is taken"

    def repair(self, world: World) -> None:
        """Ask again, and leave the link as one is made."""
        with world.in_pod():
            usual = sysctl.read(sysctl.of_link(6, "default", _MODE))
            set_as_far_as_needed(sysctl.of_link(6, self.link, _MODE), usual or "0")
        self.ensure(world)

    def describe(self) -> str:
        return f"ask whether somebody has {', '.join(self.addresses)} already"

    def _refuse_held(self, world: World, mac: str) -> None:
        parsed = map(ipaddress.ip_address, self.addresses)
        asked = [address for address in parsed if isinstance(address, ipaddress.IPv4Address)]
        if not asked or required(world.pod.link_by_name(self.link), self.link).state in _NO_CARRIER:
            return
        from cni.kernel import arp  # only who asks loads it

        with world.in_pod():
            found = arp.holder_of(asked, self.link, mac)
        if found:
            raise Conflict(f"{found[0]} is in use by another host on this network, {found[1]}")


@dataclass(frozen=True)
class Announcement(Resource):
    """Neighbours that knew an earlier owner of these addresses learn the new MAC at once.

    A process that serves many calls says so itself when this one is answered. In any other the kernel announces what a link holds,
    because its MAC is set, to what it is (ip-sysctl.rst: arp_notify, ndisc_notify; nothing of a family it has no address of). It forgets
    the link's neighbours then, so neighbours that are to stay come after this in a plan.
    A packet socket would cost such an ADD the 10 ms the kernel takes to close one.
    """

    link: str
    mac: str
    addresses: tuple[str, ...]
    follows = True

    def ensure(self, world: World) -> None:
        addresses = [ipaddress.ip_address(address) for address in self.addresses]
        with world.in_pod():
            announcing({address.version for address in addresses}, self.link)
            later = kept.serves_many and _is_said_later(self.link, addresses)
        if not later:
            world.pod.set_link(required(world.pod.link_ref(self.link), self.link), address=self.mac)

    def describe(self) -> str:
        return f"announce {', '.join(self.addresses)} at {self.mac}"


def _is_said_later(link: str, addresses: list[IPAddress]) -> bool:
    from cni.kernel.announcements import announcements  # nobody else loads threads

    return announcements.begin(link, addresses)


def _wait(settled: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not settled():
        if time.monotonic() > deadline:
            raise KernelRefused(f"waited {_PATIENCE:g} s in vain for {what}")
        time.sleep(_STEP)
