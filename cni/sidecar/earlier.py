"""How the release before spelled the same interception: what its pods have is shared as it is, and not changed under them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

#: A connection in its midst: that release let every one pass, and said so first in a chain. Its zones were other ones too.
_MIDST = "! --tcp-flags FIN,SYN,RST,ACK SYN"
_LET_PASS = f" -p tcp -m tcp {_MIDST} -j RETURN"


def same_of_the_release_before(theirs: str, ours: str) -> bool:
    """Whether a text of rules in a record is what that release made of the configuration that is `ours` now."""
    return _is_earlier(theirs) and list(_meaning(theirs)) == list(_meaning(ours))


def _is_earlier(text: str) -> bool:
    rules = (line for line in text.splitlines() if line.startswith("-A ACNI_"))
    by_chain = groupby(rules, lambda line: line.split(" ")[1])
    return any(next(lines) == f"-A {chain}{_LET_PASS}" for chain, lines in by_chain)


def _meaning(text: str) -> Iterator[str]:
    """The rules that both releases spell alike; who has his queries captured stands among them."""
    table = ""
    for line in text.splitlines():
        table = line if line.startswith("*") else table
        if table != "*raw" and _MIDST not in line:
            yield line
