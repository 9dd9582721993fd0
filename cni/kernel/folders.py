"""Folders that are held as a whole, by who works out of them."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STEP = 0.02  # between two tries, in seconds


@contextmanager
def unheld(path: Path, patience: float) -> Iterator[bool]:
    """Whether nobody has a folder open who said so by flock(2), after `patience` seconds at most; if so, nobody can begin to inside."""
    deadline = time.monotonic() + patience
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        while held := not _locked(fd):
            if time.monotonic() >= deadline:
                break
            time.sleep(_STEP)
        yield not held
    finally:
        os.close(fd)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
