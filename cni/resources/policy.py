"""What holds pods to their policies: two chains per pod, found by its addresses, in a table all share (policy_table.py).

On the host the table is out of the pods' reach and asked whenever a packet enters, leaves or crosses the
node; verdict maps lead from an address to its pod's chains, so a packet's cost does not grow with the pods. In a
pod without a host side (macvlan) the same chains hang in the pod's own namespace, and the interface leads to them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator

from cni.errors import Conflict, KernelRefused, TryAgainLater
from cni.kernel import netfilter, ruleset
from cni.kernel.ruleset import Chain, Element
from cni.resources.chains import line_differences, listed_chains
from cni.resources.domains import sets_of
from cni.resources.gate import gone_with, port_of
from cni.resources.nft import NftRules
from cni.resources.peer_set import declared as declared_sets
from cni.resources.policy_table import MAPS, PORT_MAPS, TABLE, declared, skeleton
from cni.resources.verdicts import Verdict, chains_of, naming, verdicts
from cni.resources.world import World
from cni.values import dataclass, replace

#: A set of peers, or of what names are resolved to, where a rule names one.
_SET = re.compile(r"@((?:[pn][46]|d[46]-\w+)-[0-9a-f]{16})\b")

#: All that a chain says that lets everything through.
_OPEN = re.compile(r"\S+ return")
#: What a pod's chains are called before its token: those that the maps lead to, and those that go on where an administrator's
#: ruling passes a packet to the next tier, or an answer.
_ASKED, _LATER = ("in", "out"), ("in.pass", "in.back", "out.pass", "out.back")


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
                if not ruleset.has_element(_element(name, key, chain)):
                    yield f"policy map {name} does not lead {key} to its chain"
            for name, key, chain in self._led_though_open():
                if not ruleset.has_element(_element(name, key, chain)):
                    yield f"policy map {name} leads {key} elsewhere than to its chain"
            for name, key in self._members():
                if not ruleset.has_element(_element(name, key)):
                    yield f"policy set {name} lacks {key}"

    @property
    def goes_by(self) -> tuple[str, ...]:
        if self.netns:
            return ()
        leading = (_element(name, key) for name, key, _ in self._every_verdict())
        elements = (f"element {item.container} {item.key.hex()}" for item in leading)
        return (*(f"chain {TABLE} {chain}" for chain in self.chains), *elements)

    def remove(self, world: World) -> None:
        """What leads to these chains and no others: another pod may have got the address meanwhile.

        Of an interface whose addresses nobody recorded, only a listing tells them.
        """
        if self.netns and world.netns is None:
            return
        with self.place_of_rules(world):
            if (self.link and not self.addresses) or not self._deleted_by_key():
                netfilter.nft(self._taking_away_what_is_there())

    def shut(self, world: World) -> None:
        """Let nothing in or out on the host, until the rules are made again: also of a pod that was open, to whose chains nothing
        led. Raises CniError.
        """
        replace(self, rules=tuple(f"{way}-{self.token} drop" for way in _ASKED)).ensure(world)

    def in_the_way(self, world: World) -> str:
        """Entries of a pod that is gone without a record, of this one's earlier release, or of nobody, and the chains.

        Raises Conflict where that pod is there.
        """
        with self.place_of_rules(world):
            there = self._listed()
            mine = {(name, key): chain for name, key, chain in self._every_verdict()}
            others = [item for item in there if mine.get(item[:2], item.chain) != item.chain]
            for item in others:
                self._refuse_alive(world, item)
            chains = {f"{way}-{item.owner}" for item in others for way in (*_ASKED, *_LATER)}
            wrong = [item for item in there if item in others or item.chain in chains]
            lines = [f"delete element {TABLE} {item.map} {{ {item.key} }}" for item in wrong]
            lines += [f"delete chain {TABLE} {name}" for name in sorted(chains & chains_of(TABLE))]
            gone = sorted({item.owner for item in others})
            lines += [f"delete set {TABLE} {name}" for owner in gone for name in sets_of(owner)]
        return "\n".join([*lines, *gone_with(set(gone)), ""])

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

    @property
    def declarations(self) -> str:
        return declared(self.netns)

    def script(self) -> str:
        sets = declared_sets(dict.fromkeys(_SET.findall("\n".join(self.rules))))
        lines = [f"{verb} chain {TABLE} {chain}" for chain in self.chains for verb in ("add", "flush")]
        lines += [f"add rule {TABLE} {line}" for line in self.rules]
        lines += _leading(self._verdicts())
        lines += [f"add element {TABLE} {name} {{ {key} }}" for name, key in self._members()]
        return sets + "\n".join([*lines, ""])

    def script_for(self, world: World) -> str:
        """With an open way where an entry leads: to these chains, or elsewhere, and is in the way then. Without the chains that the
        rules of before went on to, and these do not: added, for nobody may know of them where the script is compiled.
        """
        stale = [name for name in self._every_chain if name not in self.chains and ruleset.has_chain(TABLE, name)]
        gone = "".join(f"{verb} chain {TABLE} {name}\n" for name in stale for verb in ("add", "flush", "delete"))
        return self.script() + "".join(f"{line}\n" for line in _leading(self._led_though_open())) + gone

    def _refuse_alive(self, world: World, other: Verdict) -> None:
        port = "" if self.netns else port_of(other.owner)
        if port and world.host.link_by_name(port):
            raise Conflict(f"{other.key} is held to the policy of the pod behind {port}; one address has one policy")

    def _deleted_by_key(self) -> bool:
        """Not where somebody changed more than entries: what leads here, or what kind of keys a map has."""
        leading = [_element(name, key, chain) for name, key, chain in self._every_verdict()]
        members = [_element(name, key) for name, key in self._members()]
        try:
            ruleset.delete_there([Chain(TABLE, chain) for chain in self._every_chain], [*leading, *members])
        except (KernelRefused, TryAgainLater):
            return False
        return True

    def _taking_away_what_is_there(self) -> str:
        """With what leads here under keys nobody knows of."""
        names = set(self._every_chain)
        places = [(item.map, item.key) for item in self._listed() if item.chain in names]
        for name in ("guarded", "own4", "own6") if self.link else ():
            places += [(name, key) for key in naming(netfilter.nft_list(f"set {TABLE} {name}"), self.link)]
        lines = [f"delete element {TABLE} {name} {{ {key} }}" for name, key in places]
        return "\n".join([*lines, *(f"delete chain {TABLE} {chain}" for chain in sorted(names & chains_of(TABLE))), ""])

    def _listed(self) -> list[Verdict]:
        """Every entry of every map."""
        return every_verdict([*MAPS, *(PORT_MAPS if self.netns else ())])

    @property
    def chains(self) -> list[str]:
        """What its chains are called."""
        asked = [f"{way}-{self.token}" for way in _ASKED] if self.token else []
        return list(dict.fromkeys([*asked, *(line.split(" ", 1)[0] for line in self.rules)]))

    @property
    def _every_chain(self) -> list[str]:
        """What they may be called, whatever the rules are; each before those that its rules may go on to."""
        return [f"{way}-{self.token}" for way in (*_ASKED, *_LATER)] if self.token else self.chains

    def _verdicts(self) -> Iterator[tuple[str, str, str]]:
        """What the maps hold of this pod: which, the key, and the chain it leads to; not on the host where that lets everything
        through: with each change the kernel looks through all that maps lead to.
        """
        closed = {line.partition(" ")[0] for line in self.rules if not _OPEN.fullmatch(line)}
        return (item for item in self._every_verdict() if self.netns or item[2] in closed)

    def _led_though_open(self) -> Iterator[tuple[str, str, str]]:
        """What the maps hold besides under its addresses: the release before's, somebody's who is gone, or a hand's."""
        closed = set(self._verdicts())
        others = (item for item in self._every_verdict() if item not in closed)
        return (item for item in others if ruleset.has_element(_element(*item[:2])))

    def _every_verdict(self) -> Iterator[tuple[str, str, str]]:
        """What the maps may hold of it: also what the release before led to chains that let everything through."""
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


def _leading(verdicts: Iterable[tuple[str, str, str]]) -> list[str]:
    return [f"add element {TABLE} {name} {{ {key} : jump {chain} }}" for name, key, chain in verdicts]


def _element(name: str, key: str, chain: str = "") -> Element:
    """An entry of a map or set as the kernel keeps it: of a quoted link, an address, or both; of a map, led to a chain."""
    parts = [part if part.startswith('"') else ipaddress.ip_address(part) for part in key.split(" . ")]
    packed = [ruleset.link_key(part.strip('"')) if isinstance(part, str) else part.packed for part in parts]
    return Element(f"{TABLE} {name}", b"".join(packed), chain=chain)


def every_verdict(maps: Iterable[str] = MAPS) -> list[Verdict]:
    """Every entry of these maps, where there is the table."""
    return [item for name in maps for item in verdicts(netfilter.nft_list(f"map {TABLE} {name}"))]
