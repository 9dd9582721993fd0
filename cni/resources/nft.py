"""Resources that are nft scripts: neighbours in a plan become one transaction."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import groupby

from cni.errors import KernelRefused
from cni.kernel import netfilter
from cni.resources.base import Resource
from cni.resources.world import World

#: What a map says of an element whose key has another one, and a chain that hangs elsewhere.
_IN_THE_WAY = (errno.EEXIST, errno.EOPNOTSUPP)


class NftRules(Resource):
    """Rules on the host or, where `netns` says so, in the pod's namespace.

    Applying a script again changes nothing, and it removes what it meant before: the transaction is all or nothing.
    """

    netns: str = ""

    def script(self) -> str:
        """What makes it so, in nft's language, each line ended."""
        raise NotImplementedError

    def script_for(self, world: World) -> str:
        """The script with what only the kernel knows."""
        return self.script()

    @property
    def declarations(self) -> str:
        """What the script takes to be there: tables, sets and maps that others make."""
        return ""

    def in_the_way(self, world: World) -> str:
        """What takes away what keeps the script from being applied: entries of somebody who is gone."""
        return ""

    @property
    def transaction(self) -> object:
        return NftRules, self.netns

    def ensure(self, world: World) -> None:
        self.ensure_together((self,), world)

    def ensure_together(self, step: Sequence[Resource], world: World) -> None:
        rules = [item for item in step if isinstance(item, NftRules)]
        for item in rules:
            if not item.shared:
                world.created(item)
        with self.place_of_rules(world):
            scripts = [
                (declarations, "".join(item.script_for(world) for item in items))
                for declarations, items in groupby(rules, lambda item: item.declarations)
            ]
            try:
                netfilter.nft_made(declarations + script for declarations, script in scripts)
            except KernelRefused as error:
                if error.errno not in _IN_THE_WAY:
                    raise
                freed = [item.in_the_way(world) for item in rules]
                netfilter.nft("".join([*freed, *(declarations + script for declarations, script in scripts)]))

    def place_of_rules(self, world: World) -> AbstractContextManager[None]:
        """Be where the rules are."""
        return world.in_pod() if self.netns else nullcontext()
