"""Rules of nf_tables, out of what nft lists as JSON (libnftables-json(5)): of expressions what packets of a `Meeting` have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from cni.reach.expressions import Elements, Raw, Unlike, Unsure, holds, is_meant, value_of
from cni.reach.rules import Act, Chain, Decide, Meeting, Rule, Test

_FAMILIES = {"ip": (4,), "ip6": (6,)}
#: The tables that iptables-nft keeps, which `saved` reads: some of its matches have no other spelling.
_IPTABLES = ("raw", "mangle", "nat", "filter", "security")
_BUILT_IN = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
_VERDICTS = ("accept", "drop", "reject", "return")
_TRANSLATIONS = ("dnat", "snat", "masquerade", "redirect", "tproxy")
#: Statements that decide nothing.
_ASIDE = (
    "counter",
    "log",
    "limit",
    "comment",
    "quota",
    "notrack",
    "set",
    "map",
    "ct helper",
    "last",
    "mangle",
    "continue",
)


def chains(text: str) -> list[Chain]:
    """Every chain of ``nft -j list ruleset``, but for the tables of iptables-nft."""
    items: list[Raw] = json.loads(text or '{"nftables": []}')["nftables"]
    by_kind = {kind: [item[kind] for item in items if kind in item] for kind in ("chain", "rule", "set", "map")}
    foreign = {_table(chain) for chain in by_kind["chain"] if _is_iptables(chain)}
    sets = {(_table(item), item["name"]): item.get("elem", []) for item in by_kind["set"] + by_kind["map"]}
    rules: dict[tuple[str, str], list[Rule]] = {}
    for rule in by_kind["rule"]:
        if _table(rule) not in foreign:
            read = _rule(rule, partial(_elements, sets, _table(rule)))
            rules.setdefault((_table(rule), rule["chain"]), []).append(read)
    return [
        _chain(chain, tuple(rules.get((_table(chain), chain["name"]), ())))
        for chain in by_kind["chain"]
        if _table(chain) not in foreign
    ]


def _table(item: Raw) -> str:
    return f"{item['family']} {item['table']}"


def _is_iptables(chain: Raw) -> bool:
    return chain["family"] in _FAMILIES and chain["table"] in _IPTABLES and chain["name"] in _BUILT_IN


def _chain(chain: Raw, rules: tuple[Rule, ...]) -> Chain:
    device = chain.get("dev", ())
    hook = chain.get("hook", "")
    if chain["family"] in ("bridge", "arp"):
        hook = f"{chain['family']} {hook}" if hook else ""
    return Chain(
        _table(chain), chain["name"], rules, hook, chain.get("prio", 0), chain.get("type") == "nat",
        (device,) if isinstance(device, str) else tuple(device), chain.get("policy") == "drop",
        _FAMILIES.get(chain["family"], (4, 6)),
    )  # fmt: skip


def _elements(sets: Mapping[tuple[str, str], list[Any]], table: str, named: Any) -> list[Any]:
    """What a set has, by its name behind an @, or written there."""
    if isinstance(named, str) and named.startswith("@"):
        return sets.get((table, named[1:]), [])
    found: list[Any] = named["set"] if isinstance(named, Mapping) and "set" in named else [named]
    return found


def _rule(rule: Raw, elements: Elements) -> Rule:
    tests: list[Test] = []
    acts: list[Decide] = []
    words: list[str] = []
    for statement in rule.get("expr", ()):
        ((kind, said),) = statement.items() if isinstance(statement, Mapping) else ((statement, {}),)
        words.append(_spelled(said) if kind == "match" else kind)
        if kind == "match":
            tests.append(partial(_matched, said, elements))
        elif kind == "vmap":
            acts.append(partial(_mapped, said, elements))
            tests.append(partial(_is_known, said["key"]))
        elif kind == "mangle" and said["key"] == {"meta": {"key": "mark"}}:
            acts.append(partial(_marked, said["value"]))
            tests.append(partial(_is_known, said["value"]))
        elif act := _act(kind, said):
            acts.append(partial(_always, act))
        elif kind not in _ASIDE:
            tests.append(lambda _: None)
    return Rule(tuple(tests), tuple(acts), rule.get("comment", "") or " ".join(words))


def _spelled(match: Raw) -> str:
    left, right = match["left"], match["right"]
    if isinstance(left, Mapping) and isinstance(said := next(iter(left.values())), Mapping):
        left = " ".join(str(item) for item in said.values())
    many = isinstance(right, (Mapping, list))
    return f"{left}{' !=' if match['op'] == '!=' else ''} {'{...}' if many else right}"


def _always(act: Act, _: Meeting) -> Act:
    return act


def _act(kind: str, said: Any) -> Act | None:
    """What a statement does, None for one that does nothing with the packet."""
    if kind in ("jump", "goto"):
        return Act(kind, said["target"])
    if kind in _VERDICTS:
        return Act(kind)
    if kind in _TRANSLATIONS:
        address, port = (said.get("addr", ""), said.get("port", "")) if isinstance(said, Mapping) else ("", "")
        plain = isinstance(address, str) and isinstance(port, (str, int))
        return Act(kind, f"{address} {port}") if plain else None
    return None


def _marked(value: Any, meeting: Meeting) -> Act:
    return Act("mark", str(value_of(value, meeting)))


def _matched(match: Raw, elements: Elements, meeting: Meeting) -> bool | None:
    try:
        left = value_of(match["left"], meeting)
        return holds(match["op"], left, match["right"], elements)
    except Unlike:
        return False
    except Unsure:
        return None


def _is_known(key: Any, meeting: Meeting) -> bool | None:
    try:
        value_of(key, meeting)
    except Unlike:
        return False
    except Unsure:
        return None
    return True


def _mapped(said: Raw, elements: Elements, meeting: Meeting) -> Act | None:
    """The verdict that a map has for the packet."""
    with suppress(Unlike, Unsure):
        value = value_of(said["key"], meeting)
        for key, verdict in elements(said["data"]):
            if is_meant(value, key):
                ((kind, what),) = verdict.items()
                return _act(kind, what)
    return None
