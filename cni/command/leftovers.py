"""What is on this node of ours and belongs to no attachment, and what takes it away."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from cni.kernel import netfilter, nftables
from cni.kernel.netlink import Rtnl
from cni.naming import is_host_end
from cni.resources import AntiSpoof, Gate, Masquerade, PodPolicy, decoded
from cni.resources.antispoof import TABLE as GUARDS
from cni.resources.masquerade import TABLE as MASQUERADE
from cni.resources.policy import BASE_CHAINS, every_verdict
from cni.resources.policy import TABLE as POLICIES
from cni.resources.verdicts import chains_of
from cni.state import Record


class Leftover(NamedTuple):
    """What is left, and the command that takes it away."""

    what: str
    command: str


def leftovers(records: Iterable[Record]) -> Iterator[Leftover]:
    """Links, rules and set elements that no record stands for; a link also by a name that another release gave a kind of its own."""
    raws = [item for record in records for item in record.resources]
    known = decoded(raws)
    yield from _veths({str(value) for item in raws for value in item.values()})
    if nftables.present():
        yield from _policies({name for item in known if isinstance(item, PodPolicy) for name in item.chains})
        yield from _guards({item.chain for item in known if isinstance(item, AntiSpoof | Gate)})
        yield from _masquerading({item.address for item in known if isinstance(item, Masquerade)})


def _veths(known: set[str]) -> Iterator[Leftover]:
    rtnl = Rtnl()
    for link in rtnl.links():
        if link.kind == "veth" and is_host_end(link.name, link.mac) and link.name not in known:
            what = f"{link.name} is the host end of a pod nobody knows: one that still runs is to be deleted first"
            yield Leftover(what, f"ip link delete {link.name}")
    rtnl.close()


def _policies(known: set[str]) -> Iterator[Leftover]:
    """Chains, each with the map entries that lead to it: it cannot go before them."""
    entries = every_verdict()
    for name in sorted(chains_of(POLICIES) - set(BASE_CHAINS) - known):
        leading = [item for item in entries if item.chain == name]
        steps = [f"delete element {POLICIES} {item.map} {{ {item.key} }}" for item in leading]
        holds = ", ".join(dict.fromkeys(item.key for item in leading)) or "nobody"
        command = "; ".join([*steps, f"delete chain {POLICIES} {name}"])
        yield Leftover(f"policy chain {name}, which holds {holds}, is of no attachment", f"nft '{command}'")


def _guards(known: set[str]) -> Iterator[Leftover]:
    for name in sorted(chains_of(GUARDS) - known):
        yield Leftover(f"spoofing guard {name} is of no attachment", f"nft delete chain {GUARDS} {name}")


def _masquerading(known: set[str]) -> Iterator[Leftover]:
    for family in ("ip", "ip6"):
        listed = netfilter.nft_list(f"set {family} {MASQUERADE} pods").partition("elements = {")[2]
        for address in re.findall(r"(?:^|[\s,{])([0-9a-f]*[.:][0-9a-f.:]+)", listed):
            if address not in known:
                command = f"nft delete element {family} {MASQUERADE} pods '{{ {address} }}'"
                yield Leftover(f"masquerading of {address} is of no attachment", command)
