"""The table all policies of a node, or of one pod's namespace, share: its maps and its base chains.

Base chains lead by verdict maps to the chains of pods (policy.py), which hold what is said of one of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from cni.kernel import netfilter, ruleset
from cni.naming import POLICY_TABLE, SWITCHED
from cni.resources.chains import astray, line_differences, listed_chains
from cni.resources.nft import NftRules
from cni.resources.world import World
from cni.values import dataclass

TABLE = POLICY_TABLE
#: The set of UDP ports that all pods' gates were told of as a VTEP's; later ones take them from here.
TOLD = "vteps"

_TYPE = {4: "ipv4_addr", 6: "ipv6_addr"}
_IP = {4: "ip", 6: "ip6"}
MAPS = [f"{direction}{family}" for direction in ("out", "in", "node") for family in (4, 6)]
PORT_MAPS = ["outif", "inif"]

#: Neighbour discovery that nobody routed (RFC 4861, 7.1), what listeners and those who ask for them say on a link
#: (RFC 2710, 3; RFC 3810, 5), and errors about flows that were let through.
_DISCOVERY = "icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 return"
_REPORTS = (
    "ip6 saddr { ::, fe80::/10 } ip6 daddr ff00::/8 "
    "icmpv6 type { mld-listener-report, mld-listener-done, mld2-listener-report } ip6 hoplimit 1 return"
)
_QUERIES = "ip6 saddr fe80::/10 ip6 daddr ff00::/8 icmpv6 type mld-listener-query ip6 hoplimit 1 return"
_RELATED = "ct state related meta l4proto { icmp, ipv6-icmp } return"
_ALWAYS = (_DISCOVERY, _REPORTS, _RELATED)
#: The same as the release before this one had it.
_ALWAYS_BEFORE = (
    (
        "icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, "
        "mld-listener-query, mld-listener-report, mld2-listener-report } return"
    ),
    _RELATED,
)


def _asking(direction: str, side: str) -> list[str]:
    return [f"{_IP[family]} {side} vmap @{direction}{family}" for family in (4, 6)]


def _own(family: int) -> str:
    but = "" if family == 4 else "ip6 saddr != :: "
    return f"oifname @guarded {but}oifname . {_IP[family]} saddr != @own{family} drop"


def _on_host(always: tuple[str, ...]) -> dict[str, list[str]]:
    return {
        "forward": [*always, *_asking("out", "saddr"), *_asking("in", "daddr")],
        "input": [*always, "ct direction reply ct state established return", *_asking("out", "saddr")],
        "output": [*always, *_asking("node", "daddr")],
    }


#: Base chains. Ours come shortly before everybody's: a drop is final, what returns is up to the others.
_ON_HOST = _on_host(_ALWAYS)
#: In a pod a closed interface is closed for whatever comes through it; addresses lead to chains of an earlier release.
_IN_POD = {
    "input": [
        'iifname "lo" return', _DISCOVERY, _QUERIES, _RELATED,
        "iifname vmap @inif", *_asking("in", "daddr"),
    ],
    "output": [
        'oifname "lo" return', _own(4), _own(6), *_ALWAYS,
        "oifname vmap @outif", *_asking("out", "saddr"),
    ],
}  # fmt: skip
#: What the table on the host has for everybody.
BASE_CHAINS = tuple(_ON_HOST)
_ON_HOST_BEFORE = _on_host(_ALWAYS_BEFORE)
_IN_POD_BEFORE = {
    "input": ['iifname "lo" return', *_ALWAYS_BEFORE, *_asking("in", "daddr")],
    "output": ['oifname "lo" return', _own(4), _own(6), *_ALWAYS_BEFORE, *_asking("out", "saddr")],
}


@dataclass(frozen=True)
class PolicyTable(NftRules):
    """The table all policies of the node, or of one pod's namespace, share; it goes with the last of them.

    `edition` 1 is the release's whose base chains stay as they are until an ADD makes them today's.
    """

    netns: str = ""
    edition: int = 1
    shared = True
    retires = True
    identity = ("netns",)

    def script(self) -> str:
        return skeleton(self.netns)

    def differences(self, world: World) -> Iterator[str]:
        rehearsed = netfilter.nft_rehearsed(skeleton(self.netns), f"table {TABLE}")
        before = {} if self.edition > 1 else self._before()
        with self.place_of_rules(world):
            dormant, listed = ruleset.is_dormant(TABLE), self._listed()
        yield from [f"policy table {TABLE} is dormant"] * dormant
        yield from (f"policy chain {name} is not hung where it was" for name in astray(listed, rehearsed))
        for name, wanted in listed_chains(rehearsed).items():
            there = listed_chains(listed[name]).get(name)
            if there is None or there != before.get(name):
                yield from line_differences(f"policy chain {name}", there, wanted)

    @property
    def goes_by(self) -> tuple[str, ...]:
        return () if self.netns else (f"table {TABLE}", *(f"chain {TABLE} {name}" for name in self._base))

    def in_the_way(self, world: World) -> str:
        """Chains of the base chains' names that somebody hung elsewhere, or nowhere: no script moves them."""
        rehearsed = netfilter.nft_rehearsed(skeleton(self.netns), f"table {TABLE}")
        with self.place_of_rules(world):
            names = astray(self._listed(), rehearsed)
        return "".join(f"flush chain {TABLE} {name}\ndelete chain {TABLE} {name}\n" for name in names)

    def remove(self, world: World) -> None:
        if self.netns and world.netns is None:
            return
        with self.place_of_rules(world):
            ruleset.delete_idle(TABLE, chains=self._base)

    def describe(self) -> str:
        return f"policy table {TABLE}{' in the pod' * bool(self.netns)}"

    @property
    def place(self) -> object:
        return PolicyTable, self.netns

    @property
    def _base(self) -> dict[str, list[str]]:
        return _IN_POD if self.netns else _ON_HOST

    def _listed(self) -> dict[str, str]:
        return {name: netfilter.nft_list(f"chain {TABLE} {name}") for name in self._base}

    def _before(self) -> dict[str, list[str]]:
        chains = _IN_POD_BEFORE if self.netns else _ON_HOST_BEFORE
        return listed_chains(netfilter.nft_rehearsed(_skeleton(self.netns, chains), f"table {TABLE}"))


def skeleton(netns: str) -> str:
    """The shared table; applying it again changes nothing that is as it should be."""
    return _skeleton(netns, _IN_POD if netns else _ON_HOST)


def _skeleton(netns: str, chains: dict[str, list[str]]) -> str:
    lines = list(_header(netns))
    for name, rules in chains.items():
        hook = f"type filter hook {name} priority filter - 5; policy accept;"
        lines += [f"add chain {TABLE} {name} {{ {hook} }}", f"flush chain {TABLE} {name}"]
        lines += [f"add rule {TABLE} {name} {rule}" for rule in rules]
    return "\n".join([*lines, ""])


def declared(netns: str) -> str:
    """The table with its maps and sets, and without base chains."""
    return "\n".join([*_header(netns), ""])


def _header(netns: str) -> Iterator[str]:
    yield f"add table {TABLE}"
    yield from (f"add map {TABLE} {name} {{ type {_TYPE[int(name[-1])]} : verdict; }}" for name in MAPS)
    if not netns:
        yield f"add set {TABLE} {SWITCHED} {{ type ifname; }}"
        yield f"add set {TABLE} {TOLD} {{ type inet_service; }}"
        return
    yield from (f"add map {TABLE} {name} {{ type ifname : verdict; }}" for name in PORT_MAPS)
    yield f"add set {TABLE} guarded {{ type ifname; }}"
    yield from (f"add set {TABLE} own{family} {{ type ifname . {_TYPE[family]}; }}" for family in (4, 6))
