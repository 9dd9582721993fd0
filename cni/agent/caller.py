"""The launcher at the other end of a connection: who it is, what it hands over, and whether it still waits.

It is told TAKEN, answers GO, and gets EXIT with the exit code. Between GO and EXIT the connection stands for the
caller: when it closes, or asks to stop, the kernel sends SIGIO and the call is undone as a cold one that gets SIGTERM.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache

from cni.agent.request import MOST_BYTES, MOST_FDS, Refused, Request, read
from cni.kernel import signals
from cni.kernel.process import capabilities

_TAKEN, _EXIT = b"A", b"X"
_HANDSHAKE_SECONDS = 2.0
_CREDENTIALS = struct.Struct("3i")


class Caller:
    """One connection. Every method raises OSError where the other end is gone."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._late = False
        connection.settimeout(_HANDSHAKE_SECONDS)

    def request(self) -> Request:
        """What is asked, once the caller has said that it will not do it itself. Raises Refused."""
        self._refuse_stranger()
        packet, _, flags, _ = self._connection.recvmsg(MOST_BYTES)
        request = read(b"" if flags & socket.MSG_TRUNC else packet)
        self._connection.send(_TAKEN)
        request.equip(*socket.recv_fds(self._connection, MOST_FDS + 2, MOST_FDS)[:2])
        return request

    def answer(self, code: int) -> None:
        """Say the exit code, to whoever still wants to know."""
        with suppress(OSError):
            self._connection.send(_EXIT + bytes([code]))

    @contextmanager
    def minded(self, seconds: int) -> Iterator[None]:
        """End the call (KeyboardInterrupt) when the caller goes or asks to stop, and after `seconds`."""
        fd = self._connection.fileno()
        signals.heed(self.has_ended)
        fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        try:
            fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_ASYNC)
            signal.alarm(seconds)
            if self.has_ended():
                raise KeyboardInterrupt
            yield
        finally:
            signals.ignore()
            self._late = not signal.alarm(0)
            fcntl.fcntl(fd, fcntl.F_SETFL, flags)

    def has_ended(self) -> bool:
        """Whether the caller is gone or asked to stop, or its time is over."""
        return self._late or bool(select.select([self._connection], [], [], 0)[0])

    def _refuse_stranger(self) -> None:
        """Only who could do all this without us: our user, with every capability we have (capabilities(7))."""
        raw = self._connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, _ = _CREDENTIALS.unpack(raw)
        if uid != os.geteuid():
            raise Refused(f"user {uid} may not ask")
        if lacking := _own_capabilities() & ~capabilities(pid):
            raise Refused(f"process {pid} lacks capabilities {lacking:#x}")


@cache
def _own_capabilities() -> int:
    return capabilities(os.getpid())
