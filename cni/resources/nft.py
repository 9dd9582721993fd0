"""Resources that are nft scripts: neighbours in a plan become one transaction."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import cache
from itertools import groupby

from cni.errors import KernelRefused
from cni.kernel.ruleset import Change
from cni.resources.base import REFRESH, Resource
from cni.resources.world import PEERS, Peers, World
from cni.values import dataclass

#: What a map says of an element whose key has another one, and a chain that hangs elsewhere.
_IN_THE_WAY = (errno.EEXIST, errno.EOPNOTSUPP)


class NftRules(Resource):
    """Rules on the host or, where `netns` says so, in the pod's namespace.

    Applying a script again changes nothing, and it removes what it meant before: the transaction is all or nothing.
    """

    netns: str = ""
    mend = REFRESH
    stays = True

    def script(self) -> str:
        """What makes it so, in nft's language, each line ended."""
        raise NotImplementedError

    def script_for(self, world: World) -> str:
        """The script with what only the kernel knows."""
        return self.script()

    def about_peers(self, world: World) -> bool:
        """Whether it changes elements of peers' sets, which is done in turn."""
        return False

    def changes(self, peers: Peers) -> Iterable[Change]:
        """What changes of sets' elements besides, as far as known in the turn in which it does."""
        return ()

    @property
    def declarations(self) -> str:
        """What the script takes to be there: tables, sets and maps that others make."""
        return ""

    def in_the_way(self, world: World) -> str:
        """What takes away what keeps the script from being applied: entries of somebody who is gone."""
        return ""

    @property
    def batch(self) -> Transaction | None:
        return Transaction(self.netns)

    def ensure(self, world: World) -> None:
        Transaction(self.netns).ensure((self,), world)

    def place_of_rules(self, world: World) -> AbstractContextManager[None]:
        """Be where the rules are."""
        return world.in_pod() if self.netns else nullcontext()


@dataclass(frozen=True)
class Transaction:
    """The scripts of neighbours, all or nothing, in one namespace. What declares nothing is mostly the same for every pod, and was compiled
    before; the rest is one script, because each that is compiled is a transaction of its own.
    """

    netns: str

    def ensure(self, items: Sequence[NftRules], world: World) -> None:
        """Make them all so; what is in the way goes in the same transaction."""
        for item in items:
            if not item.shared:
                world.created(item)
        with items[0].place_of_rules(world), ExitStack() as held:
            turned = [item for item in items if item.about_peers(world)]
            if turned:
                held.enter_context(world.turn(PEERS))
            scripts = [_script(alike, world) for _, alike in groupby(items, lambda item: bool(item.declarations))]
            self._make([script for script in scripts if script], _changes(turned, world), items, world)

    def _make(self, scripts: list[str], changes: list[Change], items: Sequence[NftRules], world: World) -> None:
        if not scripts and not changes:
            return
        from cni.kernel import netfilter  # a pod without a policy hardly ever has anything to change

        try:
            netfilter.nft_made(scripts, changes)
        except KernelRefused as error:
            if error.errno not in _IN_THE_WAY:
                raise
            freed = (item.in_the_way(world) for item in items)
            netfilter.nft("".join([*freed, *scripts, *(change.script() for change in changes)]))


def _changes(items: Sequence[NftRules], world: World) -> list[Change]:
    """What changes of each set, once."""
    found: dict[str, Change] = {}
    peers = cache(world.peers)
    for item in items:
        for container, added, gone in item.changes(peers()):
            known = found.get(container, Change(container, frozenset(), frozenset()))
            found[container] = Change(container, known.added | added, known.gone | gone)
    return [change for change in found.values() if change.added or change.gone]


def _script(items: Iterable[NftRules], world: World) -> str:
    """What neighbours come to; those in one table declare it once."""
    return "".join(
        declarations + "".join(item.script_for(world) for item in declaring)
        for declarations, declaring in groupby(items, lambda item: item.declarations)
    )
