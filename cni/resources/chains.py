"""Our chains in what iptables-save and nft list print: which are ours, how to get from one state to another.

Ours are the chains named ``ACNI_…``, the rules in them, and the rules of built-in chains that jump to them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from cni.values import dataclass, field

PREFIX = "ACNI_"
_HOOK = re.compile(r"type filter hook .+")


@dataclass
class Chains:
    """What is ours in one table: rules by chain, in order, and the hooks in built-in chains."""

    rules: dict[str, list[str]] = field(default_factory=dict)
    hooks: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.rules or self.hooks)


def ours(lines: Iterable[str]) -> dict[str, Chains]:
    """What is ours in each table of a document; tables without anything of ours are left out."""
    tables: dict[str, Chains] = {}
    table = Chains()
    for line in lines:
        if line.startswith("*"):
            table = tables.setdefault(line[1:].strip(), Chains())
        elif line.startswith(f":{PREFIX}"):
            table.rules[line[1:].split()[0]] = []
        elif line.startswith(f"-A {PREFIX}"):
            table.rules.setdefault(line.split()[1], []).append(line.strip())
        elif line.startswith("-A ") and line.partition(" -j ")[2].startswith(PREFIX):
            table.hooks.append(line.strip())
    return {name: table for name, table in tables.items() if table}


def change(there: dict[str, Chains], wanted: dict[str, Chains]) -> str:
    """The document for ``iptables-restore --noflush`` that makes `there` equal to `wanted`, or nothing.

    Each table changes in one transaction: chains are refilled and hooked, never emptied first.
    What goes away goes in the reverse of the order in which it came.
    """
    gone = [name for name in reversed(list(there)) if name not in wanted]
    order = [*gone, *wanted]
    return "".join(_change(name, there.get(name, Chains()), wanted.get(name, Chains())) for name in order)


def differences(there: dict[str, Chains], wanted: dict[str, Chains]) -> Iterator[str]:
    """Name every rule that is missing, foreign, doubled or out of order, and every missing hook."""
    for name in dict.fromkeys((*wanted, *there)):
        have, want = there.get(name, Chains()), wanted.get(name, Chains())
        for chain in dict.fromkeys((*want.rules, *have.rules)):
            yield from line_differences(f"{name} {chain}", have.rules.get(chain), want.rules.get(chain))
        for line in _more(want.hooks, have.hooks):
            yield f"{name}: {line} is missing"
        for line in _more(have.hooks, want.hooks):
            yield f"{name}: {line} is there once too often"


def listed_chains(text: str) -> dict[str, list[str]]:
    """The rules of each chain in what `netfilter.nft_list` says; a base chain's hook is none of them."""
    chains: dict[str, list[str]] = {}
    rules: list[str] = []
    for line in map(str.strip, text.splitlines()):
        if line.startswith("chain "):
            rules = chains.setdefault(line.split()[1], [])
        elif line not in ("}", "") and not line.startswith(("type ", "table ", "map ", "set ", "elements ")):
            rules.append(line)
    return chains


def astray(listed: Mapping[str, str], wanted: str) -> list[str]:
    """Which of some base chains, listed one by one, are there but hang elsewhere than a listing wants them to, or nowhere."""
    hooks = set(_HOOK.findall(wanted))
    return [name for name, text in listed.items() if text and not hooks & set(_HOOK.findall(text))]


def _change(name: str, there: Chains, wanted: Chains) -> str:
    if there == wanted:
        return ""
    lines = [f":{chain} - [0:0]" for chain in wanted.rules]
    lines += [line for rules in wanted.rules.values() for line in rules]
    lines += [line.replace("-A ", "-D ", 1) for line in _more(there.hooks, wanted.hooks)]
    # each goes before what is there, ours among it: the last comes first
    lines += [line.replace("-A ", "-I ", 1) for line in reversed(_more(wanted.hooks, there.hooks))]
    unwanted = [chain for chain in there.rules if chain not in wanted.rules]
    # all are emptied before one goes: the kernel keeps a chain that a rule jumps to
    lines += [f"-F {chain}" for chain in unwanted]
    lines += [f"-X {chain}" for chain in unwanted]
    return "\n".join([f"*{name}", *lines, "COMMIT", ""])


def line_differences(where: str, have: list[str] | None, want: list[str] | None) -> Iterator[str]:
    """Name what a chain lacks, has too much, or has out of order; None is no chain at all."""
    if have is None:
        yield f"{where} is missing"
    elif want is None:
        yield f"{where} is not ours to have here"
    elif have != want:
        missing, extra = _more(want, have), _more(have, want)
        yield from (f"{where}: {line} is missing" for line in missing)
        yield from (f"{where}: {line} is foreign" for line in extra)
        if not (missing or extra):
            yield f"{where}: the rules are out of order"


def _more(these: list[str], those: list[str]) -> list[str]:
    return list((Counter(these) - Counter(those)).elements())
