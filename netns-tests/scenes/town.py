"""A node whose pods serve something to each other: the scene of the tests of policies."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from interception import address_of
from lab import Host, Lab, Pod
from traffic import Actor

RANGES = [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]
BRIDGED = {"cniVersion": "1.1.0", "name": "net", "type": "bridge-vxlan", "bridge": "br0", "isDefaultGateway": True}
ROUTED = {"cniVersion": "1.1.0", "name": "net", "type": "custom-plugin"}
KINDS = {"bridged": BRIDGED, "routed": ROUTED}
FAMILIES = (4, 6)
WHOLE = {4: 32, 6: 128}
#: Where the node's rules of policies are.
TABLE = ("inet", "agent_cni_policy")


@dataclass
class Member:
    """A pod with a program in it that serves."""

    pod: Pod
    conf: dict[str, Any]
    result: dict[str, Any]
    actor: Actor

    def address(self, family: int) -> str:
        return address_of(self.result, family)

    @property
    def port(self) -> str:
        """The host end of its veth."""
        return next(item["name"] for item in self.result["interfaces"] if item["name"].startswith("veth"))


@dataclass
class Town:
    """A node whose pods are bridged or routed; the global bridge-nf-call switch is off, as it may be."""

    host: Host
    lab: Lab
    kind: str
    held: ExitStack

    def conf(self, policy: dict[str, Any] | None = None, **keys: Any) -> dict[str, Any]:
        section = {} if policy is None else {"policy": policy}
        return copy.deepcopy(KINDS[self.kind]) | {"ipam": {"ranges": RANGES}} | section | keys

    def member(self, policy: dict[str, Any] | None = None, **keys: Any) -> Member:
        pod, conf = self.lab.pod(), self.conf(policy, **keys)
        result = self.host.add(conf, pod)
        return Member(pod, conf, result, serving(self.held.enter_context(Actor(pod))))


def serving(actor: Actor) -> Actor:
    """The same program, which now serves TCP and UDP on 80, 81 and 9090."""
    for port in (80, 81, 9090):
        actor.listen("it", port)
        actor.listen("it", port, udp=True)
    return actor


def cidrs(member: Member) -> list[str]:
    return [f"{member.address(family)}/{WHOLE[family]}" for family in FAMILIES]


def unguarded(town: Town) -> Member:
    """A pod nobody keeps from forging, for the proof that the attack itself works."""
    return town.member(None if town.kind == "bridged" else {"antiSpoof": False})
