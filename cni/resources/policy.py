"""What holds pods to their policies on the host: a table all share, chains per pod, a guard per veth.

The table knows pods by address, in verdict maps, so a packet's cost does not grow with the pods; the guard
on the host end of the veth lets only a pod's own addresses out of it, so the address is worth trusting.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

from cni.kernel import netfilter
from cni.resources.base import Resource
from cni.resources.chains import line_differences
from cni.resources.links import required
from cni.resources.world import World

TABLE, GUARD = "inet agent_cni_policy", "netdev agent_cni"

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


#: Base chains. Ours come shortly before everybody's: a drop is final, what returns is up to the others.
_BASE = {
    "forward": [*_ALWAYS, *_asking("out", "saddr"), *_asking("in", "daddr")],
    "input": [*_ALWAYS, "ct direction reply ct state established return", *_asking("out", "saddr")],
    "output": [*_ALWAYS, *_asking("node", "daddr")],
}


@dataclass(frozen=True)
class PolicyTable(Resource):
    """The table all policies of the node share; it goes with the last of them."""

    shared = True
    retires = True

    def ensure(self, world: World) -> None:
        netfilter.nft(skeleton())

    def differences(self, world: World) -> Iterator[str]:
        wanted = _listed(netfilter.nft_rehearsed(skeleton(), f"table {TABLE}"))
        for name in _BASE:
            there = _listed(netfilter.nft_list(f"chain {TABLE} {name}")).get(name)
            yield from line_differences(f"policy chain {name}", there, wanted.get(name))

    def remove(self, world: World) -> None:
        lines = (f"{verb} table {table}" for table in (TABLE, GUARD) for verb in ("add", "delete"))
        netfilter.nft("\n".join([*lines, ""]))

    def describe(self) -> str:
        return f"policy table {TABLE}"


@dataclass(frozen=True)
class PodPolicy(Resource):
    """The chains of one pod; `rules` are lines behind their chain's name, `closed` keeps the node out too."""

    addresses: tuple[str, ...]
    rules: tuple[str, ...]
    closed: bool
    pod: str

    def ensure(self, world: World) -> None:
        world.created(self)
        netfilter.nft(self._script())

    def differences(self, world: World) -> Iterator[str]:
        wanted = _listed(netfilter.nft_rehearsed(skeleton() + self._script(), f"table {TABLE}"))
        for chain in dict.fromkeys(line.split()[0] for line in self.rules):
            there = _listed(netfilter.nft_list(f"chain {TABLE} {chain}")).get(chain)
            yield from line_differences(f"policy chain {chain}", there, wanted.get(chain))
        for name, address, chain in self._elements():
            if f": jump {chain}" not in netfilter.nft_element(f"{TABLE} {name}", address):
                yield f"policy map {name} does not lead {address} to {chain}"

    def remove(self, world: World) -> None:
        """Add first, so that deleting what is not there does not fail the transaction."""
        lines = [*_header(), *self._chains()]
        lines += [f"{verb} element {TABLE} {where}" for where in self._places() for verb in ("add", "delete")]
        lines += [f"delete chain {TABLE} {chain}" for chain in self._names()]
        netfilter.nft("\n".join([*lines, ""]))

    def describe(self) -> str:
        return f"policy for {', '.join(self.addresses)}: {len(self.rules)} rules"

    def details(self) -> Iterator[str]:
        yield from self.rules

    def _script(self) -> str:
        lines = [*self._chains(), *(f"add rule {TABLE} {line}" for line in self.rules)]
        return "\n".join([*lines, *(f"add element {TABLE} {where}" for where in self._places()), ""])

    def _chains(self) -> Iterator[str]:
        for chain in self._names():
            yield f"add chain {TABLE} {chain}"
            yield f"flush chain {TABLE} {chain}"

    def _names(self) -> list[str]:
        return list(dict.fromkeys(line.split()[0] for line in self.rules))

    def _places(self) -> Iterator[str]:
        return (f"{name} {{ {address} : jump {chain} }}" for name, address, chain in self._elements())

    def _elements(self) -> Iterator[tuple[str, str, str]]:
        for address in self.addresses:
            family, spelled = ipaddress.ip_address(address).version, address.replace(":", "-")
            for direction in ("out", "in", *(("node",) if self.closed else ())):
                yield f"{direction}{family}", address, f"{'out' if direction == 'out' else 'in'}-{spelled}"


