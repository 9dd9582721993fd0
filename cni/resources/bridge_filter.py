"""A bridge's own switch that shows what it forwards between its ports to the packet rules."""

from __future__ import annotations

import re
from collections.abc import Iterator

from cni.kernel import ruleset, switched
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

    Where it was not us who switched it on, it stays on.
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
            switched.note(link.name, link.index)  # first: who is killed in between would leave it on for good
            world.host.filter_bridge(link)

    def differences(self, world: World) -> Iterator[str]:
        link = world.host.link_by_name(self.bridge)
        if link and not link.filtered:
            yield f"bridge {self.bridge} does not show its traffic to the rules (nf_call_iptables)"

    def remove(self, world: World) -> None:
        link = world.host.link_by_name(self.bridge)
        before = ruleset.has_element(self._mark_before)
        if link and (before or switched.is_noted(link.name, link.index)):
            if self._serves(world, link):
                return
            world.host.filter_bridge(link, on=False)
            if self._serves(world, link):  # somebody came meanwhile, whose gates stand by now
                world.host.filter_bridge(link)
                return
        switched.forget(self.bridge)
        if before:
            from cni.kernel import netfilter

            netfilter.nft_if_there(f'delete element {POLICY_TABLE} {SWITCHED} {{ "{self.bridge}" }}\n')

    def describe(self) -> str:
        return f"bridge {self.bridge} shows its traffic to the rules"

    @property
    def _mark_before(self) -> Element:
        """Where the release before wrote down that it was us."""
        return Element(f"{POLICY_TABLE} {SWITCHED}", ruleset.link_key(self.bridge))

    def _serves(self, world: World, bridge: Link) -> bool:
        """Whether somebody isolated is, or may be, on the bridge, whoever keeps the record."""
        from cni.kernel import netfilter
        from cni.resources.gate import guarded_devices

        ports = filter(None, map(world.host.link_by_name, guarded_devices()))
        return any(port.bridge == bridge.index for port in ports) or bool(
            _OF_AN_ADDRESS.search(netfilter.nft_list(f"table {POLICY_TABLE}"))
        )
