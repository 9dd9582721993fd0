"""What ``nft list`` and ``nft get`` say of verdict maps, sets and chains, read into plain data (nft(8))."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from typing import NamedTuple

from cni.kernel import netfilter

_MAP = re.compile(r"^\s*map (\S+) {", re.MULTILINE)
_ENTRY = re.compile(r'("[^"]+"|[0-9a-f.:]+) : (?:(?:jump|goto) ([^\s,}]+)|accept|drop|return|continue)')
_CHAIN = re.compile(r"^\s*chain (\S+) {", re.MULTILINE)


class Verdict(NamedTuple):
    """An entry of a map, and the chain it leads to; none where somebody made it a verdict of its own."""

    map: str
    key: str
    chain: str

    @property
    def owner(self) -> str:
        """What the chain is called after."""
        return self.chain.partition("-")[2]


def verdicts(text: str, chains: Container[str] | None = None) -> Iterator[Verdict]:
    """The entries of listed maps that lead to one of these chains, or to any."""
    _, *listed = _MAP.split(text)
    for name, entries in zip(listed[::2], listed[1::2], strict=True):
        for key, chain in _ENTRY.findall(entries):
            if chains is None or chain in chains:
                yield Verdict(name, key, chain)


def naming(text: str, link: str) -> list[str]:
    """The keys of a listed set that begin with a link's name."""
    return re.findall(rf'"{re.escape(link)}"(?: \. [0-9a-f.:]+)?', text)


def chains_of(table: str) -> set[str]:
    """The names of a table's chains."""
    return set(_CHAIN.findall(netfilter.nft_list(f"table {table}")))
