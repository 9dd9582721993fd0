"""What interception needs in a pod's namespace: rules, loopback, and the way back of a transparent proxy.

These belong to the pod and not to one attachment of it: two attachments that want the same share them,
and they go with the last one. `netns` says which pod.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache, partial

from cni.errors import KernelRefused
from cni.kernel import connections, netfilter, process, ruleset, sysctl, templates
from cni.kernel.view import EVERYWHERE, SCOPE_HOST, KernelRoute, Link, LinkRef
from cni.naming import interface_of
from cni.resources import chains
from cni.resources.base import Resource
from cni.resources.links import required
from cni.resources.world import World
from cni.values import dataclass

#: The prefixes the kernel labels otherwise than ::/0, but loopback's and those of mapped addresses; and our labels.
_LABELLED = ("::/96", "2001::/32", "2001:10::/28", "3ffe::/16", "2002::/16", "fec0::/10", "fc00::/7")
_OWN_LABEL, _EVERYBODYS_LABEL = 1337, 1


@dataclass(frozen=True)
class PodLoopback(Resource):
    """The pod's loopback is up: what is redirected arrives there."""

    def ensure(self, world: World) -> None:
        link = required(world.pod.link_by_name("lo"), "lo")
        if not link.up:
            world.pod.set_link(link, up=True)

    def differences(self, world: World) -> Iterator[str]:
        if not required(world.pod.link_by_name("lo"), "lo").up:
            yield "lo is down in the pod"

    def describe(self) -> str:
        return "lo up in the pod"


@dataclass(frozen=True)
class ProxyAddress(Resource):
    """An IPv6 address of the proxy's alone, from which it reaches the application without being captured again.

    On the pod's link, because the `loopback` plugin, which containerd runs at the same time, refuses a loopback that has
    any other address. A link that speaks no IPv6 needs none. SourceLabels keep everybody else from it.
    """

    link: str
    address: str

    def ensure(self, world: World) -> None:
        link = required(world.pod.link_ref(self.link), self.link)
        if not self._there(world, link):
            address = interface_of(self.address)
            try:
                world.make(self, lambda: world.pod.add_address(link, address, nodad=True, deprecated=True))
            except KernelRefused:
                if _speaks_ipv6(world, self.link):
                    raise

    def differences(self, world: World) -> Iterator[str]:
        link = world.pod.link_by_name(self.link)
        if link is None or not (self._there(world, link) or not _speaks_ipv6(world, self.link)):
            yield f"address {self.address} is missing on {self.link} in the pod"

    def remove(self, world: World) -> None:
        link = world.pod.link_by_name(self.link) if world.netns else None
        if link and self._there(world, link):
            world.pod.delete_address(link, interface_of(self.address))

    def describe(self) -> str:
        return f"{self.address} on {self.link} in the pod, for the proxy"

    def _there(self, world: World, link: Link | LinkRef) -> bool:
        return interface_of(self.address) in (item.interface for item in world.pod.addresses(link))


@dataclass(frozen=True)
class SourceLabels(Resource):
    """The pod's source addresses are chosen as if the one of ProxyAddress were not there (RFC 6724).

    Linux prefers what is in ::/96, deprecated or not, and against a unique local address it has the longer prefix in
    common with every global destination. What decides before that is the label: here all addresses share the one of ::/0,
    but that one. Halves of the prefixes the kernel labels (net/ipv6/addrlabel.c) win over the whole and leave it in place;
    among the pod's other addresses the longest prefix decides as their labels did.
    """

    netns: str
    address: str
    shared = True
    retires = True

    def ensure(self, world: World) -> None:
        first, *rest = _labels(self.address)
        world.make(self, lambda: world.pod.add_label(*first))
        with world.pod.batch():
            for prefix, label in rest:
                world.pod.add_label(prefix, label, perhaps_there=True)

    def differences(self, world: World) -> Iterator[str]:
        there = world.pod.labels()
        for prefix, label in _labels(self.address):
            if there.get(str(prefix)) != label:
                yield f"ip addrlabel prefix {prefix} label {label} is missing in the pod"

    def remove(self, world: World) -> None:
        if world.netns:
            with world.pod.batch():
                for prefix, label in _labels(self.address):
                    world.pod.delete_label(prefix, label)

    def describe(self) -> str:
        return f"{self.address} is nobody's source address by choice (ip addrlabel)"


@dataclass(frozen=True)
class WayBack(Resource):
    """Packets with a mark are delivered in the pod, whatever their destination (kernel's tproxy.rst)."""

    netns: str
    family: int
    mark: int
    table: int
    shared = True
    retires = True
    identity = ("netns", "family")

    def ensure(self, world: World) -> None:
        lo = required(world.pod.link_ref("lo"), "lo")
        if not self._route_there(world) and self._possible(world):
            route = KernelRoute(EVERYWHERE[self.family], "", self.table, 0, 0, 0, SCOPE_HOST, local=True)
            world.make(self, lambda: world.pod.add_route(lo, route, onlink=False))
        if not self._rule_there(world):
            world.make(self, lambda: world.pod.add_mark_rule(self.family, self.mark, self.table))

    def differences(self, world: World) -> Iterator[str]:
        if not self._rule_there(world):
            yield f"ip -{self.family} rule fwmark {self.mark:#x} lookup {self.table} is missing in the pod"
        if not self._route_there(world) and self._possible(world):
            yield f"ip -{self.family} route local default dev lo table {self.table} is missing in the pod"

    def remove(self, world: World) -> None:
        if world.netns and self._rule_there(world):
            world.pod.delete_mark_rule(self.family, self.mark, self.table)
        if world.netns and self._route_there(world):
            world.pod.delete_route(required(world.pod.link_ref("lo"), "lo"), EVERYWHERE[self.family], self.table)

    def describe(self) -> str:
        return f"IPv{self.family} packets with mark {self.mark:#x} stay in the pod (table {self.table})"

    def _possible(self, world: World) -> bool:
        return self.family == 4 or _speaks_ipv6(world, "lo")

    def _rule_there(self, world: World) -> bool:
        return (self.mark, self.table) in world.pod.mark_rules(self.family)

    def _route_there(self, world: World) -> bool:
        routes = world.pod.routes(required(world.pod.link_ref("lo"), "lo"), self.family)
        wanted = (EVERYWHERE[self.family], self.table, True)
        return any((item.dst, item.table, item.local) == wanted for item in routes)


