"""Files that are given a text in one step, and what of it whoever is killed meanwhile leaves."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path

from cni.kernel.locks import waited

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_WRITTEN = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW


def put_whole(path: Path, text: str | bytes, mode: int) -> None:
    """Give a file a text, in one rename from what is `unfinished`, that outlives a power cut. Raises OSError, and TryAgainLater where
    another is at it.
    """
    new = unfinished(path)
    file = _alone_at(new)
    try:
        _write(file, text.encode() if isinstance(text, str) else text)
        os.fchmod(file, mode)
        os.fsync(file)
        new.rename(path)
    except BaseException:
        with suppress(OSError):
            new.unlink()
        raise
    finally:
        os.close(file)


def take_whole(path: Path) -> bool:
    """Have no such file, and nothing of what is `unfinished`; whether there was one. Raises OSError."""
    clear(path)
    was_there = os.path.lexists(path)
    if was_there:
        path.unlink(missing_ok=True)
    return was_there


def clear(path: Path) -> None:
    """Have nothing of what is `unfinished`. What is not there is not asked to go: where all is read-only that would be refused. Raises OSError."""
    if os.path.lexists(new := unfinished(path)):
        new.unlink(missing_ok=True)


def unfinished(path: Path) -> Path:
    """What is to become a file or a folder: hidden, and with a suffix that is nobody's, for runtimes read hidden files, too."""
    return path.with_name(f".{path.name}.new")


def put_asked(path: Path, text: str | bytes, mode: int) -> None:
    """Give a text to the file that somebody names to a command: a new one of ours, not through a link or a pipe that a stranger has put
    there, and not into his. Raises OSError.
    """
    if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
        raise FileExistsError(errno.EEXIST, "it is there, and no plain file", str(path))
    put_whole(path, text, mode)


def put_at_once(path: Path, text: str, mode: int) -> None:
    """Give a file a text, in one rename from its `hidden` name, for who reads it now: a power cut may take it. Raises OSError; of a text there
    is no room for nothing stays.
    """
    new = hidden(path)
    try:
        file = os.open(new, _WRITTEN, mode)
        try:
            os.fchmod(file, mode)
            _write(file, text.encode())
        finally:
            os.close(file)
        new.rename(path)
    except OSError:
        with suppress(OSError):
            new.unlink()
        raise


def _write(file: int, rest: bytes) -> None:
    while rest:  # what a disk has no room for is not written, and only the next piece is refused
        rest = rest[os.write(file, rest) :]


def _alone_at(path: Path) -> int:
    """Make a file that nobody else is at until it is closed. One that is there is held by who is at it, or he was killed, and it goes."""
    made = -1

    def attempt() -> bool:
        nonlocal made
        try:
            made = os.open(path, _WRITTEN | os.O_EXCL, 0o600)
        except FileExistsError:
            with suppress(FileNotFoundError):
                _take_if_left(path)
            return False
        if _is_held(made, path):
            return True
        os.close(made)
        return False

    waited(attempt, str(path))
    return made


def _take_if_left(path: Path) -> None:
    if not stat.S_ISREG(path.lstat().st_mode):
        path.unlink()
        return
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if _is_held(file, path):
            path.unlink()
    finally:
        os.close(file)


def _is_held(file: int, path: Path) -> bool:
    """Whether we hold a file (flock(2)) from now on that still has its name: who was through has given it another."""
    with suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(file), path.lstat())
    return False


def hidden(path: Path) -> Path:
    """What is to become a file, whose writer may have been killed."""
    return path.parent / f".{path.name}"


def exchanged(new: Path, path: Path) -> None:
    """Give a path to something new in one step (renameat2(2), RENAME_EXCHANGE); what was there gets the other name."""
    if not path.exists():
        new.rename(path)
        return
    import ctypes  # of no use to a call

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(path), _RENAME_EXCHANGE):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
