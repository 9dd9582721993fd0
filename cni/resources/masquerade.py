"""Source NAT for pods that leave their network: what both backends have in common, and what nftables does.

What is kept is data per pod (set elements here, rules in masquerade_iptables), never a chain per pod, so a packet's cost does not
grow with the pods. What goes to multicast, the pod's own subnet and where else it is `spared` keeps its source address.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Any

from cni.kernel import netfilter, ruleset
from cni.kernel.ruleset import Element
from cni.naming import MASQUERADE_TABLE
from cni.resources.base import Resource
from cni.resources.nft import NftRules
from cni.resources.world import World
from cni.values import dataclass, replace

TABLE = MASQUERADE_TABLE
MULTICAST = {4: "224.0.0.0/4", 6: "ff00::/8"}
_NFT_FAMILY = {4: "ip", 6: "ip6"}


@dataclass(frozen=True)
class MasqueradeRules(Resource, abstract=True):
    """The rules all masqueraded pods of a family share; they go with the last of them. `backend` is one of netfilter's."""

    backend: str
    family: int
    shared = True
    retires = True
    stays = True
    identity = ("backend", "family")

    def describe(self) -> str:
        return f"masquerading for IPv{self.family} in {self.backend}"


@dataclass(frozen=True)
class Masquerade(Resource, abstract=True):
    """One pod address whose traffic leaves its subnet, and the networks it is `spared` in, under the host's address.

    `owner` is the attachment, for people who read the rules, and for a removal that knows nothing else: `address` is empty
    then. A pod and its successor may have one address at the same time.
    """

    backend: str
    family: int
    address: str
    subnet: str
    owner: str
    spared: tuple[str, ...] = ()
    shared = True
    retires = True
    stays = True
    identity = ("backend", "family", "address")

    @property
    def near(self) -> list[str]:
        """Where the address keeps its name, no two of them overlapping: a set of intervals refuses such."""
        every = map(ipaddress.ip_network, (self.subnet, *self.spared))
        return list(map(str, ipaddress.collapse_addresses(every)))  # type: ignore[type-var]

    @property
    def label(self) -> str:
        """The owner without what a rule's syntax would stumble over; nft takes 128 bytes."""
        return re.sub(r"[^A-Za-z0-9_./-]", "_", self.owner)[:120]

    def describe(self) -> str:
        return f"masquerade {self.address} outside {', '.join(self.near)} ({self.backend})"


class NftMasqueradeRules(MasqueradeRules, NftRules, recorded_as="MasqueradeRules"):
    """A table with two sets and a chain that looks into them."""

    @classmethod
    def reads(cls, raw: Mapping[str, Any]) -> bool:
        return raw.get("backend") == netfilter.NFTABLES

    def script(self) -> str:
        return nft_rules(self.family)

    def differences(self, world: World) -> Iterator[str]:
        if ruleset.is_dormant(f"{_NFT_FAMILY[self.family]} {TABLE}"):
            yield f"masquerading's table {_NFT_FAMILY[self.family]} {TABLE} is dormant"
        listed = netfilter.nft_list(f"table {_NFT_FAMILY[self.family]} {TABLE}")
        for rule in nft_chain(self.family):
            if rule not in listed:
                yield f"masquerade rule is missing ({self.backend}): {rule}"

    @property
    def goes_by(self) -> tuple[str, ...]:
        table = f"{_NFT_FAMILY[self.family]} {TABLE}"
        return (f"table {table}", f"chain {table} postrouting")

    def remove(self, world: World) -> None:
        ruleset.delete_idle(f"{_NFT_FAMILY[self.family]} {TABLE}", ("postrouting",), ("pods", "near"))


