"""A datagram by which calls wake the member when they have written something for it: one byte, never waited for, and no loss when
it is lost, for the member looks again in a second anyway.
"""

from __future__ import annotations

import os
import select
import socket
from contextlib import suppress
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


class Bell:
    """Where the member is rung; one for a folder, the last that was hung there."""

    def __init__(self, folder: Path) -> None:
        """Hang it. Raises IoFailure."""
        self._path = folder / NAME
        self._socket = socket.socket(socket.AF_UNIX, _KIND)
        self._own, self._other = socket.socketpair(socket.AF_UNIX, _KIND)
        try:
            self._path.unlink(missing_ok=True)
            self._socket.bind(str(self._path))
            self._path.chmod(0o600)
        except OSError as error:
            self._socket.close()
            raise IoFailure(f"{self._path}: {error.strerror or error}") from None

    def close(self) -> None:
        """Take it down."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
        for one in (self._socket, self._own, self._other):
            one.close()

    def ring(self) -> None:
        """Ring it from another thread of this process."""
        with suppress(OSError):
            self._other.send(b"!")

    def wait(self, seconds: float) -> bool:
        """Wait until it is rung, or for so long. However often it was rung before, that is once."""
        heard = select.select([self._socket, self._own], [], [], seconds)[0]
        for one in heard:
            for _ in range(_MOST):
                try:
                    os.read(one.fileno(), 1)
                except OSError:
                    break
        return bool(heard)
