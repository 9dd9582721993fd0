"""What holds pods to their policies: a table all share, and two chains per pod, found by its addresses.

On the host the table is out of the pods' reach and asked whenever a packet enters, leaves or crosses the
node; verdict maps lead from an address to its pod's chains, so a packet's cost does not grow with the pods. In a
pod without a host side (macvlan) the same chains hang in the pod's own namespace, and the interface leads to them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cni.errors import Conflict
from cni.kernel import netfilter
from cni.resources.chains import astray, line_differences, listed_chains
from cni.resources.gate import gone_with, port_of
from cni.resources.nft import NftRules
from cni.resources.verdicts import Verdict, chains_of, naming, verdicts
from cni.resources.world import World

TABLE = "inet agent_cni_policy"
#: The set of bridges whose filter we switched on.
SWITCHED = "switched"

_TYPE = {4: "ipv4_addr", 6: "ipv6_addr"}
_IP = {4: "ip", 6: "ip6"}
_MAPS = [f"{direction}{family}" for direction in ("out", "in", "node") for family in (4, 6)]
_PORT_MAPS = ["outif", "inif"]

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
            dormant, listed = netfilter.is_dormant(TABLE), self._listed()
        yield from [f"policy table {TABLE} is dormant"] * dormant
        yield from (f"policy chain {name} is not hung where it was" for name in astray(listed, rehearsed))
        for name, wanted in listed_chains(rehearsed).items():
            there = listed_chains(listed[name]).get(name)
            if there is None or there != before.get(name):
                yield from line_differences(f"policy chain {name}", there, wanted)

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
            netfilter.delete_idle(TABLE, chains=self._base)

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


@dataclass(frozen=True)
class PodPolicy(NftRules):
    """The chains of one pod; `rules` are lines behind their chain's name, `closed` keeps the node out too.

    `pod` is for people. With `netns` the chains are in the pod, and hold what passes the interface `through`; `link` is
    the interface on which only the pod's own addresses go out, or empty. `token` names the chains; those of an
    earlier release, without one, are called after each address.
    """

    addresses: tuple[str, ...]
    rules: tuple[str, ...]
    closed: bool
    pod: str
    netns: str = ""
    link: str = ""
    token: str = ""
    through: str = ""

    def differences(self, world: World) -> Iterator[str]:
        wanted = listed_chains(netfilter.nft_rehearsed(skeleton(self.netns) + self.script(), f"table {TABLE}"))
        with self.place_of_rules(world):
            for chain in self.chains:
                there = listed_chains(netfilter.nft_list(f"chain {TABLE} {chain}")).get(chain)
                yield from line_differences(f"policy chain {chain}", there, wanted.get(chain))
            for name, key, chain in self._verdicts():
                if f"jump {chain}" not in (netfilter.nft_element(f"{TABLE} {name}", key) or "nothing"):
                    yield f"policy map {name} does not lead {key} to its chain"
            for name, key in self._members():
                if not netfilter.nft_element(f"{TABLE} {name}", key):
                    yield f"policy set {name} lacks {key}"

    def remove(self, world: World) -> None:
        """What leads to these chains and no others: another pod may have got the address meanwhile."""
        if self.netns and world.netns is None:
            return
        with self.place_of_rules(world):
            if not (self._leads_here() and netfilter.nft_if_there(self._taking_away())):
                netfilter.nft(self._taking_away_what_is_there())

    def in_the_way(self, world: World) -> str:
        """Entries of a pod that is gone without a record, of this one's earlier release, or of nobody, and the chains.

        Raises Conflict where that pod is there.
        """
        with self.place_of_rules(world):
            there = self._listed()
            mine = {(name, key): chain for name, key, chain in self._verdicts()}
            others = [item for item in there if mine.get(item[:2], item.chain) != item.chain]
            for item in others:
                self._refuse_alive(world, item)
            chains = {f"{way}-{item.owner}" for item in others for way in ("in", "out")}
            wrong = [item for item in there if item in others or item.chain in chains]
            lines = [f"delete element {TABLE} {item.map} {{ {item.key} }}" for item in wrong]
            lines += [f"delete chain {TABLE} {name}" for name in sorted(chains & chains_of(TABLE))]
        return "\n".join([*lines, *gone_with({item.owner for item in others}), ""])

    def describe(self) -> str:
        return f"policy for {', '.join(self.addresses)}{' in the pod' * bool(self.netns)}: {len(self.rules)} rules"

    @property
    def place(self) -> object:
        return PodPolicy, self.netns, self.token or self.addresses

    @property
    def mentions(self) -> tuple[str, ...]:
        return self.addresses

    def details(self) -> Iterator[str]:
        yield from self.rules

    def script(self) -> str:
        lines = [f"{verb} chain {TABLE} {chain}" for chain in self.chains for verb in ("add", "flush")]
        lines += [f"add rule {TABLE} {line}" for line in self.rules]
        lines += [f"add element {TABLE} {name} {{ {key} : jump {chain} }}" for name, key, chain in self._verdicts()]
        lines += [f"add element {TABLE} {name} {{ {key} }}" for name, key in self._members()]
        return "\n".join([*lines, ""])

    def _refuse_alive(self, world: World, other: Verdict) -> None:
        port = "" if self.netns else port_of(other.owner)
        if port and world.host.link(port):
            raise Conflict(f"{other.key} is held to the policy of the pod behind {port}; one address has one policy")

    def _leads_here(self) -> bool:
        """Whether everything the maps hold of this pod is there and leads to its chains."""
        wanted = list(self._verdicts())
        listed = netfilter.nft_elements([(f"{TABLE} {name}", key) for name, key, _ in wanted]) if wanted else ""
        return bool(wanted) and len(list(verdicts(listed, self.chains))) == len(wanted)

    def _taking_away(self) -> str:
        places = [*((name, key) for name, key, _ in self._verdicts()), *self._members()]
        lines = [f"delete element {TABLE} {name} {{ {key} }}" for name, key in places]
        return "\n".join([*lines, *(f"delete chain {TABLE} {chain}" for chain in self.chains), ""])

    def _taking_away_what_is_there(self) -> str:
        names = set(self.chains)
        places = [(item.map, item.key) for item in self._listed() if item.chain in names]
        for name in ("guarded", "own4", "own6") if self.link else ():
            places += [(name, key) for key in naming(netfilter.nft_list(f"set {TABLE} {name}"), self.link)]
        lines = [f"delete element {TABLE} {name} {{ {key} }}" for name, key in places]
        return "\n".join([*lines, *(f"delete chain {TABLE} {chain}" for chain in sorted(names & chains_of(TABLE))), ""])

    def _listed(self) -> list[Verdict]:
        """Every entry of every map."""
        return every_verdict([*_MAPS, *(_PORT_MAPS if self.netns else ())])

    @property
    def chains(self) -> list[str]:
        """What its chains are called."""
        if self.token:
            return [f"in-{self.token}", f"out-{self.token}"]
        return list(dict.fromkeys(line.split(" ", 1)[0] for line in self.rules))

    def _verdicts(self) -> Iterator[tuple[str, str, str]]:
        """What the maps hold of this pod: which, the key, and the chain it leads to."""
        if self.through:
            yield from ((f"{way}if", f'"{self.through}"', f"{way}-{self.token}") for way in ("out", "in"))
            return
        for address in self.addresses:
            family, spelled = ipaddress.ip_address(address).version, self.token or address.replace(":", "-")
            for direction in ("out", "in", *(("node",) if self.closed else ())):
                yield f"{direction}{family}", address, f"{'out' if direction == 'out' else 'in'}-{spelled}"

    def _members(self) -> Iterator[tuple[str, str]]:
        """What the sets hold of this pod: which, and the key."""
        if self.link:
            yield "guarded", f'"{self.link}"'
            for address in self.addresses:
                yield f"own{ipaddress.ip_address(address).version}", f'"{self.link}" . {address}'


def every_verdict(maps: Iterable[str] = _MAPS) -> list[Verdict]:
    """Every entry of these maps, where there is the table."""
    return [item for name in maps for item in verdicts(netfilter.nft_list(f"map {TABLE} {name}"))]


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


def _header(netns: str) -> Iterator[str]:
    yield f"add table {TABLE}"
    yield from (f"add map {TABLE} {name} {{ type {_TYPE[int(name[-1])]} : verdict; }}" for name in _MAPS)
    if not netns:
        yield f"add set {TABLE} {SWITCHED} {{ type ifname; }}"
        return
    yield from (f"add map {TABLE} {name} {{ type ifname : verdict; }}" for name in _PORT_MAPS)
    yield f"add set {TABLE} guarded {{ type ifname; }}"
    yield from (f"add set {TABLE} own{family} {{ type ifname . {_TYPE[family]}; }}" for family in (4, 6))
