"""Who writes the state of a folder, in line: of many who wait for SQLite each looks now and then, and has it who looks at the right time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

from cni.kernel.locks import LockFile
from cni.naming import digest_of
from cni.state import uses
from cni.state.file import StateFile


class Writers(StateFile):
    """What is done to it by one at a time, first come, first served."""

    @cached_property
    def lock(self) -> LockFile:
        """The node's locks, the same whatever folder the state is in."""
        return LockFile(uses.node_lock())

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """See StateFile. The line is before SQLite's own lock, which others than calls may hold."""
        if self._db.in_transaction or not self.place:
            with super().transaction():
                yield
            return
        turn = self.lock.exclusive(digest_of(f"writing {self.place}"), f"the state in {self.path}", self.patience)
        with turn, super().transaction():
            yield
