"""Masquerading in iptables, of either variant: a chain of our own, and rules per pod address.

iptables has no transaction that looks and changes, so one call at a time does (`World.turn`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cni.errors import ToolFailed
from cni.kernel import netfilter
from cni.resources.masquerade import MULTICAST, Masquerade, MasqueradeRules
from cni.resources.world import World

CHAIN = "ACNI-MASQUERADE"


class IptablesMasqueradeRules(MasqueradeRules, recorded_as="MasqueradeRules"):
    """The chain and its hook."""

    def ensure(self, world: World) -> None:
        with world.turn(CHAIN):
            missing = self._missing()
            if missing:
                netfilter.restore(self.backend, self.family, _restorable(missing))

    def differences(self, world: World) -> Iterator[str]:
        for line in self._missing():
            yield f"masquerade rule is missing ({self.backend}): {line}"

    def remove(self, world: World) -> None:
        """Delete the chain unemptied: the kernel refuses where somebody filled it meanwhile."""
        with world.turn(CHAIN):
            present = set(_saved(self.backend, self.family)) & set(iptables_rules())
            if not present or self._serves():
                return
            try:
                netfilter.restore(self.backend, self.family, _retiring(present))
            except ToolFailed:
                if not self._serves():
                    raise

    def _serves(self) -> bool:
        """Whether some pod's rules are in the chain, whoever keeps its record."""
        return any(line.startswith(f"-A {CHAIN} ") for line in _saved(self.backend, self.family))

    def _missing(self) -> list[str]:
        present = _saved(self.backend, self.family)
        return [line for line in iptables_rules() if line not in present]


class IptablesMasquerade(Masquerade, recorded_as="Masquerade"):
    """What stays near returns, the rest but multicast is hidden. Their comment is the owner.

    Their order is what they mean, so where one is lost, an earlier owner's among them or behind another, all are made again.
    """

    def ensure(self, world: World) -> None:
        with world.turn(CHAIN):
            held = self._held()
            if held != self._lines():
                netfilter.restore(self.backend, self.family, _restorable([*_deletions(held), *self._lines()]))
            world.created(self)

    def differences(self, world: World) -> Iterator[str]:
        held = self._held()
        if held != self._lines():
            lost = "out of order" if set(self._lines()) <= set(held) else "missing"
            yield f"masquerading of {self.address} is {lost} ({self.backend})"

    def remove(self, world: World) -> None:
        with world.turn(CHAIN):
            if held := self._held():
                netfilter.restore(self.backend, self.family, _restorable(_deletions(held)))

    def _held(self) -> list[str]:
        return [line for line in _saved(self.backend, self.family) if self._is_mine(line)]

    def _is_mine(self, line: str) -> bool:
        """Whether a rule is for the address, also one that an earlier owner left, or for the owner where that is all we know."""
        return line.startswith(self._source()) if self.address else f" --comment {self.label} " in line

    def _lines(self) -> list[str]:
        source = self._source()
        comment = f"-m comment --comment {self.label}"
        return [
            *(f"{source}{_to(network)}{comment} -j RETURN" for network in self.near),
            f"{source}! -d {MULTICAST[self.family]} {comment} -j MASQUERADE",
        ]

    def _source(self) -> str:
        return f"-A {CHAIN} -s {self.address}/{32 if self.family == 4 else 128} "


def _to(network: str) -> str:
    """Everywhere is not spelled."""
    return "" if network.endswith("/0") else f"-d {network} "


def iptables_rules() -> list[str]:
    """The shared chain and its hook, spelled as ``iptables-save`` spells them."""
    return [f":{CHAIN} - [0:0]", f"-A POSTROUTING -j {CHAIN}"]


def _restorable(lines: list[str]) -> str:
    return "\n".join(["*nat", *lines, "COMMIT", ""])


def _deletions(lines: Iterable[str]) -> list[str]:
    return [line.replace("-A ", "-D ", 1) for line in lines]


def _retiring(present: set[str]) -> str:
    unhook = _deletions(line for line in present if line.startswith("-A"))
    chain = [f"-X {CHAIN}"] if any(line.startswith(":") for line in present) else []
    return _restorable([*unhook, *chain])


def _saved(backend: str, family: int) -> list[str]:
    """Comments lose their quotes, and chains their counters, so that lines compare as text."""
    lines = netfilter.saved(backend, family, "nat")
    return [f"{line.split('[')[0]}[0:0]" if line.startswith(":") else line.replace('"', "") for line in lines]
