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
from cni.resources import PeerEntries, PeerSet, World
from cni.resources.world import PEERS
from cni.state import Store


def put_in_sets(world: World, folder: Path, effects: Effects) -> int:
    """Have each address that a change touches in the sets it belongs to by now; how many elements came or went."""
    if not effects.pods:
        return 0
    with closing(Store.open(folder)) as store, world.turn(PEERS):
        peering = Peering(store, None)
        touched = _Touched(peering, effects)
        return _changed(PeerEntries(tuple(sorted(effects.addresses)), "").changes(touched) if touched.in_force else ())


def fill_sets(world: World, folder: Path) -> int:
    """Have every set in force hold what it is to hold; how many elements came or went."""
    with closing(Store.open(folder)) as store, world.turn(PEERS):
        peering = Peering(store, None)
        sets = [PeerSet(text, family) for text, family in peering.in_force]
        there = [item for item in sets if ruleset.has_set(f"{POLICY_TABLE} {item.name}")]
        return _changed(change for item in there for change in item.changes(peering))


def _changed(changes: Iterable[Change]) -> int:
    found = [change for change in changes if change.added or change.gone]
    ruleset.change(found)
    return sum(len(change.added) + len(change.gone) for change in found)


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

    def withdraw(self, addresses: Iterable[str]) -> bool:
        """See Peers."""
        return self._peering.withdraw(addresses)


def _concerned(peering: Peering, effects: Effects) -> Iterator[tuple[str, int]]:
    for text, family in peering.in_force:
        selection = selection_of(text)
        if selection and selection.feed == effects.feed and effects.concerns(selection):
            yield text, family
