"""Packet rules as values, and what they make of a packet: base chains in the order of their priority, as nf_tables asks them.

A test that cannot be judged from here is a doubt: the rule is taken not to match, and the verdict says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from cni.reach.packet import Packet
from cni.values import dataclass, field, replace

#: Deep enough for every ruleset the kernel takes (NFT_JUMP_STACK_SIZE).
_DEEPEST = 16


class Dice:
    """How random rules fall: by the number of one of several choices. `sides` is how many there are, as far as that was met."""

    def __init__(self, pick: int = 0) -> None:
        self.pick, self.sides = pick, 0
        self._thrown = 0

    def of(self, sides: int) -> int:
        """One of so many (nft's numgen)."""
        self.sides = max(self.sides, sides)
        return self.pick % sides

    def falls(self) -> bool:
        """Whether this of the rules that are tried one after the other is taken (iptables' statistic); after the last there is another."""
        self._thrown += 1
        self.sides = max(self.sides, self._thrown + 1)
        return self._thrown - 1 == self.pick


@dataclass(frozen=True)
class Meeting:
    """A packet at a hook: by which links and MACs it comes and goes, whether an address is the namespace's own, and how chance falls."""

    packet: Packet
    into: str = ""
    out: str = ""
    source_mac: str = ""
    target_mac: str = ""
    is_local: Callable[[str], bool] = lambda _: False
    dice: Dice = field(default_factory=Dice, compare=False)


class Act(NamedTuple):
    """What a rule does with what it matches: accept, drop, reject, return, jump, goto, dnat, redirect, masquerade, snat, tproxy, mark, or
    nothing; `value` is a chain, an address with a port, or a mark.
    """

    verb: str
    value: str = ""


#: Whether a packet is meant; None where nobody can say from here.
Test = Callable[[Meeting], "bool | None"]
Decide = Callable[[Meeting], "Act | None"]


class Rule(NamedTuple):
    """One rule: all tests, then `acts` up to the first that decides; `text` is what it says."""

    tests: tuple[Test, ...]
    acts: tuple[Decide, ...]
    text: str = ""


class Chain(NamedTuple):
    """A chain of a table, ``inet name``; one with a `hook` is asked there, of a device if it names one, and `drops` what it does not
    decide if that is its policy. `families` are 4 and 6.
    """

    table: str
    name: str
    rules: tuple[Rule, ...]
    hook: str = ""
    priority: int = 0
    nat: bool = False
    devices: tuple[str, ...] = ()
    drops: bool = False
    families: tuple[int, ...] = (4, 6)

    def meets(self, hook: str, device: str, packet: Packet) -> bool:
        """Whether it is asked. Addresses are translated by a connection's first packet."""
        fits = self.hook == hook and packet.family in self.families and (not device or device in self.devices)
        return fits and not (self.nat and (packet.reply or packet.settled))


class Ruling(NamedTuple):
    """What became of a packet: `verb` is accept, drop, reject, tproxy, or how it is translated; `chain` and `rule` say by what, and
    `doubts` what could not be judged. `packet` is what goes on.
    """

    verb: str
    packet: Packet
    chain: Chain | None = None
    rule: str = ""
    value: str = ""
    doubts: tuple[str, ...] = ()

    @property
    def stops(self) -> bool:
        """Whether it ends here."""
        return self.verb in ("drop", "reject")

    @property
    def by(self) -> str:
        """What decides, in words."""
        if self.chain is None:
            return ""
        return f"chain {self.chain.name} of table {self.chain.table}" + (f" ({self.rule})" if self.rule else "")


_TRANSLATES = ("dnat", "redirect", "masquerade", "snat", "tproxy")


class Rules:
    """All rules of a namespace."""

    def __init__(self, chains: Iterable[Chain] = ()) -> None:
        self.chains = tuple(chains)
        self._named = {(chain.table, chain.name): chain for chain in self.chains}

    def ruling(self, hook: str, meeting: Meeting, device: str = "") -> Ruling:
        """What all chains of a hook make of a packet. `device` is that of a netdev hook."""
        doubts: list[str] = []
        found = Ruling("accept", meeting.packet)
        asked = (chain for chain in self.chains if chain.meets(hook, device, meeting.packet))
        for base in sorted(asked, key=lambda chain: chain.priority):
            passage = _Passage(self._named, replace(meeting, packet=found.packet), doubts)
            one = passage.ruled(base)
            if one.stops:
                return one._replace(doubts=tuple(doubts))
            found = one if one.verb in _TRANSLATES else found._replace(packet=one.packet)
        return found._replace(doubts=tuple(doubts))


class _Passage:
    """A packet's way through a base chain and those it jumps to."""

    def __init__(self, named: Mapping[tuple[str, str], Chain], meeting: Meeting, doubts: list[str]) -> None:
        self._named, self._meeting, self._doubts = named, meeting, doubts

    def ruled(self, base: Chain) -> Ruling:
        found = self._through(base, 0)
        if found and found.verb != "return":
            return found._replace(packet=self._meeting.packet)
        return Ruling("drop" if base.drops else "accept", self._meeting.packet, base, "its policy" * base.drops)

    def _through(self, chain: Chain, depth: int) -> Ruling | None:
        """What decides; None where nothing does, and a return."""
        for rule in chain.rules if depth < _DEEPEST else ():
            act = self._act(chain, rule)
            if act is None:
                continue
            if act.verb in ("jump", "goto"):
                target = self._named.get((chain.table, act.value))
                found = self._through(target, depth + 1) if target else None
                if found and found.verb != "return":
                    return found
                if act.verb == "goto":
                    return None
                continue
            return Ruling(act.verb, self._meeting.packet, chain, rule.text, act.value)
        return None

    def _act(self, chain: Chain, rule: Rule) -> Act | None:
        """What a rule does with the packet, None where it decides nothing."""
        matches = self._matches(rule.tests)
        if matches is None:
            self._doubts.append(f"{rule.text or 'a rule'} (chain {chain.name} of table {chain.table})")
        for decide in rule.acts if matches else ():
            act = decide(self._meeting)
            if act and act.verb != "mark":
                return act
            if act:
                self._meeting = replace(self._meeting, packet=replace(self._meeting.packet, mark=int(act.value)))
        return None

    def _matches(self, tests: Sequence[Test]) -> bool | None:
        """False where one test says no; None where none does and one cannot say."""
        answers = []
        for test in tests:
            answers.append(test(self._meeting))
            if answers[-1] is False:
                return False
        return None if None in answers else True
