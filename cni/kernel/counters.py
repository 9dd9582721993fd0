"""What rules with a comment have counted (linux/netfilter/nf_tables.h): packets and bytes, by comment and what the rule does with them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from cni.kernel import nfnetlink
from cni.kernel.netlink.wire import DUMP, attribute, attributes, listed, string, text_of
from cni.kernel.nfnetlink import EXPRESSION_NAME, RULE, RULE_CHAIN, RULE_EXPRESSIONS, TABLE_NAME, asked, attributes_of

_EXPRESSION_DATA, _USER_DATA = 2, 7
_BYTES, _PACKETS = 1, 2
_IMMEDIATE_DATA, _DATA_VERDICT, _VERDICT_CODE = 2, 2, 1
_COMMENT = 0
_VERDICTS = {0: "drop", 1: "accept", -3: "jump", -4: "goto", -5: "return"}


class Counted(NamedTuple):
    """What the rules of one comment and verdict have counted together."""

    comment: str
    verdict: str
    packets: int
    bytes: int


def counted(table: str, chain: str = "") -> list[Counted]:
    """What a table, ``inet name``, or one chain of it, has counted since its rules were made; nothing where there is no such table."""
    family, _, name = table.partition(" ")
    named = attribute(TABLE_NAME, string(name)) + (attribute(RULE_CHAIN, string(chain)) if chain else b"")
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for message in asked(nfnetlink.opened(), RULE, DUMP, family, named):
        for one in _of_rule(attributes_of(message)):
            packets, size = found.get((one.comment, one.verdict), (0, 0))
            found[one.comment, one.verdict] = packets + one.packets, size + one.bytes
    return [Counted(*key, *value) for key, value in found.items()]


def _of_rule(rule: dict[int, bytes]) -> Iterator[Counted]:
    comment = _comment(rule.get(_USER_DATA, b""))
    if not comment:
        return
    counts, verdict = None, ""
    for name, data in _expressions(rule.get(RULE_EXPRESSIONS, b"")):
        if name == "counter":
            counts = tuple(int.from_bytes(data[key], "big") for key in (_PACKETS, _BYTES))
        if name == "immediate" and _IMMEDIATE_DATA in data:
            said = attributes(attributes(data[_IMMEDIATE_DATA]).get(_DATA_VERDICT, b""))
            if _VERDICT_CODE in said:
                (code,) = struct.unpack(">i", said[_VERDICT_CODE])
                verdict = _VERDICTS.get(code, str(code))
    if counts:
        yield Counted(comment, verdict, *counts)


def _expressions(data: bytes) -> Iterator[tuple[str, dict[int, bytes]]]:
    for found in map(attributes, listed(data)):
        yield text_of(found.get(EXPRESSION_NAME, b"")), attributes(found.get(_EXPRESSION_DATA, b""))


def _comment(data: bytes) -> str:
    """The comment among what libnftables keeps beside a rule: each a type, a length and a value of one byte each."""
    while len(data) > 1:
        kind, length = data[0], data[1]
        if kind == _COMMENT:
            return text_of(data[2 : 2 + length])
        data = data[2 + length :]
    return ""
