"""Who is meant by a policy that selects pods: sets of addresses in the table of policies, which its rules look them up in.

A set is of one selection and family and serves every chain that names it. What it holds follows pods as they come, go and
change, and is known only in the turn in which it changes: the record of who uses it is there before, so whoever comes later
sees it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping

from cni.kernel import ruleset
from cni.kernel.ruleset import Change, Element
from cni.naming import POLICY_TABLE as TABLE
from cni.naming import peer_set
from cni.resources.base import REATTACH
from cni.resources.nft import NftRules
from cni.resources.world import PEERS, Peers, World
from cni.values import dataclass

_TYPE = {4: "ipv4_addr", 6: "ipv6_addr"}
_SIZE = {4: 4, 6: 16}


@dataclass(frozen=True)
class PeerSet(NftRules):
    """The addresses of one `family` of the pods that a `selection` means, as it is spelled; with their ports, where that
    names one. With `netns` it is in a pod.
    """

    selection: str
    family: int
    netns: str = ""
    shared = True
    retires = True

    def script(self) -> str:
        return declared([self.name])

    @property
    def declarations(self) -> str:
        return f"add table {TABLE}\n"

    def about_peers(self, world: World) -> bool:
        """Always."""
        return True

    def changes(self, peers: Peers) -> Iterator[Change]:
        """What takes the set from what it holds to its members."""
        wanted = peers.members(self.selection, self.family)
        if wanted is not None:
            there = ruleset.keys(self._container)
            yield Change(self._container, wanted - there, frozenset(there - wanted))

    def differences(self, world: World) -> Iterator[str]:
        with self.place_of_rules(world), world.turn(PEERS):
            if not self.is_there():
                yield f"policy set {self.name} is missing"
                return
            for change in self.changes(world.peers()) if world.current else ():
                yield from (f"policy set {self.name} lacks {ruleset.spelled(key)}" for key in sorted(change.added))
                yield from (f"policy set {self.name} has {ruleset.spelled(key)}" for key in sorted(change.gone))

    @property
    def goes_by(self) -> tuple[str, ...]:
        return () if self.netns else (f"set {self._container}",)

    def besides(self, world: World) -> Iterator[str]:
        return self.differences(world)  # who is meant may be others by now

    def is_there(self) -> bool:
        """Whether the namespace this thread is in has it: its first user filled it when it was made."""
        return ruleset.has_set(self._container)

    def remove(self, world: World) -> None:
        if self.netns and world.netns is None:
            return
        with self.place_of_rules(world), world.turn(PEERS):
            ruleset.delete_set(self._container)

    def describe(self) -> str:
        return f"policy set {self.name}: {self.selection}"

    @property
    def place(self) -> object:
        return PeerSet, self.netns, self.selection, self.family

    @property
    def name(self) -> str:
        """What the set is called."""
        return peer_set(self.selection, self.family, ports='"port":' in self.selection)

    @property
    def _container(self) -> str:
        return f"{TABLE} {self.name}"


@dataclass(frozen=True)
class PeerEntries(NftRules):
    """A pod's addresses, and what each stands in on the host: the sets of all selections that mean the pod, and no others,
    whoever had it before. `pod` is ``namespace/name``, or empty for one that nothing can select.
    """

    addresses: tuple[str, ...]
    pod: str
    mend = REATTACH

    def script(self) -> str:
        return ""

    def about_peers(self, world: World) -> bool:
        """Only where somebody has a set: who makes the first one after this look finds the pod recorded."""
        return world.selecting()

    def changes(self, peers: Peers) -> Iterator[Change]:
        """What is to change of these addresses in the sets that are in force."""
        if not ruleset.has_table(TABLE):
            return
        due = peers.entries(self.addresses)
        there = _there(due, self.addresses)
        for name, wanted in due.items():
            container = f"{TABLE} {name}"
            change = Change(container, wanted - there[name], there[name] - wanted)
            # a set whose first user is still to make it gets these then
            if change.gone or (change.added and ruleset.has_set(container)):
                yield change

    def remove(self, world: World) -> None:
        """Nobody takes the addresses for this pod's from here on, whoever makes the first set meanwhile."""
        world.withdraw(self.addresses)
        if world.selecting():
            with world.turn(PEERS):
                ruleset.change(self.changes(world.peers()))

    def describe(self) -> str:
        return f"{', '.join(self.addresses)} {f'peer by the name of {self.pod}' if self.pod else 'no peer that has a name'}"

    @property
    def place(self) -> object:
        return PeerEntries, self.addresses

    @property
    def mentions(self) -> tuple[str, ...]:
        return self.addresses


def declared(names: Iterable[str]) -> str:
    """What makes sets of these names, each line ended."""
    return "".join(f"add set {TABLE} {name} {{ type {_type(name)}; }}\n" for name in names)


def _type(name: str) -> str:
    return _TYPE[int(name[1])] + (" . inet_proto . inet_service" if name[0] == "n" else "")


def _there(due: Mapping[str, object], addresses: Iterable[str]) -> dict[str, frozenset[bytes]]:
    """What sets hold of some addresses, by name."""
    keys = [ipaddress.ip_address(text).packed for text in addresses]
    asked = [(name, key) for name in due for key in keys if name[0] == "p" and len(key) == _SIZE[int(name[1])]]
    answers = ruleset.which_there([Element(f"{TABLE} {name}", key) for name, key in asked])
    held = {item for item, is_there in zip(asked, answers, strict=True) if is_there}
    found: dict[str, frozenset[bytes]] = {}
    for name in due:
        if name[0] == "p":
            found[name] = frozenset(key for of, key in held if of == name)
        else:
            size = _SIZE[int(name[1])]
            found[name] = frozenset(key for key in ruleset.keys(f"{TABLE} {name}") if key[:size] in keys)
    return found
