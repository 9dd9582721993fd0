"""Rules of nf_tables, out of what nft lists as JSON (libnftables-json(5)): of expressions what packets of a `Meeting` have."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

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

Raw = Mapping[str, Any]


class _Unlike(Exception):
    """The packet has no such field: the rule does not match."""


class _Unsure(Exception):
    """Nobody can say from here."""


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


Elements = Callable[[Any], list[Any]]


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
    if kind == "mangle" and said["key"] == {"meta": {"key": "mark"}} and isinstance(said["value"], int):
        return Act("mark", str(said["value"]))
    return None


def _matched(match: Raw, elements: Elements, meeting: Meeting) -> bool | None:
    try:
        left = _value(match["left"], meeting)
        return _holds(match["op"], left, match["right"], elements)
    except _Unlike:
        return False
    except _Unsure:
        return None


def _is_known(key: Any, meeting: Meeting) -> bool | None:
    try:
        _value(key, meeting)
    except _Unlike:
        return False
    except _Unsure:
        return None
    return True


def _mapped(said: Raw, elements: Elements, meeting: Meeting) -> Act | None:
    """The verdict that a map has for the packet."""
    with suppress(_Unlike, _Unsure):
        value = _value(said["key"], meeting)
        for key, verdict in elements(said["data"]):
            if _is(value, key):
                ((kind, what),) = verdict.items()
                return _act(kind, what)
    return None


def _holds(op: str, left: Any, right: Any, elements: Elements) -> bool:
    if op in ("<", ">", "<=", ">="):
        low, high = _number(left), _number(right)
        return {"<": low < high, ">": low > high, "<=": low <= high, ">=": low >= high}[op]
    if isinstance(left, frozenset):  # flags
        wanted = frozenset([right] if isinstance(right, str) else right if isinstance(right, list) else ())
        found = bool(left & wanted) if op == "in" else left == wanted
    elif isinstance(right, list):
        found = any(_is(left, item) for item in right)
    else:
        found = any(_is(left, item) for item in elements(right))
    return not found if op == "!=" else found


def _is(value: Any, wanted: Any) -> bool:
    """Whether a value is one that a rule or a set names: by itself, as one of a range or of a prefix, or part by part."""
    if isinstance(wanted, Mapping):
        ((kind, said),) = wanted.items()
        if kind not in _AMONG:
            raise _Unsure
        return _AMONG[kind](value, said)
    if isinstance(wanted, str) and wanted.endswith("*"):
        return str(value).startswith(wanted[:-1])
    return bool(value == wanted) or str(value) == str(wanted)


def _in_prefix(value: Any, said: Raw) -> bool:
    network = ipaddress.ip_network(f"{said['addr']}/{said['len']}")
    return ipaddress.ip_address(value) in network


_AMONG: dict[str, Callable[[Any, Any], bool]] = {
    "elem": lambda value, said: _is(value, said["val"]),
    "range": lambda value, said: _number(said[0]) <= _number(value) <= _number(said[1]),
    "prefix": _in_prefix,
    "concat": lambda value, said: all(_is(one, other) for one, other in zip(value, said, strict=True)),
    "set": lambda value, said: any(_is(value, item) for item in said),
}


def _number(value: Any) -> int:
    if isinstance(value, int):
        return value
    try:
        return int(ipaddress.ip_address(value))
    except ValueError:
        raise _Unsure from None


def _value(expression: Any, meeting: Meeting) -> Any:
    """What the packet has where a rule looks. Raises _Unlike and _Unsure."""
    if not isinstance(expression, Mapping):
        return expression
    ((kind, said),) = expression.items()
    if kind == "concat":
        return tuple(_value(item, meeting) for item in said)
    if kind == "&":
        left, mask = _value(said[0], meeting), said[1]
        return left & (frozenset([mask] if isinstance(mask, str) else mask) if isinstance(left, frozenset) else mask)
    if kind == "payload" and "protocol" in said:
        return _payload(said["protocol"], said["field"], meeting)
    if kind == "fib" and said["result"] == "type" and set(said["flags"]) <= {"daddr", "saddr"}:
        asked = meeting.packet.target if "daddr" in said["flags"] else meeting.packet.source
        return "local" if meeting.is_local(asked) else "unicast"
    if kind in ("meta", "ct"):
        return _read({"meta": _META, "ct": _CT}[kind], said["key"], meeting)
    raise _Unsure


def _read(known: Mapping[str, Callable[[Meeting], Any]], key: str, meeting: Meeting) -> Any:
    if key not in known:
        raise _Unsure
    return known[key](meeting)


_META: dict[str, Callable[[Meeting], Any]] = {
    "iifname": lambda met: met.into,
    "oifname": lambda met: met.out,
    "iif": lambda met: met.into,
    "oif": lambda met: met.out,
    "l4proto": lambda met: met.packet.carried,
    "protocol": lambda met: {4: "ip", 6: "ip6"}[met.packet.family],
    "nfproto": lambda met: {4: "ipv4", 6: "ipv6"}[met.packet.family],
    "mark": lambda met: met.packet.mark,
    "pkttype": lambda _: "host",
    "skuid": lambda _: 0,
    "skgid": lambda _: 0,
}
_CT: dict[str, Callable[[Meeting], Any]] = {
    "state": lambda met: met.packet.state,
    "direction": lambda met: "reply" if met.packet.reply else "original",
    "mark": lambda _: 0,
    "status": lambda met: frozenset({"dnat"} if met.packet.translated else ()),
}


def _payload(protocol: str, field: str, meeting: Meeting) -> Any:
    """A header's field; another protocol's is none."""
    packet = meeting.packet
    if protocol == "ether":
        kinds = {"saddr": meeting.source_mac, "daddr": meeting.target_mac, "type": _META["protocol"](meeting)}
        return kinds[field]
    if protocol in ("ip", "ip6"):
        if (protocol == "ip") is not (packet.family == 4):
            raise _Unlike
        return _read(dict(_ip(meeting)), field, meeting)
    if protocol in ("tcp", "udp", "th"):
        if packet.protocol == "icmp" or packet.error or protocol not in (packet.protocol, "th"):
            raise _Unlike
        ports = {"dport": lambda _: packet.port, "sport": lambda _: packet.source_port}
        flags = frozenset({"syn", "ack"} if packet.reply else {"syn"})
        return _read({**ports, "flags": lambda _: flags}, field, meeting)
    if protocol == packet.carried.replace("ipv6-icmp", "icmpv6") and field == "type":
        if packet.error:
            return "destination-unreachable"
        return "echo-reply" if packet.reply else "echo-request"
    raise _Unlike


def _ip(meeting: Meeting) -> Iterable[tuple[str, Callable[[Meeting], Any]]]:
    packet = meeting.packet

    def lived(_: Meeting) -> int:
        return 64

    yield from (("saddr", lambda _: packet.source), ("daddr", lambda _: packet.target))
    yield from ((name, lambda _: packet.carried) for name in ("protocol", "nexthdr"))
    yield from ((name, lived) for name in ("ttl", "hoplimit"))
