"""The launcher at the other end of a connection: what it hands over, what it prints for us, and whether it still waits.

It is told TAKEN, answers GO, and gets EXIT with the exit code. With EXIT goes the document it is to print, whole; it answers
PRINTED with 0, or the errno of what hinders it, and EXIT follows again. Between GO and the last EXIT the connection stands
for the caller: when it closes, or asks to stop, the kernel sends SIGIO and the call is undone as a cold one that gets SIGTERM.
"""

from __future__ import annotations

import _thread
import fcntl
import os
import select
import signal
import socket
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

from cni.agent.peer import Peer
from cni.agent.request import MOST_BYTES, MOST_FDS, Request, read
from cni.kernel import signals
from cni.kernel.errand import MARK

_TAKEN, _EXIT, _STOP, _PRINTED = b"A", b"X", b"S", b"P"
_HANDSHAKE_SECONDS = 2.0
#: fcntl(2): SIGIO is held back by thread, so it is to come to the one that serves the call, whatever others a process has.
_F_SETOWN_EX, _F_OWNER_TID, _OWNER = 15, 0, struct.Struct("2i")
#: Of a document; a larger one goes as a file, because a packet has its bounds (net.core.wmem_default).
_PACKET_BYTES = 32 << 10


class Caller:
    """One connection. Every method raises OSError where the other end is gone."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._late = False
        self._stopped = False
        connection.settimeout(_HANDSHAKE_SECONDS)

    def errand(self) -> bytes | None:
        """What somebody asks who may do less than we, but is of our user; None of who makes a call. Raises Refused."""
        if self._connection.recv(len(MARK), socket.MSG_PEEK) != MARK:
            return None
        with closing(Peer(self._connection)) as peer:
            peer.refuse_others()
        return self._connection.recv(MOST_BYTES)[len(MARK) :]

    def answer(self, said: bytes) -> None:
        """Answer an errand."""
        self._connection.send(said)

    def request(self) -> Request:
        """What is asked, once the caller has said that it will not do it itself. Raises Refused."""
        with closing(Peer(self._connection)) as peer:
            peer.refuse_lesser()
            packet, _, flags, _ = self._connection.recvmsg(MOST_BYTES)
            request = read(b"" if flags & socket.MSG_TRUNC else packet)
            peer.refuse_elsewhere(request.paths, request.environ.get("CNI_NETNS", ""))
            peer.refuse_untimely()
            self._connection.send(_TAKEN)
            request.equip(*peer.heard(MOST_FDS + 2))
        self._connection.settimeout(None)
        return request

    def print(self, code: int, document: bytes) -> None:
        """Have a document printed, whole, and the call end with `code` then. Raises OSError where stdout does not take it.

        From then on no signal ends the call.
        """
        with signals.uninterrupted():
            if len(document) > _PACKET_BYTES:
                self._send_file(code, document)
            else:
                self._connection.send(_exit(code) + document)
            answer = self._connection.recv(2)
            while answer == _STOP:
                self._stopped = True
                answer = self._connection.recv(2)
            if answer[:1] != _PRINTED or len(answer) != 2:
                raise ConnectionResetError(None, "the launcher is gone")
            if answer[1]:
                raise OSError(answer[1], os.strerror(answer[1]))
            signals.ignore()

    def end(self, code: int) -> None:
        """Say that the call is over, and its exit code where nothing was printed, to whoever still wants to know."""
        with suppress(OSError):
            self._connection.send(_exit(code))

    @contextmanager
    def watched(self, seconds: int) -> Iterator[None]:
        """End the call (KeyboardInterrupt) when the caller goes or asks to stop, and after `seconds`."""
        fd = self._connection.fileno()
        signals.handle(self.has_ended)
        fcntl.fcntl(fd, _F_SETOWN_EX, _OWNER.pack(_F_OWNER_TID, _thread.get_native_id()))
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        try:
            fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_ASYNC)
            signal.alarm(seconds)
            if self.has_ended():  # what came before O_ASYNC sent no signal
                raise KeyboardInterrupt
            yield
        finally:
            signals.ignore()
            self._late = not signal.alarm(0)  # nothing was left of its time: it has rung
            fcntl.fcntl(fd, fcntl.F_SETFL, flags)

    def has_ended(self) -> bool:
        """Whether the caller is gone or asked to stop, or its time is over."""
        if self._late or self._stopped:
            return True
        if not select.select([self._connection], [], [], 0)[0]:
            return False
        try:
            return self._connection.recv(1, socket.MSG_PEEK) != _PRINTED
        except ConnectionError:
            return True

    def _send_file(self, code: int, document: bytes) -> None:
        fd = os.memfd_create("document")
        with open(fd, "wb") as file:  # noqa: PTH123 - it has no path
            file.write(document)
            file.seek(0)
            socket.send_fds(self._connection, [_exit(code)], [fd])


def _exit(code: int) -> bytes:
    return _EXIT + bytes([code])
