"""Links that go: they are gone for everybody long before the kernel answers who deletes them.

When it gives rtnetlink's lock back, a link and its other end have no name any more, and who had something on them was told. Then
it waits until no processor looks at what is left of them, and answers (rcu_barrier in netdev_run_todo, net/core/dev.c): 10 to 30 ms
later. A process that serves many calls lets threads hear these answers.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from cni.errors import KernelRefused
from cni.kernel.kept import Kept
from cni.kernel.view import Link, LinkRef
from cni.kernel.waiting import Waiting

if TYPE_CHECKING:
    from threading import Thread

_STEP = 0.0003  # seconds


class Links(Protocol):
    """What is asked of rtnetlink."""

    def link_ref(self, name: str) -> LinkRef | None:
        """A link that is found by its name, or None."""

    def delete_link(self, link: Link) -> None:
        """Delete a link. Raises KernelRefused."""

    def close(self) -> None:
        """Close the socket."""


class Departures(Kept):
    """Deletions that are waited for, each by a thread and on a socket of its own; for the main thread only. Sockets of the node's
    namespace are used again.
    """

    def __init__(self) -> None:
        super().__init__()
        self._waiting = Waiting()
        self._spare: list[Links] = []

    @property
    def pending(self) -> int:
        """How many the kernel has not answered yet."""
        return self._waiting.pending

    def begin(self, link: Link, opened: Callable[[], Links], *, of_node: bool = True) -> Thread:
        """Have a link deleted; the thread that waits for it. What `opened` opens for a pod's namespace, which it keeps alive, is
        closed with the answer.
        """
        links = self._spare.pop() if of_node and self._spare else opened()

        def delete() -> None:
            with suppress(KernelRefused):  # who asks once more is refused, too
                links.delete_link(link)
            if of_node:
                self._spare.append(links)
            else:
                links.close()

        return self._waiting.begin(delete, f"deletes {link.name}")

    def close(self) -> None:
        self._waiting.end()
        while self._spare:
            self._spare.pop().close()


departures = Departures()


def delete(link: Link, seen_by: Links, opened: Callable[[], Links], *, of_node: bool = True) -> None:
    """Return when a link is not found by its name any more, or its deletion has ended otherwise."""
    thread = departures.begin(link, opened, of_node=of_node)
    while seen_by.link_ref(link.name) == LinkRef(link.index, link.name) and thread.is_alive():
        thread.join(_STEP)
