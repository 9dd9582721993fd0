"""Policy rules that look a mark up in a table (rtnetlink(7), linux/fib_rules.h)."""

from __future__ import annotations

import errno
import struct

from cni.kernel.netlink.handle import Handle
from cni.kernel.netlink.wire import (
    CREATE,
    DUMP,
    EXCLUSIVE,
    FAMILY,
    HEADER,
    attribute,
    attributes,
    number_of,
    request,
    u32,
)

_NEW, _DELETE, _GET = 32, 33, 34
#: struct fib_rule_hdr: family, lengths of destination and source, tos, table, two of nothing, action, flags.
_RULE = struct.Struct("=BBBBBxxBI")
_PRIORITY, _FWMARK, _TABLE = 6, 10, 15
_OUR_PRIORITY, _TO_TABLE = 32000, 1
_TABLE_IN_ATTRIBUTE = 252  # RT_TABLE_COMPAT: the header's field has eight bits


class Rules(Handle):
    """The policy rules of a namespace."""

    def mark_rules(self, family: int) -> set[tuple[int, int]]:
        """The policy rules of a family (4 or 6) that look a mark up: mark and table."""
        found = map(rule_of, self._dump(request(_GET, DUMP, _RULE.pack(FAMILY[family], 0, 0, 0, 0, 0, 0))))
        return {(mark, table) for mark, table in found if mark}

    def add_mark_rule(self, family: int, mark: int, table: int) -> None:
        """Look packets with a mark up in a table. The kernel adds a second one like it without a word."""
        new = request(_NEW, CREATE | EXCLUSIVE, *_mark_rule(family, mark, table))
        self._change(new, f"add rule fwmark {mark} lookup {table}")

    def delete_mark_rule(self, family: int, mark: int, table: int) -> None:
        """Remove such a rule; one that is gone already is removed."""
        gone = request(_DELETE, 0, *_mark_rule(family, mark, table))
        self._change(gone, f"remove rule fwmark {mark} lookup {table}", errno.ENOENT)


def rule_of(message: bytes) -> tuple[int, int]:
    """The mark (0 for none) and the table of an RTM_NEWRULE message."""
    _, _, _, _, table, _, _ = _RULE.unpack_from(message, HEADER.size)
    said = dict(attributes(message, HEADER.size + _RULE.size))
    return number_of(said.get(_FWMARK, b"")), number_of(said.get(_TABLE, b"")) or table


def _mark_rule(family: int, mark: int, table: int) -> tuple[bytes, ...]:
    place = _RULE.pack(FAMILY[family], 0, 0, 0, min(table, _TABLE_IN_ATTRIBUTE), _TO_TABLE, 0)
    numbers = ((_FWMARK, mark), (_TABLE, table), (_PRIORITY, _OUR_PRIORITY))
    return place, *(attribute(number, u32(value)) for number, value in numbers)
