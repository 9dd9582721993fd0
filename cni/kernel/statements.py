"""nft's language without libnftables, as far as the policies of pods speak it: what a script comes to is packed here.

libnftables reads every chain and set there is before it adds a rule, and who may make no namespace cannot have it read less
(compiled.py). What is packed is what libnftables makes of the same words, to the byte; a test lets the kernel compare them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import count
from typing import NamedTuple

from cni.kernel import expressions as say
from cni.kernel.containers import TYPES, anonymous, declared, touching
from cni.kernel.netlink.wire import APPEND, CREATE, attribute, nested, string, u32
from cni.kernel.nfnetlink import (
    CHAIN,
    CHAIN_NAME,
    DELETE_CHAIN,
    DELETE_RULE,
    ELEMENT_LIST,
    ELEMENTS,
    LIST_ITEM,
    RULE,
    RULE_CHAIN,
    RULE_EXPRESSIONS,
    SET_NAME,
    TABLE,
    TABLE_NAME,
    request,
)

#: Sets without a name are known by a number until their rule has them; what is compiled apart counts from 1.
_numbers = count(1 << 30)

#: The headers of addresses by nft's word: the family's number, where each is, how long, and what libnftables calls header and field.
_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132, "icmp": 1, "ipv6-icmp": 58}
_FAMILIES = {"ip": (2, 4, 12), "ip6": (10, 16, 13)}
_ADDRESSES = {("ip", "saddr"): (12, 11), ("ip", "daddr"): (16, 12), ("ip6", "saddr"): (8, 8), ("ip6", "daddr"): (24, 9)}
_PORTS = {"sport": 0, "dport": 2}
_LAST_PORT = 65535
#: What is always said alike.
_PLAIN = {
    "ct direction reply": [say.direction(), say.compare(say.EQUAL, b"\1")],
    "ct state new": [say.is_new()],
    "ct state untracked": [say.is_untracked()],
    'iif != "lo"': [say.meta(say.LINK), say.compare(say.OTHER, u32(1))],
    "counter": [say.count()],
}
_HOOKS = ("prerouting", "input", "forward", "output", "postrouting")

#: The family of the tables that rules are understood in: what is of IPv4 or IPv6 is asked there.
_BOTH = "inet"


class Unspoken(Exception):
    """A script says what is not known here."""


def requests(script: str) -> list[bytes]:
    """The requests to nf_tables that a script comes to, line by line. Raises Unspoken."""
    return [made for line in script.splitlines() if line for made in _line(line)]


def _line(line: str) -> Iterator[bytes]:
    for pattern, made in _LINES:
        if found := pattern.fullmatch(line):
            return made(*found.groups())
    raise Unspoken(line)


def _of(table: str) -> bytes:
    return attribute(TABLE_NAME, string(table))


def _table(family: str, table: str) -> Iterator[bytes]:
    yield request(TABLE, CREATE, family, _of(table) + attribute(2, say.number(0)))


def _chain(verb: str, family: str, table: str, name: str) -> Iterator[bytes]:
    if verb == "flush":
        yield request(DELETE_RULE, 0, family, _of(table) + attribute(RULE_CHAIN, string(name)))
        return
    kind, how = (CHAIN, CREATE) if verb == "add" else (DELETE_CHAIN, 0)
    yield request(kind, how, family, _of(table) + attribute(CHAIN_NAME, string(name)))


def _base(table: str, name: str, hook: str, minus: str | None, priority: str) -> Iterator[bytes]:
    at = (-int(priority) if minus else int(priority)).to_bytes(4, "big", signed=True)
    hung = attribute(1, say.number(_HOOKS.index(hook))), attribute(2, at)
    accepts = attribute(5, say.number(1))
    said = (
        _of(table) + attribute(CHAIN_NAME, string(name)) + nested(4, *hung) + accepts + attribute(7, string("filter"))
    )
    yield request(CHAIN, CREATE, _BOTH, said)


def _set(family: str, table: str, name: str, kind: str, leading: str | None) -> Iterator[bytes]:
    if kind not in TYPES:
        raise Unspoken(kind)
    yield declared(family, table, name, kind, leading=bool(leading))


def _element(family: str, table: str, name: str, key: str, chain: str) -> Iterator[bytes]:
    try:
        packed = ipaddress.ip_address(key).packed
    except ValueError:
        raise Unspoken(key) from None
    item = nested(LIST_ITEM, nested(1, say.value(packed)), nested(2, say.verdict("jump", chain)) if chain else b"")
    yield request(ELEMENTS, CREATE, family, _of(table) + attribute(SET_NAME, string(name)) + nested(ELEMENT_LIST, item))


def _rule(table: str, chain: str, text: str) -> Iterator[bytes]:
    rule = _read(text)
    said = []
    for item in rule.said:
        if isinstance(item, _Among):
            set_id = next(_numbers)
            yield from anonymous((_BOTH, table), set_id, item.kind, item.noted, item.spans)
            said.append(say.look_up("__set%d", set_id))
        else:
            said.append(item)
    notes = attribute(7, rule.comment) if rule.comment else b""
    place = _of(table) + attribute(RULE_CHAIN, string(chain))
    yield request(RULE, CREATE | APPEND, _BOTH, place + notes + nested(RULE_EXPRESSIONS, *said))


@lru_cache(maxsize=1024)
def _read(text: str) -> _Rule:
    """A rule, of which many pods have the same. Raises Unspoken."""
    rule = _Rule()
    at = 0
    while at < len(text):
        found = _CLAUSE.match(text, at)
        if found is None or found.lastgroup is None:
            raise Unspoken(text)
        rule.clause(found.lastgroup, *found[found.lastgroup].split(" "))
        at = found.end()
    return rule


#: `key` comes with an address only: a link's name is quoted.
_LINES: tuple[tuple[re.Pattern[str], Callable[..., Iterator[bytes]]], ...] = (
    (re.compile(rf"add rule {_BOTH} (\S+) (\S+) (.+)"), _rule),
    (re.compile(r"add element (\S+) (\S+) (\S+) \{ ([0-9a-f.:]+) : jump (\S+) \}"), _element),
    (re.compile(r"add element (\S+) (\S+) (\S+) \{ ([0-9a-f.:]+)() \}"), _element),
    (
        re.compile(
            rf"add chain {_BOTH} (\S+) (\S+) \{{ type filter hook (\S+) priority (filter - |-)?([0-9]+); policy accept; \}}"
        ),
        _base,
    ),
    (re.compile(r"(add|flush|delete) chain (\S+) (\S+) (\S+)"), _chain),
    (re.compile(r"add set (\S+) (\S+) (\S+) \{ type ([^:;]+)(); \}"), _set),
    (re.compile(r"add map (\S+) (\S+) (\S+) \{ type ([^:;]+)( : verdict); \}"), _set),
    (re.compile(r"add table (\S+) (\S+)"), _table),
)
_CLAUSE = re.compile(
    r"""(?:
    (?P<plain>ct\ direction\ reply|ct\ state\ (?:new|untracked)|iif\ !=\ "lo"|counter)
    | (?P<key>ip6?\ [sd]addr\ \.\ meta\ l4proto\ \.\ th\ [sd]port\ @\S+)
    | (?P<named>ip6?\ [sd]addr\ @\S+)
    | (?P<among>ip6?\ [sd]addr\ \{\ [^{}]+\ \})
    | (?P<protocol>meta\ l4proto\ [a-z0-9-]+)
    | (?P<port>(?:tcp|udp|sctp)\ [sd]port\ [0-9]+(?:-[0-9]+)?)
    | (?P<meant>ct\ original\ (?:proto-dst\ (?:!=\ )?[0-9]+|ip6?\ daddr\ [0-9a-f.:]+))
    | (?P<led>ip6?\ [sd]addr\ vmap\ @\S+)
    | (?P<limit>limit\ rate\ (?:over\ )?[0-9]+(?:\ kbytes)?/second\ burst\ [0-9]+\ (?:packets|kbytes))
    | (?P<log>log\ prefix\ "[^"]*"(?:\ group\ [0-9]+)?)
    | (?P<wait>queue\ num\ [0-9]+|xt\ target\ "NFQUEUE"\ [0-9]+)
    | (?P<comment>comment\ "[^"]*")
    | (?P<verdict>return|drop|accept|(?:goto|jump)\ \S+)
    )(?:\ |$)""",
    re.VERBOSE,
)


class _Among(NamedTuple):
    """What is looked up in a set that is made for one rule alone: see `anonymous`."""

    kind: str
    noted: tuple[int, int]
    spans: tuple[tuple[bytes, bytes], ...]


class _Rule:
    """A rule that is read: the expressions it comes to."""

    def __init__(self) -> None:
        self.said: list[bytes | _Among] = []
        self.comment = b""
        self._known: set[int] = set()

    def clause(self, kind: str, *words: str) -> None:
        """Go on by a clause. Raises Unspoken."""
        getattr(self, f"_{kind}")(*words)

    def _is(self, key: int, number: int) -> None:
        """What a later clause takes for granted; libnftables would look at two of one kind together."""
        if key in self._known:
            raise Unspoken(f"{key} twice")
        self._known.add(key)
        self.said += [say.meta(key), say.compare(say.EQUAL, bytes([number]))]

    def _address(self, ip: str, side: str) -> None:
        number, length, _ = _FAMILIES[ip]
        self._is(say.NFPROTO, number)
        self.said.append(say.payload(say.NETWORK, _ADDRESSES[ip, side][0], length))

    def _plain(self, *words: str) -> None:
        self.said += _PLAIN[" ".join(words)]

    def _key(self, ip: str, side: str, *words: str) -> None:
        """An address, a protocol and a port behind one another, each filled up to four bytes: the kernel counts registers of
        four from 8 on, and calls every fourth by its number among those of sixteen.
        """
        self._address(ip, side)
        transport, at = (9, 10) if ip == "ip" else (2, 13)
        self._known.add(say.L4PROTO)
        port, name = words[-2:]
        self.said += [say.meta(say.L4PROTO, transport), say.payload(say.TRANSPORT, _PORTS[port], 2, at)]
        self.said.append(say.look_up(name[1:]))

    def _named(self, ip: str, side: str, name: str) -> None:
        self._address(ip, side)
        self.said.append(say.look_up(name[1:]))

    def _among(self, ip: str, side: str, *words: str) -> None:
        self._address(ip, side)
        spans = [_span(item, ip) for item in " ".join(words[1:-1]).split(", ")]
        if len(spans) == 1:
            self._within(*spans[0])
            return
        if touching(spans):
            raise Unspoken("ranges that libnftables makes one of")
        header, field = _FAMILIES[ip][2], _ADDRESSES[ip, side][1]
        self.said.append(_Among(f"ipv{6 if ip == 'ip6' else 4}_addr", (header, field), tuple(spans)))

    def _within(self, low: bytes, high: bytes) -> None:
        if low == high:
            self.said.append(say.compare(say.EQUAL, low))
        else:
            self.said += [say.compare(say.AT_LEAST, low), say.compare(say.AT_MOST, high)]

    def _protocol(self, *words: str) -> None:
        if words[-1] not in _PROTOCOLS:
            raise Unspoken(words[-1])
        self._is(say.L4PROTO, _PROTOCOLS[words[-1]])

    def _port(self, protocol: str, side: str, span: str) -> None:
        self._is(say.L4PROTO, _PROTOCOLS[protocol])
        self.said.append(say.payload(say.TRANSPORT, _PORTS[side], 2))
        low, _, high = span.partition("-")
        if not int(low) <= int(high or low) <= _LAST_PORT:
            raise Unspoken(span)
        self._within(say.number(int(low), 2), say.number(int(high or low), 2))

    def _meant(self, _: str, __: str, what: str, *words: str) -> None:
        how = say.OTHER if "!=" in words else say.EQUAL
        found = say.number(int(words[-1]), 2) if what == "proto-dst" else _span(words[-1], what)[0]
        self.said += [say.meant(what), say.compare(how, found)]

    def _led(self, ip: str, side: str, _: str, name: str) -> None:
        self._address(ip, side)
        self.said.append(say.led(name[1:]))

    def _limit(self, *words: str) -> None:
        rate, burst = (int(found) for found in re.findall(r"[0-9]+", " ".join(words)))
        self.said.append(say.limit(rate, burst, over="over" in words, kilobytes=words[-1] == "kbytes"))

    def _log(self, *words: str) -> None:
        _, prefix, group = " ".join(words).split('"')
        self.said.append(say.log(prefix, int(group.split(" ")[-1]) if group else None))

    def _wait(self, how: str, *words: str) -> None:  # nft itself lists iptables' target, and does not read it
        self.said.append((say.queue if how == "queue" else say.queue_by_xtables)(int(words[-1])))

    def _verdict(self, word: str, chain: str = "") -> None:
        self.said.append(say.decide(word, chain))

    def _comment(self, *words: str) -> None:
        text = string(" ".join(words).split('"')[1])
        self.comment = bytes([0, len(text)]) + text


@lru_cache(maxsize=4096)
def _span(text: str, ip: str) -> tuple[bytes, bytes]:
    low, _, high = text.partition("-")
    try:
        ends = ipaddress.ip_address(low), ipaddress.ip_address(high or low)
    except ValueError:
        raise Unspoken(text) from None
    if any(end.version != (4 if ip == "ip" else 6) for end in ends) or int(ends[0]) > int(ends[1]):
        raise Unspoken(text)
    return ends[0].packed, ends[1].packed
