"""A datagram by which calls wake the member when they have written something for it: one byte, never waited for, and no loss when
it is lost, for the member looks again in a second anyway.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cni.errors import IoFailure

#: What it is called in the folder of the state that was written to.
NAME = "member.sock"

_KIND = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
_MOST = 64


def ring(folder: Path) -> None:
    """Wake the member of a state folder, if there is one."""
    with suppress(OSError), socket.socket(socket.AF_UNIX, _KIND) as caller:
        caller.sendto(b"!", f"{folder}/{NAME}")


#: Whom a call has something for that can wait for its answer; None where nobody waits for one.
_answering: list[Path] | None = None


def ring_later(folder: Path) -> None:
    """The same when the call is answered, or now where that is not told apart: who is woken takes the caller's processor first."""
    if _answering is None:
        ring(folder)
    else:
        _answering.append(folder)


@contextmanager
def answering() -> Iterator[None]:
    """While a call is answered; for a process that serves one at a time."""
    global _answering  # noqa: PLW0603 - as signals are, the process's own
    _answering = []
    try:
        yield
    finally:
        folders, _answering = dict.fromkeys(_answering), None
        for folder in folders:
            ring(folder)


class Bell:
    """Where the member is rung; one for a folder, the last that was hung there. One that somebody took down is hung again."""

    def __init__(self, folder: Path) -> None:
        """Hang it. Raises IoFailure."""
        self._path = folder / NAME
        self._own, self._other = socket.socketpair(socket.AF_UNIX, _KIND)
        self._place: tuple[int, int] | None = None
        self._socket = self._hung()

    def close(self) -> None:
        """Take it down."""
        if self._is_hanging():
            self._path.unlink(missing_ok=True)
        for one in (self._socket, self._own, self._other):
            one.close()

    def ring(self) -> None:
        """Ring it from another thread of this process."""
        with suppress(OSError):
            self._other.send(b"!")

    def wait(self, seconds: float) -> bool:
        """Wait until it is rung, or for so long. However often it was rung before, that is once. Raises IoFailure."""
        if not self._is_hanging():
            self._socket.close()
            self._socket = self._hung()
        heard = select.select([self._socket, self._own], [], [], seconds)[0]
        for one in heard:
            for _ in range(_MOST):
                try:
                    os.read(one.fileno(), 1)
                except OSError:
                    break
        return bool(heard)

    def _hung(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, _KIND)
        try:
            self._path.unlink(missing_ok=True)
            made.bind(str(self._path))
            self._path.chmod(0o600)
            self._place = self._where()
        except OSError as error:
            made.close()
            raise IoFailure(f"{self._path}: {error.strerror or error}") from None
        return made

    def _is_hanging(self) -> bool:
        return self._place is not None and self._where() == self._place

    def _where(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino
