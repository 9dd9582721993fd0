"""The other side of the process that sends spans, or flows: it is started, started again when it dies, and ended last."""

from __future__ import annotations

import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

from cni.agent.sending import POINTLESS, SPANS
from cni.agent.spans import Spans

#: Between two starts, and how long what waits may take to be sent at the end, in seconds.
_AGAIN, _FAREWELL, _STEP = 10.0, 2.0, 0.01


class Exporter:
    """By an agent's settings; `spans` is for its workers, and each step is one where `steps` are wanted. With `what` it sends flows.

    Who reads has an end of a socket pair that is kept here too: what waits in it outlives him.
    """

    def __init__(self, settings: Path, *, steps: bool = False, what: str = SPANS) -> None:
        self._settings, self._what = settings, what
        self._out, self._into = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._into.setblocking(False)
        self.spans = Spans(self._into, steps=steps)
        self._child, self._next = 0, 0.0
        self._is_pointless = False

    def look(self) -> None:
        """Have it run; asked as often as one likes, it is started at most every ten seconds."""
        if self._has_ended() and not self._is_pointless and time.monotonic() >= self._next:
            self._next = time.monotonic() + _AGAIN
            self._child = self._started()

    def hand_over(self, packet: bytes) -> bool:
        """Have it send something; not where it is behind, or what waits would be too much."""
        with suppress(OSError):
            self._into.send(packet)
            return True
        return False

    def end(self) -> None:
        """Have it send what waits, for which it has a moment; once no worker is left that could hand over anything."""
        self._into.close()
        self._out.close()
        until = time.monotonic() + _FAREWELL
        while not self._has_ended() and time.monotonic() < until:
            time.sleep(_STEP)
        if self._child:
            os.kill(self._child, 9)
            os.waitpid(self._child, 0)

    def _has_ended(self) -> bool:
        if self._child:
            with suppress(ChildProcessError):
                pid, status = os.waitpid(self._child, os.WNOHANG)
                if not pid:
                    return False
                self._is_pointless = os.waitstatus_to_exitcode(status) == POINTLESS
        self._child = 0
        return True

    def _started(self) -> int:
        command = [sys.executable, "-I", "-m", "cni.agent.sending", str(self._settings), self._what]
        files = [
            (os.POSIX_SPAWN_DUP2, self._out.fileno(), 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        ]
        # a terminal's Ctrl-C is for the agent: this ends after it
        return os.posix_spawn(sys.executable, command, os.environ, file_actions=files, setsigmask=[], setpgroup=0)
