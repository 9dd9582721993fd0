"""What the store says, heard for ever: a listing, its changes, and a listing again when the thread of changes is lost."""

from __future__ import annotations

import time
from collections.abc import Callable

from cni import log
from cni.cluster.store import Change, ClusterStore, Listing, Sparing
from cni.errors import Compacted, Forbidden, Replaced, Unreachable
from cni.member import figures
from cni.member.trouble import Trouble

#: A store that is away may be back any moment; what it forbids somebody has to allow.
_TRIED_AGAIN_AFTER, _FORBIDDEN_AT_MOST = 1.0, 30.0
#: After how many seconds it is not a moment any more, and the session would know of it.
_DEAF = 30.0


class Watcher:
    """Tells `heard` of it, in order, by a thread of its own; of endpoints as it is `sparing`. What `is_known` of the store being away is not told twice."""

    def __init__(
        self,
        store: ClusterStore,
        heard: Callable[[Listing | Change], None],
        is_known: Callable[[], bool],
        sparing: Sparing | None = None,
    ) -> None:
        self._store, self._sparing = store, sparing
        self._heard = heard
        self._is_known = is_known
        self._heard_at = time.monotonic()
        #: Whether the next listing is another store's than what was heard.
        self._is_replaced = False
        self._trouble = Trouble("watch")

    def run(self) -> None:
        """Listen, for ever."""
        pause = _TRIED_AGAIN_AFTER
        while True:
            try:
                self.listen()
            except Compacted as error:
                self._is_replaced |= isinstance(error, Replaced)
                figures.STORE_ERRORS.add(kind="compacted")
            except Unreachable as error:
                figures.STORE_ERRORS.add(kind="unreachable")
                self._say(error)
                pause = min(2 * pause, _FORBIDDEN_AT_MOST) if isinstance(error, Forbidden) else _TRIED_AGAIN_AFTER
                time.sleep(pause)

    def listen(self) -> None:
        """Listen once, until the store is heard no more. Raises Unreachable and Compacted."""
        for said in self._store.changes(self._sparing):
            self._trouble.over()
            self._heard_at = time.monotonic()
            figures.HEARD.now()
            news = self._judged(said) if isinstance(said, Listing) else said
            for line in news.refused:
                log.warning("member", line, verb="watch")
            figures.REFUSED.add(len(news.refused))
            self._heard(news)

    def _judged(self, listing: Listing) -> Listing:
        figures.LISTINGS.add()
        found = listing._replace(replaced=self._is_replaced)
        self._is_replaced = False
        return found

    def _say(self, error: Unreachable) -> None:
        if time.monotonic() - self._heard_at > _DEAF and not self._is_known():
            self._trouble.is_so(f"the cluster's store is not heard, though it answers: {error.msg}")
