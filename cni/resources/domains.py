"""Where a pod may go by a name: sets of addresses that the gate of its questions fills, and its rules look them up in.

A set is of one pod, family, and the names of one rule. Its elements are the gate's: nothing here adds one, takes one away or
compares them, and what makes a set that is there leaves in it what is in it.
"""

from __future__ import annotations

from collections.abc import Iterator

from cni.kernel import inventory, ruleset
from cni.naming import POLICY_TABLE as TABLE
from cni.naming import domain_set, domain_sets
from cni.resources.nft import NftRules
from cni.resources.peer_set import declared
from cni.resources.world import World
from cni.values import dataclass


@dataclass(frozen=True)
class DomainSet(NftRules):
    """The addresses of one `family` that a rule lets a pod reach because it resolved `names` to them: patterns, in order. `token` is what
    the pod's chains are called after; with `netns` it is in the pod. Without `names` it is all that the token has, whichever.
    """

    names: tuple[str, ...]
    token: str
    family: int = 0
    netns: str = ""

    def script(self) -> str:
        return declared([self.name])

    @property
    def declarations(self) -> str:
        return f"add table {TABLE}\n"

    def differences(self, world: World) -> Iterator[str]:
        with self.place_of_rules(world):
            if not ruleset.has_set(f"{TABLE} {self.name}"):
                yield f"policy set {self.name} is missing"

    def remove(self, world: World) -> None:
        if self.netns and world.netns is None:
            return
        with self.place_of_rules(world):
            for name in [self.name] if self.names else sets_of(self.token):
                ruleset.delete_set(f"{TABLE} {name}")

    def addresses(self) -> list[str]:
        """What is in it, in the namespace this thread is in."""
        return [ruleset.spelled(key) for key in sorted(ruleset.keys(f"{TABLE} {self.name}"))]

    def describe(self) -> str:
        return f"policy set {self.name}: what {', '.join(self.names)} is resolved to"

    @property
    def place(self) -> object:
        return DomainSet, self.netns, self.token, self.names, self.family

    @property
    def name(self) -> str:
        """What the set is called."""
        return domain_set(self.token, self.names, self.family)


def sets_of(token: str) -> list[str]:
    """Those of a pod that are in the namespace this thread is in."""
    ours = tuple(domain_sets(token, family) for family in (4, 6))
    return sorted(name for name in inventory.sets(TABLE) if name.startswith(ours))
