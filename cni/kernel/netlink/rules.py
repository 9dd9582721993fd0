"""Policy rules that look a mark up in a table (rtnetlink(7), linux/fib_rules.h).

Only a pod whose traffic is taken by TPROXY has any, so pyroute2's codec spells and reads them. Its `__init__` would import all of
its 160 modules, five times the time and twice the memory of the thirty needed, and is not run.
"""

from __future__ import annotations

import errno
import importlib.util
import sys
from typing import Any

from cni.kernel.netlink.handle import Handle
from cni.kernel.netlink.wire import ACK, CREATE, DUMP, EXCLUSIVE, FAMILY, REQUEST, understood

_NEW, _DELETE, _GET = 32, 33, 34
_OUR_PRIORITY, _TO_TABLE = 32000, 1
_TABLE_IN_ATTRIBUTE = 252  # RT_TABLE_COMPAT: the header's field has eight bits


class Rules(Handle):
    """The policy rules of a namespace."""

    def mark_rules(self, family: int) -> set[tuple[int, int]]:
        """The policy rules of a family (4 or 6) that look a mark up: mark and table."""
        found = map(rule_of, self._dump(_request(_GET, DUMP, family)))
        return {(mark, table) for mark, table in found if mark}

    def add_mark_rule(self, family: int, mark: int, table: int) -> None:
        """Look packets with a mark up in a table. Raises KernelRefused (EEXIST) where they are already."""
        new = _request(_NEW, CREATE | EXCLUSIVE, family, mark, table)
        self._change(new, f"add rule fwmark {mark} lookup {table}")

    def delete_mark_rule(self, family: int, mark: int, table: int) -> None:
        """Remove such a rule; one that is gone already is removed."""
        gone = _request(_DELETE, 0, family, mark, table)
        self._change(gone, f"remove rule fwmark {mark} lookup {table}", errno.ENOENT)


@understood
def rule_of(message: bytes) -> tuple[int, int]:
    """The mark (0 for none) and the table of an RTM_NEWRULE message."""
    rule = _fibmsg()(message)
    rule.decode()
    return rule.get_attr("FRA_FWMARK") or 0, rule.get_attr("FRA_TABLE") or rule["table"]


def _request(verb: int, how: int, family: int, mark: int = 0, table: int = 0) -> bytes:
    rule = _fibmsg()()
    rule["header"] = {"type": verb, "flags": how | REQUEST | ACK}
    rule["family"] = FAMILY[family]
    if mark:
        rule |= {"table": min(table, _TABLE_IN_ATTRIBUTE), "action": _TO_TABLE}
        rule["attrs"] = [("FRA_FWMARK", mark), ("FRA_TABLE", table), ("FRA_PRIORITY", _OUR_PRIORITY)]
    rule.encode()
    return bytes(rule.data)


def _fibmsg() -> Any:
    """pyroute2's class of such messages."""
    if "pyroute2" not in sys.modules:
        spec = importlib.util.find_spec("pyroute2")
        assert spec is not None
        sys.modules["pyroute2"] = importlib.util.module_from_spec(spec)
    from pyroute2.netlink.rtnl.fibmsg import fibmsg

    return fibmsg
