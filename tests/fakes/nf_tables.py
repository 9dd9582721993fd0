"""nf_tables as far as our resources ask: tables, sets and maps with their entries, chains with their rules.

It takes scripts line by line, each in a transaction, and refuses as the kernel does what names nothing that is there.
"""

from __future__ import annotations

import copy
import errno
import ipaddress
import os
import re
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from cni.errors import KernelRefused, ToolFailed
from cni.kernel import netfilter, ruleset
from cni.kernel.ruleset import Chain, Change, Element

_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
_LINE = re.compile(r"(add|flush|delete) (table|set|map|chain|rule|element) (\S+ \S+)(?: (\S+))?(?: (.*))?")


@dataclass
class Contents:
    """What one namespace has; an entry is its key as nft spells it, and what follows."""

    tables: set[str] = field(default_factory=set)
    containers: set[str] = field(default_factory=set)
    entries: dict[Element, tuple[str, str]] = field(default_factory=dict)
    chains: dict[Chain, list[str]] = field(default_factory=dict)

    def run(self, script: str) -> None:
        for line in script.splitlines():
            found = _LINE.fullmatch(line)
            assert found, f"no line of a script: {line}"
            verb, kind, table, name, rest = found.groups()
            if kind != "table" or verb == "delete":
                _need(table in self.tables, errno.ENOENT)
            getattr(self, f"_{verb}_{kind}")(table, name, rest or "")

    def _add_table(self, table: str, name: str, rest: str) -> None:
        self.tables.add(table)

    def _add_set(self, table: str, name: str, rest: str) -> None:
        self.containers.add(f"{table} {name}")

    _add_map = _add_set

    def _add_chain(self, table: str, name: str, rest: str) -> None:
        self.chains.setdefault(Chain(table, name), [rest.strip("{ }")] if rest else [])

    def _flush_chain(self, table: str, name: str, rest: str) -> None:
        rules = self._rules(table, name)
        rules[:] = [rule for rule in rules if rule.startswith("type ")]

    def _add_rule(self, table: str, name: str, rest: str) -> None:
        self._rules(table, name).append(rest)

    def _add_element(self, table: str, name: str, rest: str) -> None:
        _need(f"{table} {name}" in self.containers, errno.ENOENT)
        found, says = re.fullmatch(r"\{ (.+?)((?: : | comment ).+)? \}", rest).groups()
        verdict = re.fullmatch(r" : jump (\S+)", says or "")
        _need(not verdict or Chain(table, verdict[1]) in self.chains, errno.ENOENT)
        for spelled in found.split(", "):
            key = Element(f"{table} {name}", *packed(spelled))
            _need(not verdict or self.entries.get(key, ("", says))[1] == says, errno.EEXIST)
            self.entries.setdefault(key, (spelled, says or ""))

    def _delete_element(self, table: str, name: str, rest: str) -> None:
        for spelled in rest.strip("{ }").split(", "):
            self.drop(Element(f"{table} {name}", *packed(spelled)))

    def _delete_set(self, table: str, name: str, rest: str) -> None:
        self.containers.discard(f"{table} {name}")
        self.entries = {key: value for key, value in self.entries.items() if key.container != f"{table} {name}"}

    def _delete_chain(self, table: str, name: str, rest: str) -> None:
        self.drop(Chain(table, name))

    def _delete_table(self, table: str, name: None, rest: str) -> None:
        self.tables.discard(table)
        self.containers = {item for item in self.containers if not item.startswith(f"{table} ")}
        self.entries = {key: value for key, value in self.entries.items() if not key.container.startswith(f"{table} ")}
        self.chains = {chain: rules for chain, rules in self.chains.items() if chain.table != table}

    def drop(self, item: Element | Chain) -> None:
        there = self.chains if isinstance(item, Chain) else self.entries
        _need(item in there, errno.ENOENT)
        if isinstance(item, Chain):
            leading = (key.container.rpartition(" ")[0] for key in self.entries if self.target(key) == item.name)
            _need(item.table not in leading, errno.EBUSY)
        del there[item]

    def target(self, key: Element) -> str:
        says = self.entries.get(key, ("", ""))[1]
        return says.removeprefix(" : jump ") if says.startswith(" : jump ") else ""

    def _rules(self, table: str, name: str) -> list[str]:
        _need(Chain(table, name) in self.chains, errno.ENOENT)
        return self.chains[Chain(table, name)]

    def listed(self, what: str) -> str:
        """What ``nft list`` prints."""
        kind, family, *names = what.split()
        if kind == "tables":
            return "".join(f"table {name}\n" for name in sorted(self.tables) if name.startswith(f"{family} "))
        if kind == "chains":
            return "".join(self._listed_table(name) for name in sorted(self.tables) if name.startswith(f"{family} "))
        table = f"{family} {names[0]}"
        if kind in ("map", "set"):
            return "".join(self._listed_entries(kind, f"{table} {names[1]}"))
        return self._listed_table(table, names[1:])

    def _listed_table(self, table: str, names: Container[str] = ()) -> str:
        chosen = (chain for chain in self.chains if chain.table == table and (not names or chain.name in names))
        inside = "".join(map(self._listed_chain, chosen))
        return f"table {table} {{\n{inside}}}\n" if inside else ""

    def _listed_entries(self, kind: str, place: str) -> Iterator[str]:
        said = [spelled + says for key, (spelled, says) in self.entries.items() if key.container == place]
        if place in self.containers:
            elements = "\t\telements = { " + ",\n\t\t\t ".join(said) + " }\n" if said else ""
            yield f"table {place.rpartition(' ')[0]} {{\n\t{kind} {place.rsplit(maxsplit=1)[-1]} {{\n{elements}\t}}\n}}\n"

    def _listed_chain(self, chain: Chain) -> str:
        return f"\tchain {chain.name} {{\n" + "".join(f"\t\t{rule}\n" for rule in self.chains[chain]) + "\t}\n"


class NfTables:
    """The doors to it, and what went through them, a transaction each: `made` by nft_made, `sent` by nft, `gone` otherwise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.has = Contents()
        self.made: list[str] = []
        self.sent: list[str] = []
        self.gone: list[list[str]] = []
        #: What the next transaction, of whatever kind, is refused with.
        self.refused = 0
        for name in (
            "has_element",
            "which_there",
            "has_table",
            "has_set",
            "change",
            "delete_set",
            "keys",
            "add_where_there",
            "delete_there",
            "delete_table",
            "delete_idle",
            "is_dormant",
        ):
            monkeypatch.setattr(ruleset, name, getattr(self, f"_{name}"))
        for name in ("nft", "nft_made", "nft_if_there", "nft_list", "nft_rehearsed"):
            monkeypatch.setattr(netfilter, name, getattr(self, f"_{name}"))

    def given(self, script: str) -> None:
        """Let this be there; nobody of ours made it now."""
        self._commit([script])

    def keys(self, place: str) -> set[str]:
        """What a set or map has, as nft spells it."""
        return {spelled for key, (spelled, _) in self.has.entries.items() if key.container == place}

    def chains(self, table: str) -> set[str]:
        return {chain.name for chain in self.has.chains if chain.table == table}

    def _commit(self, scripts: Iterable[str]) -> None:
        wanted, refused = copy.deepcopy(self.has), self.refused
        self.refused = 0
        _need(not refused, refused)
        for script in scripts:
            wanted.run(script)
        self.has = wanted

    def _nft_made(self, scripts: Iterable[str], changes: Iterable[Change] = ()) -> None:
        each, then = list(scripts), "".join(change.script() for change in changes)
        for script in each:
            Contents().run(script)  # complete in itself
        self._commit([*each, then])
        self.made.append("".join([*each, then]))

    def _nft(self, script: str) -> None:
        try:
            self._commit([script])
        except KernelRefused as error:
            raise ToolFailed(f"nft refused a transaction: Error: {error.msg}") from None
        if script.strip():
            self.sent.append(script)

    def _nft_if_there(self, script: str) -> bool:
        try:
            self._commit([script])
        except KernelRefused as error:
            if error.errno != errno.ENOENT:
                raise
            return False
        self.sent.append(script)
        return True

    def _nft_list(self, what: str) -> str:
        return self.has.listed(what)

    def _nft_rehearsed(self, script: str, what: str) -> str:
        alone = Contents()
        alone.run(script)
        return alone.listed(what)

    def _which_there(self, elements: Sequence[Element]) -> list[bool]:
        return [self._has_element(item) for item in elements]

    def _change(self, changes: Iterable[Change]) -> None:
        self._gone("".join(change.script() for change in changes).splitlines())

    def _has_table(self, table: str) -> bool:
        return table in self.has.tables

    def _has_set(self, container: str) -> bool:
        return container in self.has.containers

    def _delete_set(self, container: str) -> None:
        table, name = container.rsplit(" ", 1)
        rules = [rule for chain, rules in self.has.chains.items() if chain.table == table for rule in rules]
        if container in self.has.containers and not any(f"@{name}" in rule.split() for rule in rules):
            self._gone([f"delete set {container}"])

    def _has_element(self, element: Element) -> bool:
        there = element._replace(chain="")
        return there in self.has.entries and element.chain in ("", self.has.target(there))

    def _keys(self, container: str) -> set[bytes]:
        return {key.key for key in self.has.entries if key.container == container}

    def _add_where_there(self, elements: Iterable[Element]) -> None:
        for item in elements:
            if item.container in self.has.containers:
                self._nft_if_there(f"add element {item.container} {{ {int.from_bytes(item.key, 'big')} }}\n")

    def _is_dormant(self, table: str) -> bool:
        return False

    def _delete_there(self, chains: Iterable[Chain] = (), elements: Iterable[Element] = ()) -> None:
        entries = [item._replace(chain="") for item in elements if self._has_element(item)]
        gone = [f"delete element {item.container} {{ {self.has.entries[item][0]} }}" for item in entries]
        there = [item for item in chains if item in self.has.chains]
        gone += [f"delete chain {table} {name}" for table, name in there]
        self._gone(gone)

    def _delete_table(self, table: str) -> None:
        self._gone([f"delete table {table}"] if table in self.has.tables else [])

    def _delete_idle(self, table: str, chains: Iterable[str] = (), sets: Iterable[str] = ()) -> None:
        if table in self.has.tables and not self.chains(table) - set(chains):
            with suppress(_InUse):
                self._gone([f"delete table {table}"] if not any(self.keys(f"{table} {name}") for name in sets) else [])

    def _gone(self, lines: list[str]) -> None:
        try:
            self._commit(["\n".join(lines)])
        except KernelRefused as error:
            raise (_InUse if error.errno == errno.EBUSY else KernelRefused)(error.msg, error.errno) from None
        self.gone += [lines] if lines else []


class _InUse(KernelRefused):
    """What leads to something keeps it from being deleted."""


def packed(spelled: str) -> tuple[bytes, bytes]:
    """A key as the kernel keeps it, and where it is an interval its end: addresses, subnets, ports, and names in quotes."""
    first, last = b"", b""
    for part in spelled.split(" . "):
        if part in _PROTOCOLS:
            low = high = bytes([_PROTOCOLS[part], 0, 0, 0])
        elif part.isdigit() and first:
            low = high = int(part).to_bytes(2, "big") + bytes(2)
        elif part.startswith('"'):
            low = high = part.strip('"').encode() + bytes(18 - len(part))
        elif part.isdigit():
            low = high = int(part).to_bytes(2, "big")
        else:
            subnet = ipaddress.ip_network(part)
            low, high = subnet[0].packed, subnet[-1].packed
        first, last = first + low, last + high
    return first, last if "/" in spelled else b""


def _need(true: bool, number: int) -> None:
    if not true:
        raise KernelRefused(os.strerror(number), number)