@dataclass(frozen=True)
class PodRules(Resource):
    """Our packet rules of one family (4 or 6) in the pod; `text` is what iptables-save prints of them.

    Both families are changed at the same time. With `sparing`, connections from before the rules go on.
    """

    netns: str
    backend: str
    family: int
    text: str
    sparing: bool = False
    shared = True
    retires = True
    stays = True
    identity = ("netns", "backend", "family")

    @property
    def batch(self) -> BothFamilies:
        return BothFamilies(self.netns, self.backend)

    def ensure(self, world: World) -> None:
        self.batch.ensure((self,), world)

    def differences(self, world: World) -> Iterator[str]:
        with world.in_pod():
            yield from (f"table {table} in the pod is dormant" for table in self._asleep())
            there = chains.ours(netfilter.saved(self.backend, self.family))
            elsewhere = chains.ours(netfilter.saved_elsewhere(self.backend, self.family))
        for line in chains.differences(there, chains.ours(self.text.splitlines())):
            yield f"IPv{self.family} rules in the pod ({self.backend}): {line}"
        if elsewhere:
            yield f"IPv{self.family} rules of ours are in the pod outside {self.backend} too: {', '.join(elsewhere)}"

    def repair(self, world: World) -> None:
        """Tables wake up first: nobody would ask what is restored."""
        with world.in_pod():
            for table in self._asleep():
                netfilter.nft(f"add table {table}\n")
        self.ensure(world)

    def _asleep(self) -> list[str]:
        """Which of its tables somebody put to sleep, where nf_tables has them."""
        family = {4: "ip", 6: "ip6"}[self.family]
        mine = [f"{family} {table}" for table in chains.ours(self.text.splitlines())]
        return [table for table in mine if "nft" in self.backend and ruleset.is_dormant(table)]

    def remove(self, world: World) -> None:
        if world.netns:
            with _alone(world, self.netns), world.in_pod():
                if not templates.remove(self.backend, self.family, self.text):
                    _apply(self, _change(self, ""))

    def describe(self) -> str:
        count = sum(line.startswith("-A") for line in self.text.splitlines())
        return f"{count} IPv{self.family} rules in the pod ({self.backend})"

    @property
    def place(self) -> object:
        return PodRules, self.netns, self.backend, self.family

    @property
    def mentions(self) -> tuple[str, ...]:
        return (self.netns,)

    def details(self) -> Iterator[str]:
        yield from self.text.splitlines()


@dataclass(frozen=True)
class BothFamilies:
    """The rules of a pod's families, changed at the same time while nobody else changes them."""

    netns: str
    backend: str

    def ensure(self, items: Sequence[PodRules], world: World) -> None:
        """Make them all so."""
        with _alone(world, self.netns), world.in_pod():
            _spare_earlier([item for item in items if item.sparing])
            if templates.instantiate(self.backend, {item.family: item.text for item in items}):
                for item in items:
                    world.created(item)
                return
            changes = [_change(item, item.text) for item in items]
            for item, change in zip(items, changes, strict=True):
                if change:
                    world.created(item)
            process.together([partial(_apply, item, change) for item, change in zip(items, changes, strict=True)])


@lru_cache(maxsize=4)
def _labels(address: str) -> tuple[tuple[ipaddress.IPv6Network, int], ...]:
    """The label of one address, and everybody's for the halves of what the kernel labels."""
    halves = (half for prefix in _LABELLED for half in ipaddress.IPv6Network(prefix).subnets())
    return (ipaddress.IPv6Network(address), _OWN_LABEL), *((half, _EVERYBODYS_LABEL) for half in halves)


def _speaks_ipv6(world: World, link: str) -> bool:
    """Whether a link of the pod has IPv6 now; one whose MTU is below 1280 has no such settings."""
    with world.in_pod():
        return sysctl.read(sysctl.of_link(6, link, "disable_ipv6")) == "0"


def _alone(world: World, path: str) -> AbstractContextManager[None]:
    """Whoever changes a pod's rules, by whatever path it came: one after another."""
    return world.turn(f"rules of {(world.netns and world.netns.identity) or path}")


def _spare_earlier(rules: Sequence[PodRules]) -> None:
    """Let connections be that are there before the first rules: in the midst they look like captured ones forgotten."""
    if rules and connections.possible() and not any(_there(item) for item in rules):
        connections.remember()


def _there(rules: PodRules) -> dict[str, chains.Chains]:
    return chains.ours(netfilter.saved(rules.backend, rules.family))


def _change(rules: PodRules, wanted: str) -> str:
    return chains.change(_there(rules), chains.ours(wanted.splitlines()))


def _apply(rules: PodRules, change: str) -> None:
    if change:
        netfilter.restore_in_pod(rules.backend, rules.family, change)