class NftMasquerade(Masquerade, NftRules, recorded_as="Masquerade"):
    """An element of `pods`, and those of `near` that say where the address keeps its name."""

    @classmethod
    def reads(cls, raw: Mapping[str, Any]) -> bool:
        return raw.get("backend") == netfilter.NFTABLES

    @property
    def declarations(self) -> str:
        return _declared(self.family)

    def script(self) -> str:
        """Added, deleted and added: an element that is there would keep its earlier owner's comment."""
        into = f"element {_NFT_FAMILY[self.family]} {TABLE}"
        pods = f"{into} pods {{ {self.address}"
        near = "".join(f"add {into} near {{ {self.address} . {network} }}\n" for network in self.near)
        return f'add {pods} }}\ndelete {pods} }}\n{near}add {pods} comment "{self.label}" }}\n'

    def in_the_way(self, world: World) -> str:
        """Networks of an earlier owner that overlap these."""
        table = f"{_NFT_FAMILY[self.family]} {TABLE}"
        return forgotten(table, self.address)

    def differences(self, world: World) -> Iterator[str]:
        if not all(map(ruleset.has_element, self._elements())):
            yield f"masquerading of {self.address} is missing ({self.backend})"

    def remove(self, world: World) -> None:
        if self.address:
            ruleset.delete_there(elements=self._elements())
            return
        for known in self._of_owner():
            known.remove(world)

    def _elements(self) -> list[Element]:
        """Its entries in the sets, as the kernel has them."""
        table = f"{_NFT_FAMILY[self.family]} {TABLE}"
        own = ipaddress.ip_address(self.address).packed
        near = map(ipaddress.ip_network, self.near)
        ends = ((own + network.network_address.packed, own + network.broadcast_address.packed) for network in near)
        return [Element(f"{table} pods", own), *(Element(f"{table} near", first, last) for first, last in ends)]

    def _of_owner(self) -> Iterator[NftMasquerade]:
        """What the owner has in the sets: comments tell whose an address is, and `near` its subnet."""
        table = f"{_NFT_FAMILY[self.family]} {TABLE}"
        pods = netfilter.nft_list(f"set {table} pods")
        for address in re.findall(rf'([0-9a-f.:]+) comment "{re.escape(self.label)}"', pods):
            subnet, *spared = near_of(table, address) or [address]
            yield replace(self, address=address, subnet=subnet, spared=tuple(spared))


def near_of(table: str, address: str) -> list[str]:
    """The subnets an address reaches under its own name."""
    listed = netfilter.nft_list(f"set {table} near")
    return [subnet for own, subnet in re.findall(r"([0-9a-f.:]+) \. ([0-9a-f.:/]+)", listed) if own == address]


def forgotten(table: str, address: str) -> str:
    """The script that has an address keep its name nowhere."""
    return "".join(f"delete element {table} near {{ {address} . {subnet} }}\n" for subnet in near_of(table, address))


def nft_rules(family: int) -> str:
    """The nft script of the shared table: applying it again changes nothing."""
    table = f"{_NFT_FAMILY[family]} {TABLE}"
    head = [
        f"add chain {table} postrouting {{ type nat hook postrouting priority srcnat; policy accept; }}",
        f"flush chain {table} postrouting",
    ]
    rules = "\n".join([*head, *(f"add rule {table} postrouting {rule}" for rule in nft_chain(family)), ""])
    return _declared(family) + rules


def _declared(family: int) -> str:
    table, kind = f"{_NFT_FAMILY[family]} {TABLE}", f"ipv{family}_addr"
    lines = [
        f"add table {table}",
        f"add set {table} pods {{ type {kind}; }}",
        f"add set {table} near {{ type {kind} . {kind}; flags interval; }}",
    ]
    return "\n".join([*lines, ""])


def nft_chain(family: int) -> list[str]:
    """The rules of the shared chain, spelled as ``nft list`` spells them."""
    ip = _NFT_FAMILY[family]
    return [
        f"{ip} daddr {MULTICAST[family]} return",
        f"{ip} saddr . {ip} daddr @near return",
        f"{ip} saddr @pods masquerade",
    ]
