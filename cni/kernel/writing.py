"""Files that are given a text in one step, and what of it whoever is killed meanwhile leaves."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_WRITTEN = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW


def put_whole(path: Path, text: str | bytes, mode: int) -> None:
    """Give a file a text, in one rename within its folder, that outlives a power cut. Raises OSError.

    Until then it has a hidden name, and a suffix that is nobody's.
    """
    from tempfile import NamedTemporaryFile  # of no use to a call

    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(text.encode() if isinstance(text, str) else text)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
            Path(file.name).rename(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


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
            rest = text.encode()
            while rest:  # what a disk has no room for is not written, and only the next piece is refused
                rest = rest[os.write(file, rest) :]
        finally:
            os.close(file)
        new.rename(path)
    except OSError:
        with suppress(OSError):
            new.unlink()
        raise


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
