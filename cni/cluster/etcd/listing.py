"""All that is in a range of etcd, a page at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from cni.cluster.etcd.gateway import At, Gateway, Row
from cni.cluster.etcd.items import told
from cni.cluster.etcd.keys import Keys, Range
from cni.cluster.model import Item
from cni.errors import Compacted, Unreachable

_PAGE = 500
#: A listing that is overtaken by compactions begins anew, but not for ever.
_LISTINGS = 3


class Listed(NamedTuple):
    """What a range holds, and the row that was put last of all."""

    at: At
    items: list[Item]
    refused: list[str]
    last: Row | None


def listed(
    gateway: Gateway, keys: Keys, span: Range, revision: int = 0, heard: Callable[[Item], Item] | None = None
) -> Listed:
    """All of a range, at one revision (0 is now); what is `heard` of each item. Raises Unreachable, and Compacted of a revision that is
    not known any more.

    A page is read before the next is asked for: rows and their JSON are several times what is made of them.
    """
    for _ in range(_LISTINGS):
        items, refused, last = list[Item](), list[str](), list[Row]()
        begins, at, more = span, At("", 0, revision), True
        try:
            while more:
                answered, rows, more = gateway.page(begins, _PAGE, at.revision)
                at = at if at.cluster else answered
                if (more and not rows) or (rows and rows[-1].key < begins.first):
                    raise Unreachable("etcd does not go on in its list")
                found = told(keys, rows)
                items += map(heard, found.items) if heard else found.items
                refused += found.refused
                last = [max([*last, *rows], key=lambda row: row.modified)] if rows else last
                begins = Range(rows[-1].key + b"\0", span.end) if rows else span
        except Compacted:
            if revision:
                raise
            continue
        return Listed(at, items, refused, last[0] if last else None)
    raise Unreachable("etcd forgets what was faster than it can be listed")
