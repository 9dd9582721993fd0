"""Repairing what is amiss without being asked, where an agent is told to: `agent-cni repair --all` now and then, in a process of its own.

Who undoes it each time is not fought with: what was mended the last time too is left alone for twice as long, and named.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from cni import log
from cni.decoding import decoded
from cni.state.tally import MEND, counted

_LONG = 3600.0
#: Lines of what was mended that one line of the log has.
_MOST = 20


class Mender:
    """Of one node, every so many seconds; with a folder of configurations."""

    def __init__(self, every: float, folder: Path | None) -> None:
        self._every, self._pause = every, every
        self._next = time.monotonic() + every
        self._more = ["--conf-dir", str(folder)] if folder else []
        self._child, self._said = 0, -1
        self._before: set[str] = set()

    def look(self) -> None:
        """Start one when it is time, and tell what the last has done; asked as often as one likes."""
        if self._child and self._has_ended():
            self._tell()
        if not self._child and time.monotonic() >= self._next:
            self._start()

    def _start(self) -> None:
        self._said = os.memfd_create("repair")
        command = [sys.executable, "-I", "-m", "cni.command.main", "repair", "--all", "--json", *self._more]
        files = [(os.POSIX_SPAWN_DUP2, self._said, 1), (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)]
        self._child = os.posix_spawn(sys.executable, command, os.environ, file_actions=files, setsigmask=[])
        with suppress(OSError):  # calls go first
            os.setpriority(os.PRIO_PROCESS, self._child, 19)

    def _has_ended(self) -> bool:
        with suppress(ChildProcessError):
            return os.waitpid(self._child, os.WNOHANG)[0] != 0
        return True

    def _tell(self) -> None:
        outcomes = _read(self._said)
        self._child, self._said = 0, -1
        mended = {item["who"]: item["mended"] for item in outcomes if item["mended"]}
        again = {f"{who}: {line}" for who, lines in mended.items() for line in lines}
        fights = bool(again & self._before)
        self._pause = min(_LONG, 2 * self._pause) if fights else self._every
        self._next, self._before = time.monotonic() + self._pause, again
        for who, lines in mended.items():
            with counted("attachments", MEND):
                log.warning("guard", f"{who} was repaired", mended=lines[:_MOST])
        if fights:
            said = ", ".join(sorted(mended))
            log.warning("guard", f"what was repaired before is undone again ({said}): nothing for {self._pause:g} s")
        for item in outcomes:
            for left in item["left"]:
                log.event("guard", "REPAIR", who=item["who"], left=left["what"], mend=left["mend"])


def _read(said: int) -> list[dict[str, Any]]:
    """What a repair that has ended said; nothing where it was killed."""
    with open(said, "rb") as file:
        file.seek(0)
        with suppress(ValueError):
            found = decoded(file.read()).get("outcomes", [])
            return list(found)
    return []
