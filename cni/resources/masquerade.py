"""Source NAT for pods that leave their network, in the backend the node uses.

What is kept is data per pod (set elements, or two rules), never a chain per pod, so a packet's cost
does not grow with the pods. Multicast and the pod's own subnet keep their source address.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from cni.errors import ToolFailed
from cni.kernel import netfilter, ruleset
from cni.kernel.ruleset import Element
from cni.resources.nft import NftRules, Transaction
from cni.resources.world import World

TABLE, CHAIN = "agent_cni", "ACNI-MASQUERADE"
_NFT_FAMILY = {4: "ip", 6: "ip6"}
_MULTICAST = {4: "224.0.0.0/4", 6: "ff00::/8"}


class _Masquerading(NftRules):
    """What nft does in a transaction with its neighbours; of iptables calls, one looks and changes at a time."""

    backend: str

    @property
    def batch(self) -> Transaction | None:
        return super().batch if self.backend == netfilter.NFTABLES else None

    def ensure(self, world: World) -> None:
        if self.backend == netfilter.NFTABLES:
            super().ensure(world)
            return
        with world.turn(CHAIN):
            self._ensure_in_iptables(world)

    def _ensure_in_iptables(self, world: World) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class MasqueradeRules(_Masquerading):
    """The rules all masqueraded pods of a family share; they go with the last of them."""

    backend: str
    family: int
    shared = True
    retires = True
    identity = ("backend", "family")

    def script(self) -> str:
        return nft_rules(self.family)

    def _ensure_in_iptables(self, world: World) -> None:
        missing = self._missing()
        if missing:
            netfilter.restore(self.backend, self.family, _restorable(missing))

    def differences(self, world: World) -> Iterator[str]:
        for line in self._missing():
            yield f"masquerade rule is missing ({self.backend}): {line}"

    def remove(self, world: World) -> None:
        if self.backend == netfilter.NFTABLES:
            ruleset.delete_idle(f"{_NFT_FAMILY[self.family]} {TABLE}", ("postrouting",), ("pods", "near"))
            return
        with world.turn(CHAIN):
            present = set(self._rules()) & set(iptables_rules())
            if present and not self._serves():
                self._retire(present)

    def describe(self) -> str:
        return f"masquerading for IPv{self.family} in {self.backend}"

    def _serves(self) -> bool:
        """Whether some pod's rules are in the chain, whoever keeps its record."""
        return any(line.startswith(f"-A {CHAIN} ") for line in self._rules())

    def _retire(self, present: set[str]) -> None:
        """Delete the chain unemptied: the kernel refuses where somebody filled it meanwhile."""
        try:
            netfilter.restore(self.backend, self.family, _retiring(present))
        except ToolFailed:
            if not self._serves():
                raise

    def _missing(self) -> list[str]:
        if self.backend == netfilter.NFTABLES:
            listed = netfilter.nft_list(f"table {_NFT_FAMILY[self.family]} {TABLE}")
            return [rule for rule in nft_chain(self.family) if rule not in listed]
        present = self._rules()
        return [line for line in iptables_rules() if line not in present]

    def _rules(self) -> list[str]:
        return _saved(self.backend, self.family)


