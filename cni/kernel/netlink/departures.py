"""Links that go: they are gone for everybody long before the kernel answers who deletes them.

When it gives rtnetlink's lock back, a link and its other end have no name any more, and who had something on them was told. Then
it waits until no processor looks at what is left of them, and answers (rcu_barrier in netdev_run_todo, net/core/dev.c): 10 to 30 ms
later. A process that serves many calls lets threads hear these answers.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import Protocol

from cni.errors import KernelRefused
from cni.kernel.kept import Kept
from cni.kernel.signals import uninterrupted
from cni.kernel.view import Link, LinkRef

_STEP = 0.0003  # seconds
_MOST = 4


class Links(Protocol):
    """What is asked of rtnetlink."""

    def link_ref(self, name: str) -> LinkRef | None:
        """A link that is found by its name, or None."""

    def delete_link(self, link: Link) -> None:
        """Delete a link. Raises KernelRefused."""

    def close(self) -> None:
        """Close the socket."""


class _Listener:
    """A socket, and the thread that waits for what the kernel says on it."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._thread = Thread()

    @property
    def waits(self) -> bool:
        return self._thread.is_alive()

    def begin(self, link: Link) -> Thread:
        def delete() -> None:
            with suppress(KernelRefused):  # who asks once more is refused, too
                self._links.delete_link(link)

        self._thread = Thread(target=delete, name=f"deletes {link.name}")
        with uninterrupted():  # signals are the main thread's
            self._thread.start()
        return self._thread

    def end(self) -> None:
        if self.waits:
            self._thread.join()

    def close(self) -> None:
        self.end()
        self._links.close()


class Departures(Kept):
    """Deletions that are waited for. Of a namespace whose sockets `opened` opens; for the main thread only."""

    def __init__(self) -> None:
        super().__init__()
        self._listeners: list[_Listener] = []

    @property
    def pending(self) -> int:
        """How many the kernel has not answered yet."""
        return sum(listener.waits for listener in self._listeners)

    def begin(self, link: Link, opened: Callable[[], Links]) -> Thread:
        """Have a link deleted; the thread that waits for it. Where too many wait, the longest does so to its end first."""
        if self.pending == len(self._listeners) < _MOST:
            self._listeners.append(_Listener(opened()))
        listener = next((item for item in self._listeners if not item.waits), self._listeners[0])
        self._listeners.remove(listener)
        self._listeners.append(listener)  # they stand in the order they began in
        listener.end()
        return listener.begin(link)

    def close(self) -> None:
        while self._listeners:
            self._listeners.pop().close()


departures = Departures()


def delete(link: Link, seen_by: Links, opened: Callable[[], Links]) -> None:
    """Return when a link is not found by its name any more, or its deletion has ended otherwise."""
    thread = departures.begin(link, opened)
    while seen_by.link_ref(link.name) == LinkRef(link.index, link.name) and thread.is_alive():
        thread.join(_STEP)
