"""Packet rules as data, and as iptables-save spells them (iptables(8), iptables-extensions(8)).

A rule is printable and comparable before any program has seen it; `spelled` is byte for byte what
``iptables-save`` prints of it later, in the legacy and the nf_tables variant alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

RETURN, DROP = "RETURN", "DROP"

#: Packets of a transparent proxy carry MARK; the policy route in ROUTE_TABLE sends them to the pod itself.
MARK, HAIRPIN_MARK, ROUTE_TABLE = "0x539", "0x53a", 133

#: Tables in the order in which they may come into force: the redirecting one last.
TABLES = ("raw", "mangle", "filter", "nat")

_EVERY_BIT = "0xffffffff"
_ANYWHERE = {4: "0.0.0.0", 6: "::"}


class Match(NamedTuple):
    """What a packet must be; with `but`, what it must not be. `field` is a key of the table below."""

    field: str
    value: object
    but: bool = False


class Action(NamedTuple):
    """What happens to a packet: a verdict, a chain's name, or a target that takes one value."""

    name: str
    value: object = None


class Rule(NamedTuple):
    """One rule of a chain; it matches what all its matches match."""

    chain: str
    action: Action
    matches: tuple[Match, ...] = ()


class Table(NamedTuple):
    """A table's rules in order. Those in built-in chains hook ours, which are named ``ACNI_…``."""

    name: str
    rules: tuple[Rule, ...]


#: field: (extension, option), in the order in which iptables-save prints them.
_FIELDS = {
    "source": ("", "-s"),
    "destination": ("", "-d"),
    "in": ("", "-i"),
    "out": ("", "-o"),
    "protocol": ("", "-p"),
    "port": ("PROTOCOL", "--dport"),
    "source-port": ("PROTOCOL", "--sport"),
    "flags": ("PROTOCOL", "--tcp-flags"),
    "ports": ("multiport", "--dports"),
    "icmp6": ("icmp6", "--icmpv6-type"),
    "socket": ("socket", ""),
    "state": ("conntrack", "--ctstate"),
    "mark": ("mark", "--mark"),
    "connmark": ("connmark", "--mark"),
    "uid": ("owner", "--uid-owner"),
    "gid": ("owner", "--gid-owner"),
}
_ORDER = list(_FIELDS)

_TARGETS = {
    "redirect": "REDIRECT --to-ports {value}",
    "mark": "MARK --set-xmark {value}/" + _EVERY_BIT,
    "save-mark": f"CONNMARK --save-mark --nfmask {_EVERY_BIT} --ctmask {_EVERY_BIT}",
    "restore-mark": f"CONNMARK --restore-mark --nfmask {_EVERY_BIT} --ctmask {_EVERY_BIT}",
    "zone": "CT --zone {value}",
    "tproxy": "TPROXY --on-port {value[0]} --on-ip {anywhere} --tproxy-mark {value[1]}/" + _EVERY_BIT,
}


def to(action: str, chain: str, *matches: Match, value: object = None) -> Rule:
    """A rule: in `chain`, what all `matches` match meets `action`."""
    return Rule(chain, Action(action, value), matches)


def spelled(tables: Iterable[Table], family: int) -> str:
    """Tables as iptables-save prints them, without policies and counters."""
    return "".join(f"{line}\n" for table in tables for line in _document(table, family))


def _document(table: Table, family: int) -> Iterator[str]:
    chains = dict.fromkeys(rule.chain for rule in table.rules if rule.chain.startswith("ACNI_"))
    yield f"*{table.name}"
    yield from (f":{chain} - [0:0]" for chain in chains)
    yield from (_line(rule, family) for rule in table.rules)
    yield "COMMIT"


def _line(rule: Rule, family: int) -> str:
    matches = sorted(rule.matches, key=lambda match: _ORDER.index(match.field))
    target = _TARGETS.get(rule.action.name, rule.action.name)
    target = target.format(value=rule.action.value, anywhere=_ANYWHERE[family])
    return " ".join([f"-A {rule.chain}", *_words(matches), f"-j {target}"])


def _words(matches: Sequence[Match]) -> Iterator[str]:
    protocol = next((match.value for match in matches if match.field == "protocol"), "")
    loaded = ""
    for match in matches:
        extension, option = _FIELDS[match.field]
        extension = str(protocol) if extension == "PROTOCOL" else extension
        if extension not in ("", loaded):
            yield f"-m {extension}"
            loaded = extension
        yield from [f"{'! ' if match.but else ''}{option} {match.value}".strip()] if option or match.value else []
