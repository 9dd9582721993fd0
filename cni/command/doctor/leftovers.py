"""What is on this node of ours and belongs to no attachment, and what takes it away."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from cni.kernel import inventory, netfilter, nftables
from cni.kernel.netlink import Rtnl
from cni.naming import is_domain_set, is_host_end
from cni.resources import AntiSpoof, DomainSet, Gate, GateTable, Masquerade, PodPolicy, Resource
from cni.resources.antispoof import TABLE as GUARDS
from cni.resources.base import Unknown
from cni.resources.gate import chains_of_gates
from cni.resources.masquerade import TABLE as MASQUERADE
from cni.resources.policy import every_verdict
from cni.resources.policy_table import BASE_CHAINS
from cni.resources.policy_table import TABLE as POLICIES
from cni.resources.verdicts import Verdict, chains_of
from cni.state import Record


class Leftover(NamedTuple):
    """What is left, and the command that takes it away."""

    what: str
    command: str


def leftovers(read: Callable[[], Iterable[Record]]) -> Iterator[Leftover]:
    """Links, rules and set elements that no record stands for; a link also by a name that another release gave a kind of its own.

    The kernel is asked before the records are read: an ADD writes its record before it makes anything.
    """
    present = nftables.present()
    veths, entries = _host_ends(), every_verdict() if present else []
    policies, guards = ((chains_of(table) if present else set()) for table in (POLICIES, GUARDS))
    gates = chains_of_gates() if present else {}
    named = {name for name in inventory.sets(POLICIES) if is_domain_set(name)} if present else set()
    hidden = list(_masqueraded()) if present else []
    known = [item for record in read() for item in record.resources]
    yield from _veths(veths - {value for item in known for value in _values(item)})
    held = {name for item in known if isinstance(item, PodPolicy) for name in item.chains}
    yield from _policies(policies - set(BASE_CHAINS) - held, entries)
    own = {item.name for item in known if isinstance(item, DomainSet)}
    for name in sorted(named - own):
        yield Leftover(
            f"policy set {name}, of what names are resolved to, is of no attachment",
            f"nft delete set {POLICIES} {name}",
        )
    guards = {
        f"chain {GUARDS} {name}" for name in guards - {item.chain for item in known if isinstance(item, AntiSpoof)}
    }
    for name in sorted(guards | set(_gates(gates, known))):
        yield Leftover(f"spoofing guard in {name} is of no attachment", f"nft delete {name}")
    addresses = {item.address for item in known if isinstance(item, Masquerade)}
    yield from _masquerading([item for item in hidden if item[1] not in addresses])


def _values(resource: Resource) -> Iterable[object]:
    return resource.texts if isinstance(resource, Unknown) else vars(resource).values()


def _host_ends() -> set[str]:
    rtnl = Rtnl()
    found = {link.name for link in rtnl.links() if link.kind == "veth" and is_host_end(link.name, link.mac)}
    rtnl.close()
    return found


def _veths(unknown: set[str]) -> Iterator[Leftover]:
    for name in sorted(unknown):
        what = f"{name} is the host end of a pod nobody knows: one that still runs is to be deleted first"
        yield Leftover(what, f"ip link delete {name}")


def _policies(unknown: set[str], entries: list[Verdict]) -> Iterator[Leftover]:
    """Chains, each with the map entries that lead to it: it cannot go before them."""
    for name in sorted(unknown):
        leading = [item for item in entries if item.chain == name]
        steps = [f"delete element {POLICIES} {item.map} {{ {item.key} }}" for item in leading]
        holds = ", ".join(dict.fromkeys(item.key for item in leading)) or "nobody"
        command = "; ".join([*steps, f"delete chain {POLICIES} {name}"])
        yield Leftover(f"policy chain {name}, which holds {holds}, is of no attachment", f"nft '{command}'")


def _gates(there: dict[str, set[str]], known: Iterable[Resource]) -> Iterator[str]:
    """Tables that nobody has, and of the others the chains."""
    tables = {item.table for item in known if isinstance(item, GateTable)}
    chains = {f"chain {item.table} {item.chain}" for item in known if isinstance(item, Gate)}
    for table, names in there.items():
        if table not in tables:
            yield f"table {table}"
        else:
            yield from {f"chain {table} {name}" for name in names} - chains


def _masqueraded() -> Iterator[tuple[str, str]]:
    """Nft's family, and each address."""
    for family in ("ip", "ip6"):
        listed = netfilter.nft_list(f"set {family} {MASQUERADE} pods").partition("elements = {")[2]
        yield from ((family, item) for item in re.findall(r"(?:^|[\s,{])([0-9a-f]*[.:][0-9a-f.:]+)", listed))


def _masquerading(unknown: list[tuple[str, str]]) -> Iterator[Leftover]:
    for family, address in unknown:
        command = f"nft delete element {family} {MASQUERADE} pods '{{ {address} }}'"
        yield Leftover(f"masquerading of {address} is of no attachment", command)
