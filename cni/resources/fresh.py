"""An address that nobody had who is gone: what was found by it does not hold or hide its next pod."""

from __future__ import annotations

import ipaddress

from cni.kernel import ruleset
from cni.kernel.ruleset import Element
from cni.naming import MASQUERADE_TABLE, POLICY_TABLE
from cni.resources.base import Resource
from cni.resources.world import World
from cni.values import dataclass

_IP = {4: "ip", 6: "ip6"}
#: Whose chains no attachment has, so that every entry is somebody else's.
_NOBODY = "-"


@dataclass(frozen=True)
class FreshAddress(Resource):
    """Nothing that a pod left whose record was lost leads from an address: no policy, no masquerading, as far as asked for.

    The kernel is asked for the very keys; a node without such tables says so at once.
    """

    address: str
    policy: bool
    masquerade: bool

    def ensure(self, world: World) -> None:
        key = ipaddress.ip_address(self.address)
        maps = [f"{POLICY_TABLE} {way}{key.version}" for way in ("in", "out")] if self.policy else []
        table = f"{_IP[key.version]} {MASQUERADE_TABLE}"
        hidden = [f"{table} pods"] if self.masquerade else []
        there = ruleset.which_there([Element(name, key.packed) for name in (*maps, *hidden)])
        if any(there[: len(maps)]):
            from cni.kernel import netfilter  # there is hardly ever anything to take away
            from cni.resources.policy import PodPolicy

            netfilter.nft(PodPolicy((self.address,), (), closed=True, pod="", token=_NOBODY).in_the_way(world))
        if any(there[len(maps) :]):
            from cni.kernel import netfilter
            from cni.resources.masquerade import forgotten

            netfilter.nft(f"delete element {table} pods {{ {self.address} }}\n" + forgotten(table, self.address))

    def describe(self) -> str:
        held = " and ".join(["policy"] * self.policy + ["masquerading"] * self.masquerade)
        return f"no {held} of an earlier owner of {self.address}"
