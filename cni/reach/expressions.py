"""Expressions of nf_tables (libnftables-json(5)), asked of a packet: what it has where a rule looks, and whether that is what is meant."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cni.reach.rules import Meeting

Raw = Mapping[str, Any]
Elements = Callable[[Any], list[Any]]


class Unlike(Exception):
    """The packet has no such field: the rule does not match."""


class Unsure(Exception):
    """Nobody can say from here."""


def holds(op: str, left: Any, right: Any, elements: Elements) -> bool:
    """Whether a comparison of a rule is so."""
    if op in ("<", ">", "<=", ">="):
        low, high = _number(left), _number(right)
        return {"<": low < high, ">": low > high, "<=": low <= high, ">=": low >= high}[op]
    if isinstance(left, frozenset):  # flags
        wanted = frozenset([right] if isinstance(right, str) else right if isinstance(right, list) else ())
        found = bool(left & wanted) if op == "in" else left == wanted
    elif isinstance(right, list):
        found = any(is_meant(left, item) for item in right)
    else:
        found = any(is_meant(left, item) for item in elements(right))
    return not found if op == "!=" else found


def is_meant(value: Any, wanted: Any) -> bool:
    """Whether a value is one that a rule or a set names: by itself, as one of a range or of a prefix, or part by part."""
    if isinstance(wanted, Mapping):
        ((kind, said),) = wanted.items()
        if kind not in _AMONG:
            raise Unsure
        return _AMONG[kind](value, said)
    if isinstance(wanted, str) and wanted.endswith("*"):
        return str(value).startswith(wanted[:-1])
    return bool(value == wanted) or str(value) == str(wanted)


def _in_prefix(value: Any, said: Raw) -> bool:
    network = ipaddress.ip_network(f"{said['addr']}/{said['len']}")
    return ipaddress.ip_address(value) in network


_AMONG: dict[str, Callable[[Any, Any], bool]] = {
    "elem": lambda value, said: is_meant(value, said["val"]),
    "range": lambda value, said: _number(said[0]) <= _number(value) <= _number(said[1]),
    "prefix": _in_prefix,
    "concat": lambda value, said: all(is_meant(one, other) for one, other in zip(value, said, strict=True)),
    "set": lambda value, said: any(is_meant(value, item) for item in said),
}


def _number(value: Any) -> int:
    if isinstance(value, int):
        return value
    try:
        return int(ipaddress.ip_address(value))
    except ValueError:
        raise Unsure from None


def value_of(expression: Any, meeting: Meeting) -> Any:
    """What the packet has where a rule looks. Raises Unlike and Unsure."""
    if not isinstance(expression, Mapping):
        return expression
    ((kind, said),) = expression.items()
    if kind not in _EXPRESSIONS:
        raise Unsure
    return _EXPRESSIONS[kind](said, meeting)


def _masked(said: Any, meeting: Meeting) -> Any:
    left, mask = value_of(said[0], meeting), said[1]
    return left & (frozenset([mask] if isinstance(mask, str) else mask) if isinstance(left, frozenset) else mask)


def _routed(said: Raw, meeting: Meeting) -> str:
    """What kind of address it is, as far as it may be the namespace's own."""
    if said["result"] != "type" or not set(said["flags"]) <= {"daddr", "saddr"}:
        raise Unsure
    asked = meeting.packet.target if "daddr" in said["flags"] else meeting.packet.source
    return "local" if meeting.is_local(asked) else "unicast"


def _field(said: Raw, meeting: Meeting) -> Any:
    if "protocol" not in said:
        raise Unsure
    return _payload(said["protocol"], said["field"], meeting)


_EXPRESSIONS: dict[str, Callable[[Any, Meeting], Any]] = {
    "concat": lambda said, met: tuple(value_of(item, met) for item in said),
    "&": _masked,
    "|": lambda said, met: value_of(said[0], met) | value_of(said[1], met),
    "^": lambda said, met: value_of(said[0], met) ^ value_of(said[1], met),
    "numgen": lambda said, met: said.get("offset", 0) + met.dice.of(said["mod"]),
    "payload": _field,
    "fib": _routed,
    "meta": lambda said, met: _read(_META, said["key"], met),
    "ct": lambda said, met: _read(_CT, " ".join(filter(None, (said.get("dir"), said["key"]))), met),
}


def _read(known: Mapping[str, Callable[[Meeting], Any]], key: str, meeting: Meeting) -> Any:
    if key not in known:
        raise Unsure
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
    "original ip daddr": lambda met: _of_family(met, 4),
    "original ip6 daddr": lambda met: _of_family(met, 6),
    "original proto-dst": lambda met: met.packet.called[1],
}


def _of_family(meeting: Meeting, family: int) -> str:
    """Whom its connection was for; one of the other family is none."""
    if meeting.packet.family != family:
        raise Unlike
    return meeting.packet.called[0]


def _payload(protocol: str, field: str, meeting: Meeting) -> Any:
    """A header's field; another protocol's is none."""
    packet = meeting.packet
    if protocol == "ether":
        kinds = {"saddr": meeting.source_mac, "daddr": meeting.target_mac, "type": _META["protocol"](meeting)}
        return kinds[field]
    if protocol in ("ip", "ip6"):
        if (protocol == "ip") is not (packet.family == 4):
            raise Unlike
        return _read(dict(_ip(meeting)), field, meeting)
    if protocol in ("tcp", "udp", "th"):
        if packet.protocol == "icmp" or packet.error or protocol not in (packet.protocol, "th"):
            raise Unlike
        ports = {"dport": lambda _: packet.port, "sport": lambda _: packet.source_port}
        flags = frozenset({"syn", "ack"} if packet.reply else {"syn"})
        return _read({**ports, "flags": lambda _: flags}, field, meeting)
    if protocol == packet.carried.replace("ipv6-icmp", "icmpv6") and field == "type":
        if packet.error:
            return "destination-unreachable"
        return "echo-reply" if packet.reply else "echo-request"
    raise Unlike


def _ip(meeting: Meeting) -> Iterable[tuple[str, Callable[[Meeting], Any]]]:
    packet = meeting.packet

    def lived(_: Meeting) -> int:
        return 64

    yield from (("saddr", lambda _: packet.source), ("daddr", lambda _: packet.target))
    yield from ((name, lambda _: packet.carried) for name in ("protocol", "nexthdr"))
    yield from ((name, lived) for name in ("ttl", "hoplimit"))
