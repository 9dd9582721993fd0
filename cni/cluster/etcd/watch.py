"""What happens in etcd, told from a listing on, over whichever member is well."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing

from cni.cluster.etcd.gateway import At, Gateway, Row
from cni.cluster.etcd.items import told
from cni.cluster.etcd.keys import Keys, Range
from cni.cluster.model import Item
from cni.cluster.store import Change, Listing, Sparing
from cni.errors import Compacted, Replaced, Unreachable
from cni.kernel.clock import boottime

_PAGE = 500
#: A listing that is overtaken by compactions begins anew, but not for ever.
_LISTINGS = 3
_TRIED_AGAIN_AFTER = 0.2


def rows_of(gateway: Gateway, span: Range, page: int = _PAGE, revision: int = 0) -> tuple[At, list[Row]]:
    """All rows of a range, at one revision (0 is now). Raises Unreachable, and Compacted of a revision that is not known any more."""
    for _ in range(_LISTINGS):
        try:
            at, rows, more = gateway.page(span, page, revision)
            while more:
                _, some, more = gateway.page(Range(rows[-1].key + b"\0", span.end), page, at.revision)
                rows += some
        except Compacted:
            if revision:
                raise
            continue
        return at, rows
    raise Unreachable("etcd forgets what was faster than it can be listed")


class Watch:
    """One who is told. In silence the watch is made anew after `silence` seconds: it is answered by who is there."""

    def __init__(
        self, gateway: Gateway, keys: Keys, silence: float, seconds: float, sparing: Sparing | None = None
    ) -> None:
        self._gateway, self._keys = gateway, keys
        self._silence, self._seconds = silence, seconds
        self._span, self._sparing = keys.all(), sparing
        self._seen = At("", 0, 0)
        #: What was put last of all that was seen, and whether who answers next may be another etcd.
        self._last: Row | None = None
        self._broke = False

    def told(self) -> Iterator[Listing | Change]:
        """A Listing, and every Change. Raises Unreachable, and Compacted."""
        yield self._listing()
        heard = boottime()
        while True:
            try:
                with closing(self._changes()) as changes:
                    for change in changes:
                        is_enough = self._is_enough(change.put)
                        yield change if is_enough else self._listing()
                        heard = boottime()
                        if not is_enough:
                            break
            except Unreachable:  # another member may be well
                self._broke = True
                if boottime() - heard > self._seconds:
                    raise
                time.sleep(_TRIED_AGAIN_AFTER)

    def _listing(self) -> Listing:
        """All that is to be heard; who only waits for changes does not keep it."""
        self._span = self._keys.all_but_endpoints() if self._sparing else self._keys.all()
        self._seen, rows = rows_of(self._gateway, self._span)
        items = told(self._keys, rows).items if self._sparing else ()
        if not self._is_enough(items):
            self._span = self._keys.all()
            self._seen, rows = rows_of(self._gateway, self._span)
        elif self._sparing:
            for block in self._sparing.own_blocks(items):
                rows += rows_of(self._gateway, self._keys.endpoints(block), revision=self._seen.revision)[1]
        found = told(self._keys, rows)
        self._last = max(rows, key=lambda row: row.modified, default=None)
        return Listing(self._seen.revision, found.items, found.refused, origin=self._seen.cluster)

    def _is_enough(self, items: Iterable[Item]) -> bool:
        """Whether what is heard is all that is needed."""
        return not self._sparing or self._span == self._keys.all() or self._sparing.is_enough(items)

    def _changes(self) -> Generator[Change, None, None]:
        """Those of one watch, at whose beginning it is known that nothing is missed."""
        rows: list[Row | bytes] = []
        with self._gateway.watch(self._span, self._seen.revision + 1, self._silence) as messages:
            for number, message in enumerate(messages):
                if not number:
                    self._is_the_same(message.at)
                rows += message.rows
                if not message.more:
                    self._last = next((row for row in reversed(rows) if isinstance(row, Row)), self._last)
                    revision = message.revision or self._seen.revision
                    self._seen = At(message.at.cluster, max(message.at.term, self._seen.term), revision)
                    yield Change(revision, *told(self._keys, rows))
                    rows = []

    def _is_the_same(self, at: At) -> None:
        """Raise Replaced where who answers does not go on from what was seen: another etcd, or one of an older backup.

        One that is behind catches up when it is asked for what is agreed on. One that was restored may have come as far again:
        then what was put last was not put there.
        """
        same = at.follows(self._seen) or self._gateway.look(self._keys.all().first).at.follows(self._seen)
        if same and self._broke and self._last:
            span = Range(self._last.key, self._last.key + b"\0")
            _, rows, _ = self._gateway.page(span, 1, self._last.modified)
            same = [row.modified for row in rows] == [self._last.modified]
        if not same:
            raise Replaced("etcd is not as it was: it has been made anew, or is an older copy of itself")
        self._broke = False
