"""Which files of folders became others, told by the kernel (inotify(7)) when who writes one closes it."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import stat
import struct
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from cni.errors import KernelRefused

_EVENT = struct.Struct("=iIII")
_ATTRIB, _CLOSE_WRITE = 0x4, 0x8
_MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x40, 0x80, 0x100, 0x200
_DELETE_SELF, _MOVE_SELF, _UNMOUNT, _OVERFLOW, _IGNORED = 0x400, 0x800, 0x2000, 0x4000, 0x8000
_ONLYDIR = 0x01000000
_MASK = _ATTRIB | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF | _MOVE_SELF | _ONLYDIR
_BUFFER = 1 << 16
#: For how many seconds a file that came was not written to before it is taken to be whole.
_AT_REST = 1.0


class Noticed(NamedTuple):
    """Something about a folder: a file in it by its `name`, or, without one, anything: it is to be looked at as a whole."""

    folder: Path
    name: str = ""


class Folders:
    """The folders that are watched. One that is not there, or goes, is watched when it is there again by `watch`."""

    def __init__(self) -> None:
        """Watch none yet. Raises KernelRefused."""
        self._fd = _checked(_libc().inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._by_watch: dict[int, Path] = {}
        #: Which folder is at a path while it is watched.
        self._places: dict[Path, tuple[int, int] | None] = {}
        #: Files that came, since when each is as it is, and how: who writes one closes it, and who linked one does not.
        self._coming: dict[Noticed, tuple[float, object]] = {}

    def fileno(self) -> int:
        """What can be read when something happened."""
        return self._fd

    def close(self) -> None:
        """Watch none any more."""
        os.close(self._fd)

    def watch(self, folders: Iterable[Path]) -> list[Path]:
        """Watch these, and no others: those that were not watched before, or at whose path is another folder by now, which the kernel
        does not tell: they are to be looked at once from now on.

        Raises KernelRefused where there can be no more watches.
        """
        wanted = {folder: _place(folder) for folder in folders}
        same = {folder for folder, place in wanted.items() if self._places.get(folder) == place}
        self._places = wanted
        for watch in [watch for watch, folder in self._by_watch.items() if folder not in same]:
            _libc().inotify_rm_watch(self._fd, watch)
            del self._by_watch[watch]
        new = []
        for folder in sorted(wanted.keys() - set(self._by_watch.values())):
            watch = _libc().inotify_add_watch(self._fd, os.fsencode(folder), _MASK)
            if watch >= 0:
                self._by_watch[watch] = folder
                new.append(folder)
            elif (number := ctypes.get_errno()) not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP):
                raise KernelRefused(f"inotify: {folder}: {os.strerror(number)}", number)
        return new

    def wait(self, seconds: float) -> list[Noticed]:
        """Wait for something to happen, or for so long; what did, each once, in order."""
        found = list[Noticed]()
        if select.select([self._fd], [], [], seconds)[0]:
            with suppress(BlockingIOError):
                while True:
                    found += self._told(os.read(self._fd, _BUFFER))
        return list(dict.fromkeys([*found, *self._at_rest()]))

    def _at_rest(self) -> list[Noticed]:
        """The files that came, and were left alone since."""
        found, now = list[Noticed](), time.monotonic()
        for file, (since, how) in list(self._coming.items()):
            is_now = _written(file)
            if is_now != how:
                self._coming[file] = now, is_now
            elif now - since > _AT_REST:
                del self._coming[file]
                found += [file] if how else []
        return found

    def _told(self, data: bytes) -> list[Noticed]:
        found, at = [], 0
        while at < len(data):
            watch, mask, _, length = _EVENT.unpack_from(data, at)
            name = data[at + _EVENT.size : at + _EVENT.size + length].rstrip(b"\0")
            at += _EVENT.size + length
            if mask & _OVERFLOW:
                found += [Noticed(folder) for folder in self._by_watch.values()]
            elif folder := self._by_watch.get(watch):
                noticed = Noticed(folder, os.fsdecode(name))
                if mask & _CREATE and _may_be_written(noticed):
                    self._coming[noticed] = time.monotonic(), _written(noticed)
                    continue
                self._coming.pop(noticed, None)
                found.append(noticed)
                if mask & (_DELETE_SELF | _MOVE_SELF | _UNMOUNT | _IGNORED):
                    del self._by_watch[watch]
                    if not mask & _IGNORED:
                        _libc().inotify_rm_watch(self._fd, watch)
        return found


def _place(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _may_be_written(file: Noticed) -> bool:
    """Whether it may be told once more of a file, when it is whole; not of a link, which is at once."""
    try:
        status = os.lstat(file.folder / file.name)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1


def _written(file: Noticed) -> object:
    """What is another when somebody wrote to a file; nothing of one that is gone, or still empty."""
    try:
        status = os.lstat(file.folder / file.name)
    except OSError:
        return None
    return (status.st_ino, status.st_size, status.st_mtime_ns) if status.st_size else None


def _checked(answer: int) -> int:
    if answer < 0:
        number = ctypes.get_errno()
        raise KernelRefused(f"inotify: {os.strerror(number)}", number)
    return answer


@cache
def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)
