"""How rtnetlink is asked: changes one by one or together, questions, and dumps that are asked for again."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cni.errors import KernelRefused, Unfinished
from cni.kernel.channel import Channel, DumpInterrupted
from cni.kernel.codec import decoded

_DUMP_TRIES = 5


class Conversation:
    """One with the namespace this thread is in when it begins. Whatever the kernel refuses is told with what it was for."""

    def __init__(self) -> None:
        self._channel = Channel()
        self._wanted: list[tuple[bytes | bytearray, str, int | None]] = []
        self._gathering = False

    def close(self) -> None:
        """Close the socket."""
        self._channel.close()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Changes asked for meanwhile go out in one system call at the end; KernelRefused tells of the first refused."""
        self._gathering = True
        try:
            yield
            self._ask_for_wanted()
        finally:
            self._gathering = False
            self._wanted.clear()

    def _change(self, request: bytes | bytearray, what: str, tolerate: int | None = None) -> None:
        """Ask for a change, now or together with others; a refusal with the errno `tolerate` is none."""
        self._wanted.append((request, what, tolerate))
        if not self._gathering:
            self._ask_for_wanted()

    def _ask_for_wanted(self) -> None:
        wanted, self._wanted = self._wanted, []
        try:
            refusals = self._channel.refusals([request for request, _, _ in wanted])
        except Unfinished as unheard:
            raise Unfinished(f"{wanted[0][1]}: {unheard.msg}", unheard.errno) from None
        for (_, what, tolerate), error in zip(wanted, refusals, strict=True):
            if error and error.errno != tolerate:
                raise KernelRefused(f"{what}: {error.msg}", error.errno)

    def _question(self, request: bytes | bytearray, what: str) -> bytes:
        """The one answer to a question."""
        try:
            return self._channel.question(request)
        except KernelRefused as error:
            raise KernelRefused(f"{what}: {error.msg}", error.errno) from None

    def _dump(self, subject: int, ask: Any, *of: Any, taken: Callable[[bytes], bool] = bool) -> list[Any]:
        """What a dump has that is `taken`, as pyroute2 reads it."""
        return [decoded(subject, answer) for answer in self._answers(ask, *of) if taken(answer)]

    def _answers(self, ask: Any, *of: Any) -> list[bytes]:
        """What a dump has; one that a concurrent change interrupted is asked for again."""
        for _ in range(_DUMP_TRIES):
            try:
                return self._channel.ask(ask(*of))
            except DumpInterrupted:
                continue
            except KernelRefused as error:
                raise KernelRefused(f"rtnetlink dump: {error.msg}", error.errno) from None
        raise KernelRefused(f"rtnetlink dump interrupted {_DUMP_TRIES} times", errno.EINTR)
