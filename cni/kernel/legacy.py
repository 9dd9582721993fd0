"""The legacy tables through python-iptables, in a process of their own: ``python -m cni.kernel.legacy 4 PARENT [USERS]``.

USERS is the descriptor of a user namespace to be in while it changes them.

`iptc.Table` is one object per table name and process, bound to the namespace in which it was opened, and
libxtables serves one family per process. So each namespace and family gets its own process, which reads
an iptables-save document from stdin and applies each table in one commit. It takes no lock: the one of
iptables-legacy is shared by the whole host, a pod's tables are not.

Understood lines: ``*table``, ``:CHAIN`` (made, or emptied), ``-A``, ``-I`` (first), ``-D``, ``-F``, ``-X`` and
``COMMIT``. Exit codes: 0 done, 75 (EX_TEMPFAIL) the table changed meanwhile, 1 refused, with one line on stderr.
"""

from __future__ import annotations

import sys

from cni.kernel.process import end_with

if __name__ == "__main__":  # before iptc, which takes long enough for a parent to die meanwhile
    end_with(int(sys.argv[2]))

from collections.abc import Iterable
from itertools import takewhile
from typing import Any, cast

import iptc

from cni.kernel.netns import join_users

TEMPORARY = 75

_TABLE = {4: iptc.Table, 6: iptc.Table6}
_RULE = {4: iptc.Rule, 6: iptc.Rule6}
_PLAIN = {"-s": "src", "-d": "dst", "-i": "in_interface", "-o": "out_interface", "-p": "protocol"}
_PROTOCOL = {"ipv6-icmp": "icmpv6"}


def main(family: int, lines: Iterable[str]) -> int:
    """Apply a document to one family of the namespace this process is in; returns the exit code."""
    table: Any = None
    try:
        for line in lines:
            if line.startswith("*"):
                table = _opened(family, line[1:].strip())
            elif line.startswith("COMMIT"):
                table.commit()
            else:
                _apply(table, family, line.split())
    except (iptc.IPTCError, iptc.XTablesError, ValueError, AttributeError) as error:
        # iptc has AttributeError, too, for an option that a match or target does not take
        sys.stderr.write(f"{error}\n")
        return TEMPORARY if "temporarily unavailable" in str(error) else 1
    return 0


def _opened(family: int, name: str) -> Any:
    table = _TABLE[family](name)
    table.autocommit = False  # else each line is a transaction of its own
    table.refresh()
    return table


def _apply(table: Any, family: int, words: list[str]) -> None:
    verb, chain = (":", words[0][1:]) if words[0].startswith(":") else words[:2]
    if verb == ":":
        table.flush_entries(chain) if table.is_chain(chain) else table.create_chain(chain)
    elif verb == "-F":
        table.flush_entries(chain)
    elif verb == "-X":
        table.delete_chain(chain)
    elif verb == "-A":
        iptc.Chain(table, chain).append_rule(_rule(family, words[2:]))
    elif verb == "-I":
        iptc.Chain(table, chain).insert_rule(_rule(family, words[2:]))
    elif verb == "-D":
        iptc.Chain(table, chain).delete_rule(_rule(family, words[2:]))
    else:
        raise ValueError(f"unknown line: {' '.join(words)}")


def _rule(family: int, words: list[str]) -> Any:
    """A rule from words as iptables-save spells them: ``! -d 127.0.0.1/32 -p tcp -m owner --uid-owner 7 -j X``."""
    rule, part, at = _RULE[family](), cast("Any", None), 0
    while at < len(words):
        but = "!" if words[at] == "!" else ""
        at += bool(but)
        option = words[at]
        values = list(takewhile(lambda word: word != "!" and not word.startswith("-"), words[at + 1 :]))
        at += 1 + len(values)
        if option in _PLAIN:
            setattr(rule, _PLAIN[option], but + _PROTOCOL.get(values[0], values[0]))
        elif option in ("-m", "-j"):
            part = rule.create_match(values[0]) if option == "-m" else rule.create_target(values[0])
        else:
            part.set_parameter(option.removeprefix("--"), [*but, *values])
    return rule


if __name__ == "__main__":
    if sys.argv[3:]:
        join_users(int(sys.argv[3]))
        end_with(int(sys.argv[2]))  # other credentials forget it (prctl(2))
    sys.exit(main(int(sys.argv[1]), sys.stdin))
