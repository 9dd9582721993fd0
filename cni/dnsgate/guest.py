"""A pod as the gate knows it: which names it may have resolved, and which rules they are of. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from enum import Enum

from cni.dnsgate.message import Name
from cni.kernel.gatedir import Entry
from cni.naming import domain_set


class Ruling(Enum):
    """What becomes of a question."""

    ASKED = "asked"
    REFUSED = "refused"
    #: It is a name that the pod may have with something behind it, as who searches domains asks (resolv.conf(5)): nobody is asked.
    NOWHERE = "nowhere"


class Guest:
    """What its file says, for questions."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self._exact: dict[Name, tuple[int, ...]] = {}
        self._under: dict[Name, tuple[int, ...]] = {}
        self._rules = entry.allowed
        for rule, names in enumerate(self._rules):
            self._learn(names, (rule,))
        self._learn(entry.names, ())
        self._own = [labels_of(name) for name in entry.own]
        #: The pod's addresses, packed, and where answers may point though it is the node or a pod.
        self.addresses = tuple(ipaddress.ip_address(text).packed for text in entry.addresses)
        self.into = tuple(map(ipaddress.ip_network, entry.into))
        self._families = {4 if len(address) == 4 else 6 for address in self.addresses}

    def ruling(self, name: Name) -> Ruling:
        """What becomes of a question for a name."""
        if self.entry.everything or self._is_known(name) or self._is_own(name):
            return Ruling.ASKED
        if any(self._is_known(name[:end]) for end in range(2, len(name))):
            return Ruling.NOWHERE
        return Ruling.REFUSED

    def rules_of(self, name: Name) -> frozenset[int]:
        """The rules, by number, that let the pod reach what a name stands for."""
        return frozenset(rule for rules in self._matching(name) for rule in rules)

    def sets(self, rules: Iterable[int], family: int) -> Iterator[str]:
        """What the sets of some rules are called; none of a family that the pod has no address of."""
        return (domain_set(self.entry.token, self._rules[rule], family) for rule in rules if family in self._families)

    @property
    def every_set(self) -> dict[str, int]:
        """All of them, each with its family."""
        rules = range(len(self._rules))
        return {name: family for family in (4, 6) for name in self.sets(rules, family)}

    def _learn(self, names: Iterable[str], rules: tuple[int, ...]) -> None:
        for name in names:
            place = self._under if name.startswith("*.") else self._exact
            labels = labels_of(name.removeprefix("*."))
            place[labels] = (*place.get(labels, ()), *rules)

    def _is_known(self, name: Name) -> bool:
        return next(self._matching(name), None) is not None

    def _matching(self, name: Name) -> Iterator[tuple[int, ...]]:
        if name in self._exact:
            yield self._exact[name]
        yield from (self._under[name[at:]] for at in range(1, len(name)) if name[at:] in self._under)

    def _is_own(self, name: Name) -> bool:
        return any(name[len(name) - len(domain) :] == domain for domain in self._own if len(name) >= len(domain))


def labels_of(text: str) -> Name:
    """A name of a configuration, normalised there, as questions have it."""
    return tuple(label.encode() for label in text.split("."))
