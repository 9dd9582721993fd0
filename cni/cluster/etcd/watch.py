"""What happens in etcd, told from a listing on, over whichever member is well."""

from __future__ import annotations

import time
from collections.abc import Iterator

from cni.cluster.etcd.gateway import At, Gateway, Row
from cni.cluster.etcd.items import told
from cni.cluster.etcd.keys import Keys, Range
from cni.cluster.store import Change, Listing
from cni.errors import Compacted, Unreachable
from cni.kernel.clock import boottime

_PAGE = 500
#: A listing that is overtaken by compactions begins anew, but not for ever.
_LISTINGS = 3
_TRIED_AGAIN_AFTER = 0.2


def rows_of(gateway: Gateway, span: Range, page: int = _PAGE) -> tuple[At, list[Row]]:
    """All rows of a range, at one revision. Raises Unreachable."""
    for _ in range(_LISTINGS):
        try:
            at, rows, more = gateway.page(span, page, 0)
            while more:
                _, some, more = gateway.page(Range(rows[-1].key + b"\0", span.end), page, at.revision)
                rows += some
        except Compacted:
            continue
        return at, rows
    raise Unreachable("etcd forgets what was faster than it can be listed")


class Watch:
    """One who is told. In silence the watch is made anew after `silence` seconds: it is answered by who is there."""

    def __init__(self, gateway: Gateway, keys: Keys, silence: float, seconds: float) -> None:
        self._gateway, self._keys = gateway, keys
        self._silence, self._seconds = silence, seconds
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
                for change in self._changes():
                    yield change
                    heard = boottime()
            except Unreachable:  # another member may be well
                self._broke = True
                if boottime() - heard > self._seconds:
                    raise
                time.sleep(_TRIED_AGAIN_AFTER)

    def _listing(self) -> Listing:
        """All there is; who only waits for changes does not keep it."""
        self._seen, rows = rows_of(self._gateway, self._keys.all())
        self._last = max(rows, key=lambda row: row.modified, default=None)
        found = told(self._keys, rows)
        return Listing(self._seen.revision, found.items, found.refused)

    def _changes(self) -> Iterator[Change]:
        """Those of one watch, at whose beginning it is known that nothing is missed."""
        rows: list[Row | bytes] = []
        with self._gateway.watch(self._keys.all(), self._seen.revision + 1, self._silence) as messages:
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
        """Raise Compacted where who answers does not go on from what was seen: another etcd, or one of an older backup.

        One that is behind catches up when it is asked for what is agreed on. One that was restored may have come as far again:
        then what was put last was not put there.
        """
        same = at.follows(self._seen) or self._gateway.look(self._keys.all().first).at.follows(self._seen)
        if same and self._broke and self._last:
            span = Range(self._last.key, self._last.key + b"\0")
            _, rows, _ = self._gateway.page(span, 1, self._last.modified)
            same = [row.modified for row in rows] == [self._last.modified]
        if not same:
            raise Compacted("etcd is not as it was: it has been made anew, or is an older copy of itself")
        self._broke = False
