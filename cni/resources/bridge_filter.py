"""A bridge's own switch that shows what it forwards between its ports to the packet rules."""

from __future__ import annotations

import re
from collections.abc import Iterator

from cni.kernel import ruleset
from cni.kernel.ruleset import Element
from cni.kernel.view import Link
from cni.naming import POLICY_TABLE, SWITCHED
from cni.resources.base import REFRESH, Resource
from cni.resources.links import required
from cni.resources.world import World
from cni.values import dataclass

#: A chain of an earlier release is called after an address, so it does not say on which port the pod is.
_OF_AN_ADDRESS = re.compile(r"chain (?:in|out)-[0-9a-f]*[.-]")


@dataclass(frozen=True)
class BridgeFilter(Resource):
    """What a bridge forwards between its ports meets the rules too: those of policies, and of Services, whose answers would go
    past the translation of what was asked. With the last port that needs it, it is as it was.

    Who switched it on stands beside the policies, where there are any: where it was not us, it stays on.
    """

    bridge: str
    mend = REFRESH
    shared = True
    retires = True

    def ensure(self, world: World) -> None:
        link = required(
            world.host.link_by_name(self.bridge), self.bridge
        )  # as it is now: another folder's DEL may have switched it off
        if not link.filtered:
            from cni.kernel import netfilter  # only the first on a bridge loads it

            netfilter.nft_if_there(f"add {self._mark}")  # first: who is killed in between would leave it on for good
            world.host.filter_bridge(link)

    def differences(self, world: World) -> Iterator[str]:
        link = world.host.link_by_name(self.bridge)
        if link and not link.filtered:
            yield f"bridge {self.bridge} does not show its traffic to the rules (nf_call_iptables)"

    def remove(self, world: World) -> None:
        ours = ruleset.has_element(Element(f"{POLICY_TABLE} {SWITCHED}", ruleset.link_key(self.bridge)))
        link = world.host.link_by_name(self.bridge)
        if ours and not (link and self._serves(world, link)):
            from cni.kernel import netfilter

            if link:
                world.host.filter_bridge(link, on=False)
                if self._serves(world, link):  # somebody came meanwhile, whose gates stand by now
                    world.host.filter_bridge(link)
                    return
            netfilter.nft_if_there(f"delete {self._mark}")

    def describe(self) -> str:
        return f"bridge {self.bridge} shows its traffic to the rules"

    @property
    def _mark(self) -> str:
        return f'element {POLICY_TABLE} {SWITCHED} {{ "{self.bridge}" }}\n'

    def _serves(self, world: World, bridge: Link) -> bool:
        """Whether somebody isolated is, or may be, on the bridge, whoever keeps the record."""
        from cni.kernel import netfilter
        from cni.resources.gate import guarded_devices

        ports = filter(None, map(world.host.link_by_name, guarded_devices()))
        return any(port.bridge == bridge.index for port in ports) or bool(
            _OF_AN_ADDRESS.search(netfilter.nft_list(f"table {POLICY_TABLE}"))
        )
