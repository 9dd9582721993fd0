"""How rtnetlink is asked: changes one by one or in a batch, questions, and dumps that are asked for again."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from cni.errors import KernelRefused, Unfinished
from cni.kernel.netlink.channel import Channel, DumpInterrupted

_DUMP_TRIES = 5


class Change(NamedTuple):
    """A request, what it is for, and each errno of a refusal that is none."""

    request: bytes
    what: str
    tolerated: tuple[int, ...]


class Handle:
    """One on the namespace this thread is in when it is opened. Whatever the kernel refuses is told with what it was for."""

    def __init__(self) -> None:
        self._channel = Channel()
        self._batch: list[Change] | None = None

    def close(self) -> None:
        """Close the socket."""
        self._channel.close()

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Changes asked for meanwhile, any number, go out together at the end; KernelRefused tells of the first refused."""
        changes: list[Change] = []
        self._batch = changes
        try:
            yield
        finally:
            self._batch = None
        self._ask_for(changes)

    def _change(self, request: bytes, what: str, *tolerated: int) -> None:
        """Ask for a change, now or with its batch."""
        change = Change(request, what, tolerated)
        if self._batch is None:
            self._ask_for([change])
        else:
            self._batch.append(change)

    def _removal(self, request: bytes, what: str, *absent: int) -> None:
        """Ask that something of a link be gone; what went with its link is, which the kernel may be about to take away while we ask."""
        self._change(request, what, errno.ENODEV, *absent)

    def _ask_for(self, changes: list[Change]) -> None:
        try:
            refusals = self._channel.refusals([change.request for change in changes])
        except Unfinished as unheard:
            raise Unfinished(f"{changes[0].what}: {unheard.msg}", unheard.errno) from None
        for change, error in zip(changes, refusals, strict=True):
            if error and error.errno not in change.tolerated:
                raise KernelRefused(f"{change.what}: {error.msg}", error.errno)

    def _create(self, create: bytes, finish: bytes, what: str) -> None:
        """Ask for a thing and for what it cannot be made with, in one system call: who is killed has asked for both, or for neither. Raises
        Unfinished where the thing is there, or may be.
        """
        try:
            refused, unfinished = self._channel.refusals([create, finish])
        except Unfinished as unheard:
            raise Unfinished(f"{what}: {unheard.msg}", unheard.errno) from None
        if error := refused or unfinished:
            raise (KernelRefused if refused else Unfinished)(f"{what}: {error.msg}", error.errno)

    def _question(self, request: bytes, what: str) -> bytes:
        """The one answer to a question."""
        try:
            return self._channel.question(request)
        except KernelRefused as error:
            raise KernelRefused(f"{what}: {error.msg}", error.errno) from None

    def _dump(self, request: bytes) -> list[bytes]:
        """What a dump has; one that a concurrent change interrupted is asked for again.

        ENOENT is an empty one: a namespace that never had a route has no main table yet.
        """
        for _ in range(_DUMP_TRIES):
            try:
                return self._channel.ask(request)
            except DumpInterrupted:
                continue
            except KernelRefused as error:
                if error.errno == errno.ENOENT:
                    return []
                raise KernelRefused(f"rtnetlink dump: {error.msg}", error.errno) from None
        raise KernelRefused(f"rtnetlink dump interrupted {_DUMP_TRIES} times", errno.EINTR)
