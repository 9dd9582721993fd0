"""Following the node's configurations: when they change, tunnels and policies are made as they say now.

An edit would else wait for the next pod. `agent-cni refresh` does it, in a process of its own, as an operator would.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

_SUFFIXES = (".conf", ".conflist", ".json")  # what libcni reads
_SECONDS = 1.0


class Follower:
    """Of one folder. What is there when it begins is taken for done."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._done = self._seen = self._content()
        self._next = time.monotonic() + _SECONDS
        self._child = 0

    def look(self) -> None:
        """Start a refresh when files have changed and are at rest; asked as often as one likes, it looks once a second."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _SECONDS
        now, before, busy = self._content(), self._seen, self._is_at_it()
        self._seen = now
        if now == before and now != self._done and not busy:
            self._done = now
            self._child = self._refresh()

    def _content(self) -> list[tuple[str, int, int, int]]:
        found = []
        with suppress(OSError), os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.endswith(_SUFFIXES):
                    status = entry.stat()
                    found.append((entry.name, status.st_ino, status.st_mtime_ns, status.st_size))
        return sorted(found)

    def _is_at_it(self) -> bool:
        with suppress(ChildProcessError):
            if self._child and os.waitpid(self._child, os.WNOHANG)[0] == 0:
                return True
        self._child = 0
        return False

    def _refresh(self) -> int:
        """What it complains of goes where our own complaints go."""
        command = [sys.executable, "-I", sys.argv[0], "refresh", "--conf-dir", str(self._folder)]
        quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
        return os.posix_spawn(sys.executable, command, os.environ, file_actions=quiet, setsigmask=[])
