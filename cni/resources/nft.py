"""Resources that are nft scripts: neighbours in a plan become one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from cni.kernel import netfilter
from cni.resources.base import Resource
from cni.resources.world import World


class NftRules(Resource):
    """Rules on the host or, where `netns` says so, in the pod's namespace.

    Applying a script again changes nothing, and it removes what it meant before: the transaction is all or nothing.
    """

    netns: str = ""

    def script(self) -> str:
        """What makes it so, in nft's language, each line ended."""
        raise NotImplementedError

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
            netfilter.nft("".join(item.script() for item in rules))

    def place_of_rules(self, world: World) -> AbstractContextManager[None]:
        """Be where the rules are."""
        return world.in_pod() if self.netns else nullcontext()
