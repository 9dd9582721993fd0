"""What a wire carries: frames on a link, collected while a `with` block runs."""

from __future__ import annotations

import ctypes
import select
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from lab import Namespace

ETH_P_ALL = 3


class Wire:
    """Frames seen on one link of a namespace."""

    def __init__(self, where: Namespace, link: str) -> None:
        self.frames: list[bytes] = []
        self.socket = _in_namespace(where, link)
        self.thread = threading.Thread(target=self._collect, daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.thread.join(0.2)  # what was sent last is still on its way
        self.done = True
        self.thread.join()
        self.socket.close()

    def carried(self, what: bytes) -> bool:
        """Whether any frame that was there by now contains these bytes."""
        until = time.monotonic() + 1  # a wire may never be still
        while (
            not self.done and time.monotonic() < until and (self._reads or select.select([self.socket], [], [], 0)[0])
        ):
            time.sleep(0.001)
        return any(what in frame for frame in self.frames)

    done, _reads = False, False

    def _collect(self) -> None:
        while not self.done:
            if select.select([self.socket], [], [], 0.05)[0]:
                self._reads = True
                self.frames.append(self.socket.recv(65535))
                self._reads = False
        self.socket.setblocking(False)
        with suppress(BlockingIOError):  # what waits to be read, which is less than this where the wire is never still
            for _ in range(10_000):
                self.frames.append(self.socket.recv(65535))


def _in_namespace(where: Namespace, link: str) -> socket.socket:
    """A packet socket opened in a namespace by a thread that enters it and ends."""
    made: list[socket.socket] = []

    def opened() -> None:
        with Path(where.path).open("rb") as netns:
            assert ctypes.CDLL(None).setns(netns.fileno(), 0x40000000) == 0
        made.append(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)))
        made[0].bind((link, 0))

    thread = threading.Thread(target=opened)
    thread.start()
    thread.join()
    return made[0]
