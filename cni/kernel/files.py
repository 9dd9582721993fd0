"""Files and locks: the only place that knows fcntl."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cni.errors import TryAgainLater

#: Bounded wait for a lock, in seconds; a runtime repeats the call after code 11.
PATIENCE = 30.0

_STEP = 0.005
_OURS = ("state.db", "lock", "agent.sock")
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


class LockFile:
    """One file whose bytes are locks, so locking leaves nothing behind to clean up.

    Byte 0 is the node: every call that changes the kernel shares it. Every other byte is one
    attachment. The locks belong to the open file (fcntl(2), "Open file description locks"), so
    they hold between the threads of one process too, and end with the process.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def close(self) -> None:
        """Give up every lock held through this object."""
        os.close(self._fd)

    @contextmanager
    def exclusive(self, digest: str, what: str, patience: float = PATIENCE) -> Iterator[None]:
        """Hold the byte of one attachment. Raises TryAgainLater when the wait is over."""
        offset = 1 + int(digest[:15], 16)
        _waited(lambda: self._try(fcntl.F_WRLCK, offset), what, patience)
        try:
            yield
        finally:
            self._try(fcntl.F_UNLCK, offset)

    def share_node(self, patience: float = PATIENCE) -> None:
        """Hold the node's byte together with other calls, until `close`."""
        _waited(lambda: self._try(fcntl.F_RDLCK, 0), "the node", patience)

    def alone(self) -> bool:
        """Whether no other call shares the node; if so, none can begin before `close`."""
        return self._try(fcntl.F_WRLCK, 0)

    def _try(self, kind: int, offset: int) -> bool:
        request = struct.pack("hhqqi4x", kind, os.SEEK_SET, offset, 1, 0)
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, request)
        except BlockingIOError:
            return False
        return True


def private_folder(path: Path) -> Path:
    """Make a folder only root may enter (0700), with its parents.

    One that is there is closed to others only if nothing else is in it. Raises PermissionError where others may write
    into one that holds more: what they put there would be taken for ours.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        path.mkdir(parents=True, exist_ok=True, mode=0o755)
        mode = path.stat().st_mode
    if not stat.S_ISDIR(mode):
        raise NotADirectoryError(errno.ENOTDIR, "Not a directory", str(path))
    if mode & 0o077 and all(item.name.startswith(_OURS) for item in path.iterdir()):
        path.chmod(0o700)
    elif mode & 0o022:
        raise PermissionError(errno.EACCES, "others may write into it", str(path))
    return path


def exchanged(new: Path, path: Path) -> None:
    """Give a path to something new in one step (renameat2(2), RENAME_EXCHANGE); what was there gets the other name."""
    if not path.exists():
        new.rename(path)
        return
    import ctypes  # of no use to a call

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(path), _RENAME_EXCHANGE):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))


def _waited(attempt: Callable[[], bool], what: str, patience: float) -> None:
    deadline = time.monotonic() + patience
    while not attempt():
        if time.monotonic() >= deadline:
            raise TryAgainLater(f"another call holds {what} for more than {patience:g} s")
        time.sleep(_STEP)
