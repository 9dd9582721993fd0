"""Addresses and kernel settings."""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterator
from functools import partial
from typing import TYPE_CHECKING

from cni import log
from cni.errors import Conflict, KernelRefused
from cni.kernel import sysctl
from cni.kernel.view import MEMBER, SCOPE_LINK, SCOPE_UNIVERSE
from cni.naming import OWNER, IPInterface, interface_of
from cni.resources.base import Resource
from cni.resources.links import PodChange, required
from cni.resources.world import World
from cni.values import dataclass

if TYPE_CHECKING:
    from cni.kernel.netlink import Rtnl
    from cni.kernel.view import Link

#: What the place of every gateway begins with.
GATEWAY = "gateway "

#: Settings without which a pod has no traffic, or believes what it should not.
_NEEDED = ("ip_forward", "forwarding", "disable_ipv6", "rp_filter", "arp_filter")


@dataclass(frozen=True)
class GatewayAddress(Resource):
    """The gateway's address on a host link, as the reference bridge does it.

    A different address of the same IPv4 family, or of an overlapping IPv6 subnet, is an error unless
    `force`, which replaces it. No duplicate detection: with an overlay every host holds it. On a link of a cluster's network it
    stands `beside` others: the host's own addresses, each alone, gateways of other subnets, and on a bridge of somebody else's (flannel's)
    that of a wider one, whose route counts for what no narrower one has. One that every host has is of
    `scope` link (rtnetlink(7)): the kernel never says it is this host, where it chooses a source for others (MASQUERADE).
    """

    link: str
    address: str
    force: bool
    beside: bool = False
    scope: int = SCOPE_UNIVERSE
    shared = True

    def ensure(self, world: World) -> None:
        link = required(world.host.cached_link(self.link), self.link)
        wanted = interface_of(self.address)
        held = {item.interface: item.scope for item in world.host.addresses(link) if item.protocol != MEMBER}
        if wanted in held and held[wanted] >= self.scope:
            return
        is_anothers = link.kind == "bridge" and link.alias != OWNER
        if is_anothers:
            world.host.set_link(link, address=link.mac)  # to what it is, and no port changes it any more
        for other in (item for item in held if item != wanted and self._rivals(item, wanted, is_anothers)):
            if not self.force:
                raise Conflict(f"{self.link} has {other}, so not {self.address} (forceAddress would replace it)")
            world.host.delete_address(link, other)
            world.changed(self, partial(world.host.add_address, link, other, scope=held[other]))
        if wanted in held:
            self._narrow(world, link, wanted)
        else:
            if wanted.version == 6:  # one of IPv4 outlives its link's being set down
                set_as_far_as_needed(sysctl.of_link(6, self.link, "keep_addr_on_down"), "1")
            world.make(self, lambda: world.host.add_address(link, wanted, nodad=wanted.version == 6, scope=self.scope))

    def _narrow(self, world: World, link: Link, wanted: IPInterface) -> None:
        """One that stands as earlier releases made it, and that a call beside this one may be at."""
        with world.turn(gateway_place(self.link, self.address)):
            now = next((item.scope for item in world.host.addresses(link) if item.interface == wanted), self.scope)
            if now < self.scope:
                _rescope(world.host, link, wanted, self.scope)
                world.changed(self, partial(_rescope, world.host, link, wanted, now))

    def differences(self, world: World) -> Iterator[str]:
        scope = _scope_of(world.host, self.link, self.address)
        if scope is None:
            yield f"gateway address {self.address} is missing on {self.link}"
        elif scope < self.scope:
            yield f"gateway address {self.address} on {self.link} is not of scope link"

    def remove(self, world: World) -> None:
        link = world.host.link_by_name(self.link)
        if link:
            world.host.delete_address(link, interface_of(self.address))

    def describe(self) -> str:
        scope = ", of scope link" * (self.scope == SCOPE_LINK)
        return f"gateway {self.address} on {self.link}{scope}{', replacing others' * self.force}"

    def _rivals(self, held: IPInterface, wanted: IPInterface, is_anothers: bool) -> bool:
        if held.version != wanted.version or held.ip.is_link_local:
            return False
        if self.beside and is_anothers and held.network.prefixlen < wanted.network.prefixlen:
            return False
        if self.beside:
            return held.network.num_addresses > 1 and held.network.overlaps(wanted.network)
        return wanted.version == 4 or held.network.overlaps(wanted.network)

    @property
    def mentions(self) -> tuple[str, ...]:
        """A gateway of one pod alone, the whole of its subnet, is nobody else's business."""
        alone = interface_of(self.address).network.num_addresses == 1
        return () if alone else (gateway_place(self.link, self.address),)


