"""What holds pods to their policies: a table all share, and chains per pod, found by its addresses.

On the host the table is out of the pods' reach and asked whenever a packet enters, leaves or crosses the
node; verdict maps lead from an address to its chains, so a packet's cost does not grow with the pods. In a
pod without a host side (macvlan) the same chains hang in the pod's own namespace.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

from cni.kernel import netfilter
from cni.resources.chains import line_differences, listed_chains
from cni.resources.nft import NftRules
from cni.resources.world import World

TABLE = "inet agent_cni_policy"

_TYPE = {4: "ipv4_addr", 6: "ipv6_addr"}
_IP = {4: "ip", 6: "ip6"}
_MAPS = [f"{direction}{family}" for direction in ("out", "in", "node") for family in (4, 6)]

#: Neighbour discovery and multicast listeners, and errors about flows that were let through.
_DISCOVERY = "nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert"
_LISTENERS = "mld-listener-query, mld-listener-report, mld2-listener-report"
_ALWAYS = (
    f"icmpv6 type {{ {_DISCOVERY}, {_LISTENERS} }} return",
    "ct state related meta l4proto { icmp, ipv6-icmp } return",
)


def _asking(direction: str, side: str) -> list[str]:
    return [f"{_IP[family]} {side} vmap @{direction}{family}" for family in (4, 6)]


def _own(family: int) -> str:
    but = "" if family == 4 else "ip6 saddr != :: "
    return f"oifname @guarded {but}oifname . {_IP[family]} saddr != @own{family} drop"


#: Base chains. Ours come shortly before everybody's: a drop is final, what returns is up to the others.
_ON_HOST = {
    "forward": [*_ALWAYS, *_asking("out", "saddr"), *_asking("in", "daddr")],
    "input": [*_ALWAYS, "ct direction reply ct state established return", *_asking("out", "saddr")],
    "output": [*_ALWAYS, *_asking("node", "daddr")],
}
_IN_POD = {
    "input": ['iifname "lo" return', *_ALWAYS, *_asking("in", "daddr")],
    "output": ['oifname "lo" return', _own(4), _own(6), *_ALWAYS, *_asking("out", "saddr")],
}


@dataclass(frozen=True)
class PolicyTable(NftRules):
    """The table all policies of the node, or of one pod's namespace, share; it goes with the last of them."""

    netns: str = ""
    shared = True
    retires = True
    identity = ("netns",)

    def script(self) -> str:
        return skeleton(self.netns)

    def differences(self, world: World) -> Iterator[str]:
        wanted = listed_chains(netfilter.nft_rehearsed(skeleton(self.netns), f"table {TABLE}"))
        for name in wanted:
            with self.place_of_rules(world):
                there = listed_chains(netfilter.nft_list(f"chain {TABLE} {name}")).get(name)
            yield from line_differences(f"policy chain {name}", there, wanted[name])

    def remove(self, world: World) -> None:
        if self.netns and world.netns is None:
            return
        with self.place_of_rules(world):
            netfilter.delete_idle(TABLE, chains=_IN_POD if self.netns else _ON_HOST)

    def describe(self) -> str:
        return f"policy table {TABLE}{' in the pod' * bool(self.netns)}"


@dataclass(frozen=True)
class PodPolicy(NftRules):
    """The chains of one pod; `rules` are lines behind their chain's name, `closed` keeps the node out too.

    `pod` is for people. With `netns` the chains are in the pod; `link` is then the interface on which only
    the pod's own addresses go out, or empty.
    """

    addresses: tuple[str, ...]
    rules: tuple[str, ...]
    closed: bool
    pod: str
    netns: str = ""
    link: str = ""

    def differences(self, world: World) -> Iterator[str]:
        wanted = listed_chains(netfilter.nft_rehearsed(skeleton(self.netns) + self.script(), f"table {TABLE}"))
        with self.place_of_rules(world):
            for chain in self._names():
                there = listed_chains(netfilter.nft_list(f"chain {TABLE} {chain}")).get(chain)
                yield from line_differences(f"policy chain {chain}", there, wanted.get(chain))
            for name, key, verdict in self._elements():
                if verdict.lstrip(": ") not in (netfilter.nft_element(f"{TABLE} {name}", key) or "nothing"):
                    yield (
                        f"policy map {name} does not lead {key} to its chain"
                        if verdict
                        else f"policy set {name} lacks {key}"
                    )

    def remove(self, world: World) -> None:
        """Add first, so that deleting what is not there does not fail the transaction."""
        if self.netns and world.netns is None:
            return
        lines = [*_header(self.netns), *self._chains()]
        lines += [f"{verb} element {TABLE} {where}" for where in self._places() for verb in ("add", "delete")]
        lines += [f"delete chain {TABLE} {chain}" for chain in self._names()]
        with self.place_of_rules(world):
            netfilter.nft("\n".join([*lines, ""]))

    def describe(self) -> str:
        return f"policy for {', '.join(self.addresses)}{' in the pod' * bool(self.netns)}: {len(self.rules)} rules"

    @property
    def place(self) -> object:
        return PodPolicy, self.netns, self.addresses

    @property
    def mentions(self) -> tuple[str, ...]:
        return self.addresses

    def details(self) -> Iterator[str]:
        yield from self.rules

    def script(self) -> str:
        lines = [*self._chains(), *(f"add rule {TABLE} {line}" for line in self.rules)]
        return "\n".join([*lines, *(f"add element {TABLE} {where}" for where in self._places()), ""])

    def _chains(self) -> Iterator[str]:
        for chain in self._names():
            yield f"add chain {TABLE} {chain}"
            yield f"flush chain {TABLE} {chain}"

    def _names(self) -> list[str]:
        return list(dict.fromkeys(line.split(" ", 1)[0] for line in self.rules))

    def _places(self) -> Iterator[str]:
        return (f"{name} {{ {key}{verdict} }}" for name, key, verdict in self._elements())

    def _elements(self) -> Iterator[tuple[str, str, str]]:
        """What the maps and sets hold of this pod: which, the key, and where it leads."""
        if self.link:
            yield "guarded", f'"{self.link}"', ""
        for address in self.addresses:
            family, spelled = ipaddress.ip_address(address).version, address.replace(":", "-")
            for direction in ("out", "in", *(("node",) if self.closed else ())):
                yield f"{direction}{family}", address, f" : jump {'out' if direction == 'out' else 'in'}-{spelled}"
            if self.link:
                yield f"own{family}", f'"{self.link}" . {address}', ""


def skeleton(netns: str) -> str:
    """The shared table; applying it again changes nothing that is as it should be."""
    lines = list(_header(netns))
    for name, rules in (_IN_POD if netns else _ON_HOST).items():
        hook = f"type filter hook {name} priority filter - 5; policy accept;"
        lines += [f"add chain {TABLE} {name} {{ {hook} }}", f"flush chain {TABLE} {name}"]
        lines += [f"add rule {TABLE} {name} {rule}" for rule in rules]
    return "\n".join([*lines, ""])


def _header(netns: str) -> Iterator[str]:
    yield f"add table {TABLE}"
    yield from (f"add map {TABLE} {name} {{ type {_TYPE[int(name[-1])]} : verdict; }}" for name in _MAPS)
    if netns:
        yield f"add set {TABLE} guarded {{ type ifname; }}"
        yield from (f"add set {TABLE} own{family} {{ type ifname . {_TYPE[family]}; }}" for family in (4, 6))
