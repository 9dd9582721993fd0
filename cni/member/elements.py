"""Who is in which set of peers, as a change of documents has it: one transaction for all sets and addresses it touches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

from cni.kernel import ruleset
from cni.kernel.ruleset import Change
from cni.naming import POLICY_TABLE
from cni.policy.effects import Effects
from cni.policy.peering import Peering, selection_of
from cni.resources import NftRules, PeerEntries, PeerSet, World
from cni.resources.world import Peers
from cni.state import Store


class Elements(NftRules, abstract=True):
    """What sets in force are to hold by now: of what a change of documents touches, or every set. It is made alone or with the rules
    that the same change makes others: between the two somebody might pass by old rules as the pod he is now.
    """

    shared = True

    def __init__(self, folder: Path, effects: Effects | None = None) -> None:
        self._folder = folder
        self.effects = effects
        #: How many came or went.
        self.count = 0
        #: The namespaces of pods that have sets of their own, which may be to hold others.
        self.inside: frozenset[str] = frozenset()

    def script(self) -> str:
        return ""

    def about_peers(self, world: World) -> bool:
        """Always."""
        return True

    def changes(self, peers: Peers) -> Iterator[Change]:
        """By the state of this moment, whoever else's `peers` are asked of it."""
        with closing(Store.open(self._folder)) as store:
            peering = Peering(store, None)
            found = [item for item in self._changes(peering) if item.added or item.gone]
            self.inside = _inside(peering, self.effects)
        self.count = sum(len(item.added) + len(item.gone) for item in found)
        return iter(found)

    def _changes(self, peering: Peering) -> Iterator[Change]:
        if self.effects is None:
            sets = [PeerSet(text, family) for text, family in peering.in_force]
            there = [item for item in sets if ruleset.has_set(f"{POLICY_TABLE} {item.name}")]
            return (change for item in there for change in item.changes(peering))
        touched = _Touched(peering, self.effects)
        return PeerEntries(tuple(sorted(self.effects.addresses)), "").changes(touched) if touched.in_force else iter(())


def put_in_sets(world: World, folder: Path, effects: Effects) -> Elements:
    """Have each address that a change touches in the sets it belongs to by now."""
    elements = Elements(folder, effects)
    if effects.pods:
        elements.ensure(world)
    return elements


def fill_sets(world: World, folder: Path) -> Elements:
    """Have every set in force hold what it is to hold."""
    elements = Elements(folder)
    elements.ensure(world)
    return elements


def inside(folder: Path, effects: Effects) -> frozenset[str]:
    """The namespaces of pods that have sets of their own which a change may concern."""
    with closing(Store.open(folder)) as store:
        return _inside(Peering(store, None), effects)


class _Touched:
    """The sets that a change may concern, as a `Peers`."""

    def __init__(self, peering: Peering, effects: Effects) -> None:
        self._peering = peering
        self.in_force = tuple(_concerned(peering, effects))

    def members(self, selection: str, family: int) -> frozenset[bytes] | None:
        """See Peers."""
        return self._peering.members(selection, family)

    def entries(self, addresses: Iterable[str]) -> Mapping[str, frozenset[bytes]]:
        """See Peers."""
        return self._peering.entries(addresses, self.in_force)


def _concerned(peering: Peering, effects: Effects) -> Iterator[tuple[str, int]]:
    return ((text, family) for text, family in peering.in_force if _is_concerned(text, effects))


def _inside(peering: Peering, effects: Effects | None) -> frozenset[str]:
    """The namespaces whose sets may be to hold others, because of some effects or for whatever reason."""
    found = (places for text, places in peering.in_pods.items() if effects is None or _is_concerned(text, effects))
    return frozenset[str]().union(*found)


def _is_concerned(text: str, effects: Effects) -> bool:
    selection = selection_of(text)
    return selection is not None and selection.feed == effects.feed and effects.concerns(selection)