@dataclass(frozen=True)
class BlockGateway(GatewayAddress):
    """The gateway of one block of addresses. It goes with the block's last pod: the block may be another host's by tomorrow, and
    what is sent there would stay here.
    """

    retires = True
    identity = ("link", "address")


@dataclass(frozen=True)
class PodAddress(PodChange):
    """An address on the pod's link. Without `dad` an IPv6 address is usable at once."""

    link: str
    address: str
    dad: bool
    of_link = True

    def ensure(self, world: World) -> None:
        link = required(world.pod.link_ref(self.link), self.link)
        interface = interface_of(self.address)
        world.pod.add_address(link, interface, nodad=interface.version == 6 and not self.dad)

    def differences(self, world: World) -> Iterator[str]:
        if _scope_of(world.pod, self.link, self.address) is None:
            yield f"address {self.address} is missing on {self.link} in the pod"

    def describe(self) -> str:
        return f"{self.address} on {self.link} in the pod"

    @property
    def mentions(self) -> tuple[str, ...]:
        return (self.address.split("/")[0],)


@dataclass(frozen=True)
class HostSysctl(Resource):
    """A setting of the host, where this kernel has it; other software relies on it too, so it stays."""

    key: str
    value: str
    shared = True

    def ensure(self, world: World) -> None:
        set_as_far_as_needed(self.key, self.value)

    def differences(self, world: World) -> Iterator[str]:
        now = sysctl.read(self.key)
        if now not in (None, self.value) and (_is_needed(self.key) or sysctl.is_writable(self.key)):
            yield f"sysctl {self.key} is {now}, not {self.value}"

    def describe(self) -> str:
        return f"sysctl {self.key}={self.value} on the host"


@dataclass(frozen=True)
class PodSysctl(Resource):
    """A setting of the pod's namespace, where this kernel has it. CHECK leaves it to the tuning plugin."""

    key: str
    value: str
    follows = True

    def ensure(self, world: World) -> None:
        with world.in_pod():
            set_as_far_as_needed(self.key, self.value)

    def describe(self) -> str:
        return f"sysctl {self.key}={self.value} in the pod"


def set_as_far_as_needed(key: str, value: str) -> None:
    """Set a value that is another. Where /proc/sys is read-only only what traffic or security needs is refused, and the rest told.

    Raises KernelRefused naming the key.
    """
    refused = sysctl.prefers(key, value)
    if refused and _is_needed(key):
        raise KernelRefused(refused, errno.EROFS)
    if refused:
        log.warning("agent-cni", f"{refused}: left as it is")


def announcing(versions: Collection[int], link: str) -> None:
    """Have the kernel tell neighbours of some IP versions when a link's MAC is set (ip-sysctl.rst: arp_notify, ndisc_notify)."""
    for version, setting in ((4, "arp_notify"), (6, "ndisc_notify")):
        if version in versions:
            set_as_far_as_needed(sysctl.of_link(version, link, setting), "1")


def _is_needed(key: str) -> bool:
    return key.rpartition(".")[2] in _NEEDED


def gateway_place(link: str, address: str) -> str:
    """How a gateway is asked for: its address with its prefix, then its link."""
    return f"{GATEWAY}{address} {link}"


def _scope_of(rtnl: Rtnl, name: str, address: str) -> int | None:
    """The scope of an address that a link holds."""
    link = rtnl.link_by_name(name)
    held = rtnl.addresses(link) if link else []
    return next((item.scope for item in held if item.interface == interface_of(address)), None)


def _rescope(rtnl: Rtnl, link: Link, address: IPInterface, scope: int) -> None:
    """Have an address again in another scope, which the kernel changes of none. As long as it is there with another prefix, too,
    it takes nothing with it that goes by it, and a link whose last it is keeps its neighbours (fib_del_ifaddr, fib_inetaddr_event).
    """
    alone = interface_of(f"{address.ip}/{address.max_prefixlen}")
    with rtnl.batch():
        rtnl.add_address(link, alone, scope=scope)
        rtnl.delete_address(link, address)
        rtnl.add_address(link, address, scope=scope)
        rtnl.delete_address(link, alone)
