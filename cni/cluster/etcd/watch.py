"""What happens in etcd, told from a listing on, over whichever member is well."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing

from cni.cluster.etcd.gateway import At, Gateway, Row
from cni.cluster.etcd.items import told
from cni.cluster.etcd.keys import Keys, Range
from cni.cluster.etcd.listing import Listed, listed
from cni.cluster.model import Item
from cni.cluster.store import Change, Listing, Sparing
from cni.errors import Replaced, Unreachable
from cni.kernel.clock import boottime

_TRIED_AGAIN_AFTER = 0.2


class Watch:
    """One who is told. In silence the watch is made anew after `silence` seconds: it is answered by who is there."""

    def __init__(
        self, gateway: Gateway, keys: Keys, silence: float, seconds: float, sparing: Sparing | None = None
    ) -> None:
        self._gateway, self._keys = gateway, keys
        self._silence, self._seconds = silence, seconds
        self._span, self._sparing = keys.all(), sparing
        self._seen = At("", 0, 0)
        #: What was put last of all that was seen.
        self._last: Row | None = None

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
                if boottime() - heard > self._seconds:
                    raise
                time.sleep(_TRIED_AGAIN_AFTER)

    def _listing(self) -> Listing:
        """All that is to be heard; who only waits for changes does not keep it."""
        if self._sparing:
            self._span = self._keys.all_but_endpoints()
            rest = self._listed(self._span)
            if self._sparing.is_enough(rest.items):
                own = map(self._keys.endpoints, self._sparing.own_blocks(rest.items))
                return self._begun(rest, *(self._listed(span, rest.at.revision) for span in own))
        self._span = self._keys.all()
        return self._begun(self._listed(self._span))

    def _listed(self, span: Range, revision: int = 0) -> Listed:
        return listed(self._gateway, self._keys, span, revision, self._sparing and self._sparing.heard)

    def _begun(self, *parts: Listed) -> Listing:
        """What was listed at one revision, from which changes go on."""
        self._seen = parts[0].at
        self._last = max(filter(None, (part.last for part in parts)), key=lambda row: row.modified, default=None)
        items = tuple(item for part in parts for item in part.items)
        refused = tuple(line for part in parts for line in part.refused)
        return Listing(self._seen.revision, items, refused, origin=self._seen.cluster)

    def _heard(self, change: Change) -> Change:
        return change._replace(put=tuple(map(self._sparing.heard, change.put))) if self._sparing else change

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
                    yield self._heard(Change(revision, *told(self._keys, rows)))
                    rows = []

    def _is_the_same(self, at: At) -> None:
        """Raise Replaced where who answers does not go on from what was seen: another etcd, or one of an older backup.

        One that is behind catches up when it is asked for what is agreed on. One that was restored may have come as far again, and
        nobody need have heard of its end, a host's that lost its power: then what was put last was not put there, or something since.
        """
        same = at.follows(self._seen) or self._gateway.look(self._keys.all().first).at.follows(self._seen)
        if not (same and self._has_put_the_same()):
            raise Replaced("etcd is not as it was: it has been made anew, or is an older copy of itself")

    def _has_put_the_same(self) -> bool:
        """Whether, up to what was seen, what was heard last is what was put last."""
        last, seen = self._last, self._seen.revision
        if not last:
            return self._gateway.newest(self._span, seen) is None
        only = Range(last.key, last.key + b"\0")
        if self._gateway.newest(only, seen) != last != self._gateway.newest(only, last.modified):  # which is gone since
            return False
        newest = self._gateway.newest(self._span, seen) if last.modified < seen else None
        return newest is None or newest.modified <= last.modified
