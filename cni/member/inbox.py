"""What the threads that wait have for the one hand that changes the kernel."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from threading import Condition, Thread
from typing import NamedTuple

from cni.cluster.store import Change, Listing
from cni.errors import Internal

#: News beyond which who brings more waits: the store's own buffers hold them, then.
_MOST = 64


class Ended(Exception):
    """The member is to end, and all is well."""


class Brought(NamedTuple):
    """News in their order; whether this host's own state may have changed, or the kernel. `since` is when the first of the news was
    brought (time.monotonic).
    """

    news: tuple[Listing | Change, ...]
    look: bool
    since: float = 0.0


class Inbox:
    """News in their order, as many as the hand can take; what is to be looked at, once however often; and the end."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._news: deque[Listing | Change] = deque()
        self._look = False
        self._since = 0.0
        self._end: BaseException | None = None

    def put(self, news: Listing | Change) -> None:
        """Bring news; waits while there are too many."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._news) < _MOST)
            self._since = self._since if self._news else time.monotonic()
            self._news.append(news)
            self._changed.notify_all()

    def look(self) -> None:
        """Have the state looked at."""
        with self._changed:
            self._look = True
            self._changed.notify_all()

    def end(self, why: BaseException) -> None:
        """Have the hand stop, by raising this."""
        with self._changed:
            self._end = self._end or why
            self._changed.notify_all()

    def take(self, seconds: float) -> Brought:
        """All there is, or what comes first in so many seconds, which may be nothing. Raises what ends the hand."""
        with self._changed:
            self._changed.wait_for(lambda: self._news or self._look or self._end, seconds)
            if self._end:
                raise self._end
            brought = Brought(tuple(self._news), self._look, self._since)
            self._look = False
            self._news.clear()
            self._changed.notify_all()
            return brought

    def rest(self, seconds: float) -> None:
        """Wait, and take nothing. Raises what ends the hand."""
        with self._changed:
            self._changed.wait_for(lambda: self._end, seconds)
            if self._end:
                raise self._end


def started(name: str, work: Callable[[], None], inbox: Inbox) -> Thread:
    """A thread that works for as long as the process lives: when it ends, for whatever reason, so does the hand."""

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - told by the main thread, which is the only catcher
            inbox.end(error)
        else:
            inbox.end(Internal(f"the member's {name} thread ended"))

    thread = Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread
