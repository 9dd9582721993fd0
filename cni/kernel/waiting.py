"""Threads that wait for the kernel where a process that serves many calls need not. For its main thread only."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread

from cni.kernel.signals import uninterrupted

_MOST = 4


class Waiting:
    """A few at a time: where too many wait, the longest does so to its end first."""

    def __init__(self) -> None:
        self._threads: list[Thread] = []

    @property
    def pending(self) -> int:
        """How many the kernel keeps waiting."""
        return sum(thread.is_alive() for thread in self._threads)

    def begin(self, task: Callable[[], None], name: str) -> Thread:
        """Have a thread do it; where none can be started it is done when this returns."""
        self._threads = [thread for thread in self._threads if thread.is_alive()]  # as they began
        while len(self._threads) >= _MOST:
            self._threads.pop(0).join()
        thread = Thread(target=task, name=name)
        try:
            with uninterrupted():  # signals are the main thread's
                thread.start()
        except RuntimeError:
            task()
        else:
            self._threads.append(thread)
        return thread

    def end(self) -> None:
        """Wait for all of them."""
        while self._threads:
            self._threads.pop().join()