@dataclass(frozen=True)
class AntiSpoof(Resource):
    """Only the pod's own MAC and addresses come out of its veth, in ARP and neighbour discovery too."""

    link: str
    mac: str
    addresses: tuple[str, ...]

    def ensure(self, world: World) -> None:
        world.created(self)
        netfilter.nft("\n".join([*self._base(), *self._rules(), ""]))

    def differences(self, world: World) -> Iterator[str]:
        there = netfilter.nft_list(f"chain {GUARD} {self.link}")
        if there and f'hook ingress device "{self.link}"' not in there:
            yield f"spoofing guard of {self.link} is not on its device"
        if there and "policy drop" not in there:
            yield f"spoofing guard of {self.link} does not drop"
        plain = [f"add table {GUARD}", f"add chain {GUARD} {self.link}", *self._rules(), ""]
        wanted = _listed(netfilter.nft_rehearsed("\n".join(plain), f"table {GUARD}"))
        yield from line_differences(f"spoofing guard {self.link}", _listed(there).get(self.link), wanted[self.link])

    def remove(self, world: World) -> None:
        """Close the port first; then nothing passes while its guard goes."""
        link = world.host.link(self.link)
        if link:
            world.host.set_link(link, state="down")
        chain = f"chain {GUARD} {self.link}"
        netfilter.nft(f"add table {GUARD}\nadd {chain}\nflush {chain}\ndelete {chain}\n")

    def describe(self) -> str:
        return f"only {self.mac} with {', '.join(self.addresses)} comes out of {self.link}"

    def _base(self) -> Iterator[str]:
        hook = f'type filter hook ingress device "{self.link}" priority -500; policy drop;'
        yield f"add table {GUARD}"
        yield f"add chain {GUARD} {self.link} {{ {hook} }}"
        yield f"flush chain {GUARD} {self.link}"

    def _rules(self) -> list[str]:
        four = [text for text in self.addresses if ":" not in text]
        six = [text for text in self.addresses if ":" in text]
        lines = [f"ether saddr != {self.mac} drop", "udp sport 67 drop", "udp dport 4789 drop"]
        if four:
            mine = f"{{ {', '.join(four)} }}"
            lines.append(f"arp saddr ether {self.mac} arp saddr ip {{ 0.0.0.0, {', '.join(four)} }} accept")
            lines.append(f"ip saddr {mine} accept")
        lines += self._six(six) if six else []
        return [f"add rule {GUARD} {self.link} {line}" for line in lines]

    def _six(self, own: list[str]) -> list[str]:
        targets = ", ".join(f"{int(ipaddress.ip_address(text)):#034x}" for text in own)
        return [
            "icmpv6 type { nd-router-advert, nd-redirect } drop",
            f"icmpv6 type nd-neighbor-advert @th,64,128 != {{ {targets} }} drop",
            f"ip6 saddr {{ {', '.join(own)} }} accept",
            "ip6 saddr :: icmpv6 type { nd-neighbor-solicit, mld2-listener-report } accept",
        ]


@dataclass(frozen=True)
class BridgeFilter(Resource):
    """What a bridge forwards between its ports meets the rules too, by the bridge's own switch."""

    bridge: str
    shared = True

    def ensure(self, world: World) -> None:
        link = required(world.host.link(self.bridge), self.bridge)
        if not link.filtered:
            world.host.filter_bridge(link)

    def differences(self, world: World) -> Iterator[str]:
        link = world.host.link(self.bridge)
        if link and not link.filtered:
            yield f"bridge {self.bridge} does not show its traffic to the rules (nf_call_iptables)"

    def describe(self) -> str:
        return f"bridge {self.bridge} shows its traffic to the rules"


def skeleton() -> str:
    """The shared table; applying it again changes nothing that is as it should be."""
    lines = list(_header())
    for name, rules in _BASE.items():
        hook = f"type filter hook {name} priority filter - 5; policy accept;"
        lines += [f"add chain {TABLE} {name} {{ {hook} }}", f"flush chain {TABLE} {name}"]
        lines += [f"add rule {TABLE} {name} {rule}" for rule in rules]
    return "\n".join([*lines, ""])


def _header() -> Iterator[str]:
    yield f"add table {TABLE}"
    yield from (f"add map {TABLE} {name} {{ type {_TYPE[int(name[-1])]} : verdict; }}" for name in _MAPS)


def _listed(text: str) -> dict[str, list[str]]:
    """The rules of each chain of ``nft list``; a base chain's hook is none of them."""
    chains: dict[str, list[str]] = {}
    rules: list[str] = []
    for line in map(str.strip, text.splitlines()):
        if line.startswith("chain "):
            rules = chains.setdefault(line.split()[1], [])
        elif line not in ("}", "") and not line.startswith(("type ", "table ", "map ", "elements ")):
            rules.append(line)
    return chains