@dataclass(frozen=True)
class Masquerade(_Masquerading):
    """One pod address whose traffic leaves its subnet under the host's address.

    `owner` is the attachment, for people who read the rules, and for a removal that knows nothing else: `address` is empty
    then. A pod and its successor may have one address at the same time.
    """

    backend: str
    family: int
    address: str
    subnet: str
    owner: str
    shared = True
    retires = True
    identity = ("backend", "family", "address")

    @property
    def declarations(self) -> str:
        return _declared(self.family)

    def script(self) -> str:
        """Added, deleted and added: an element that is there would keep its earlier owner's comment."""
        into = f"element {_NFT_FAMILY[self.family]} {TABLE}"
        pods = f"{into} pods {{ {self.address}"
        near = f"add {into} near {{ {self.address} . {self.subnet} }}\n"
        return f'add {pods} }}\ndelete {pods} }}\n{near}add {pods} comment "{self._label()}" }}\n'

    def _ensure_in_iptables(self, world: World) -> None:
        present = self._rules()
        missing = [line for line in self._lines() if line not in present]
        netfilter.restore(self.backend, self.family, _restorable(missing))
        world.created(self)

    def differences(self, world: World) -> Iterator[str]:
        if self.backend == netfilter.NFTABLES:
            present = all(map(ruleset.has_element, self._kept()))
        else:
            present = set(self._lines()) <= set(self._rules())
        if not present:
            yield f"masquerading of {self.address} is missing ({self.backend})"

    def remove(self, world: World) -> None:
        if self.backend == netfilter.NFTABLES:
            if self.address:
                ruleset.delete_there(elements=self._kept())
            for known in self._of_owner() if not self.address else ():
                known.remove(world)
            return
        with world.turn(CHAIN):
            present = [line for line in self._rules() if self._is_mine(line)]
            if present:
                deletions = [line.replace("-A ", "-D ", 1) for line in present]
                netfilter.restore(self.backend, self.family, _restorable(deletions))

    def describe(self) -> str:
        return f"masquerade {self.address} outside {self.subnet} ({self.backend})"

    def _kept(self) -> list[Element]:
        """Its entries in the sets, as the kernel has them."""
        table = f"{_NFT_FAMILY[self.family]} {TABLE}"
        own, near = ipaddress.ip_address(self.address).packed, ipaddress.ip_network(self.subnet)
        first, last = own + near.network_address.packed, own + near.broadcast_address.packed
        return [Element(f"{table} pods", own), Element(f"{table} near", first, last)]

    def _label(self) -> str:
        """The owner without what a rule's syntax would stumble over; nft takes 128 bytes."""
        return re.sub(r"[^A-Za-z0-9_./-]", "_", self.owner)[:120]

    def _of_owner(self) -> Iterator[Masquerade]:
        """What the owner has in the sets: comments tell whose an address is, and `near` its subnet."""
        table = f"{_NFT_FAMILY[self.family]} {TABLE}"
        pods = netfilter.nft_list(f"set {table} pods")
        for address in re.findall(rf'([0-9a-f.:]+) comment "{re.escape(self._label())}"', pods):
            for subnet in near_of(table, address):
                yield replace(self, address=address, subnet=subnet)

    def _is_mine(self, line: str) -> bool:
        """Whether a rule is for the address, also one that an earlier owner left, or for the owner where that is all we know."""
        return line.startswith(self._source()) if self.address else f" --comment {self._label()} " in line

    def _lines(self) -> list[str]:
        source = self._source()
        comment = f"-m comment --comment {self._label()}"
        return [
            f"{source}-d {self.subnet} {comment} -j RETURN",
            f"{source}! -d {_MULTICAST[self.family]} {comment} -j MASQUERADE",
        ]

    def _source(self) -> str:
        return f"-A {CHAIN} -s {self.address}/{32 if self.family == 4 else 128} "

    def _rules(self) -> list[str]:
        return _saved(self.backend, self.family)


def near_of(table: str, address: str) -> list[str]:
    """The subnets an address reaches under its own name."""
    listed = netfilter.nft_list(f"set {table} near")
    return [subnet for own, subnet in re.findall(r"([0-9a-f.:]+) \. ([0-9a-f.:/]+)", listed) if own == address]


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
        f"{ip} daddr {_MULTICAST[family]} return",
        f"{ip} saddr . {ip} daddr @near return",
        f"{ip} saddr @pods masquerade",
    ]


def iptables_rules() -> list[str]:
    """The shared chain and its hook, spelled as ``iptables-save`` spells them."""
    return [f":{CHAIN} - [0:0]", f"-A POSTROUTING -j {CHAIN}"]


def _restorable(lines: list[str]) -> str:
    return "\n".join(["*nat", *lines, "COMMIT", ""])


def _retiring(present: set[str]) -> str:
    unhook = [line.replace("-A ", "-D ", 1) for line in present if line.startswith("-A")]
    chain = [f"-X {CHAIN}"] if any(line.startswith(":") for line in present) else []
    return _restorable([*unhook, *chain])


def _saved(backend: str, family: int) -> list[str]:
    """Comments lose their quotes, and chains their counters, so that lines compare as text."""
    lines = netfilter.saved(backend, family, "nat")
    return [f"{line.split('[')[0]}[0:0]" if line.startswith(":") else line.replace('"', "") for line in lines]
