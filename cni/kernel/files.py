"""Folders of ours, whose they are, and locks: fcntl's door."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from cni.errors import KernelRefused, TryAgainLater, Unavailable

#: Bounded wait for a lock, in seconds; a runtime repeats the call after code 11.
PATIENCE = 30.0

_STEP = 0.005
_FLOCK = "hhqqi4x"
_OURS = (
    "state.db",
    "documents.db",
    "lock",
    "agent.sock",
    "member.sock",
    "folders",
    "dns",
    "tally",
    "witness",
    "wireguard.key",
)
#: What is opened by name in a folder of ours, by SQLite among others.
_OPENED = (
    *(f"{name}{end}" for name in ("state.db", "documents.db") for end in ("", "-wal", "-shm", "-journal")),
    "lock",
)
_MOST_LINKS = 40  # as the kernel (path_resolution(7))
_NOBODY = 65534

#: The descriptors by which a call holds something. A program that has them holds it, too, though the call is killed, until its own end.
held: ContextVar[tuple[int, ...]] = ContextVar("held", default=())


class LockFile:
    """One file whose bytes are locks, so locking leaves nothing behind to clean up.

    Byte 0 is the node: every call that changes the kernel shares it. Every other byte is one
    attachment, or one thing that several share. The locks belong to the open file (fcntl(2), "Open file description locks"), so
    they hold between the threads of one process too, and end with the process.
    """

    def __init__(self, path: Path) -> None:
        """Open a lock file, or make it. Raises Unavailable where that cannot be."""
        self._path = path
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        except OSError as error:
            raise Unavailable(f"the lock file {path} cannot be opened: {error.strerror}") from None

    def close(self) -> None:
        """Give up every lock held through this object."""
        os.close(self._fd)

    @contextmanager
    def exclusive(self, digest: str, what: str, patience: float = PATIENCE) -> Iterator[None]:
        """Hold the byte of one attachment or thing. Raises TryAgainLater when the wait is over."""
        offset = _offset(digest)
        waited(lambda: self._try(fcntl.F_WRLCK, offset), what, patience)
        held.set((*held.get(), self._fd))
        try:
            yield
        finally:
            others = list(held.get())
            others.remove(self._fd)
            held.set(tuple(others))
            with suppress(KernelRefused):  # it ends with the file then
                self._try(fcntl.F_UNLCK, offset)

    def wait_for(self, digest: str, what: str, patience: float = PATIENCE) -> None:
        """Return when nobody holds a byte; it is not held then. Raises TryAgainLater when the wait is over."""
        offset = _offset(digest)
        waited(lambda: self._ask(fcntl.F_OFD_GETLK, fcntl.F_RDLCK, offset) == fcntl.F_UNLCK, what, patience)

    def share_node(self, patience: float = PATIENCE) -> None:
        """Hold the node's byte together with other calls, until `close`."""
        waited(lambda: self._try(fcntl.F_RDLCK, 0), "the node", patience)

    def is_shared(self) -> bool:
        """Whether a call holds the node's byte now."""
        return self._ask(fcntl.F_OFD_GETLK, fcntl.F_WRLCK, 0) != fcntl.F_UNLCK

    def alone(self) -> bool:
        """Whether no other call shares the node; if so, none can begin before `close`."""
        return self._try(fcntl.F_WRLCK, 0)

    def _try(self, kind: int, offset: int) -> bool:
        try:
            self._ask(fcntl.F_OFD_SETLK, kind, offset)
        except BlockingIOError:
            return False
        return True

    def _ask(self, command: int, kind: int, offset: int) -> int:
        """What kind of lock the kernel answers with (fcntl(2), struct flock)."""
        request = struct.pack(_FLOCK, kind, os.SEEK_SET, offset, 1, 0)
        try:
            answer = fcntl.fcntl(self._fd, command, request)
        except BlockingIOError:
            raise
        except OSError as error:
            raise KernelRefused(f"fcntl on {self._path}: {error.strerror}", error.errno or 0) from None
        return int(struct.unpack(_FLOCK, answer)[0])


def _offset(digest: str) -> int:
    return 1 + int(digest[:15], 16)  # 60 bits: an offset has 63 (off_t); byte 0 is the node


def private_folder(path: Path) -> Path:
    """Make a folder only root may enter (0700), with its parents.

    One that is there is closed to others only if nothing else is in it. Raises Unavailable for one that is a stranger's
    or that others may write into, and NotADirectoryError for what is none.
    """
    _refuse_strangers_way(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        for folder in (*reversed(path.parents), path):
            folder.mkdir(exist_ok=True, mode=0o755)  # whatever the umask: parents=True would give them 0777
        _refuse_strangers_way(path)
        mode = path.stat().st_mode
    if not stat.S_ISDIR(mode):
        raise NotADirectoryError(errno.ENOTDIR, "Not a directory", str(path))
    if mode & 0o077 and _is_ours_alone(path):
        path.chmod(0o700)
    _refuse_strange_content(path)
    return path


def refuse_strangers(folder: Path) -> None:
    """Raise Unavailable where what is opened by name in a folder may be a stranger's.

    A stranger is who is neither root nor we: he could have us read his state, or write over files of ours by a link.
    """
    try:
        _refuse_strangers_way(folder)
        with suppress(FileNotFoundError, NotADirectoryError):
            _refuse_strange_content(folder)
    except OSError as error:
        raise _unsafe(folder, str(error.strerror)) from error


def _refuse_strange_content(folder: Path) -> None:
    mode = folder.stat().st_mode
    if mode & 0o022 and not _is_ours_alone(folder):
        raise _unsafe(folder, "others may write into it")
    for name in _OPENED:
        with suppress(FileNotFoundError):
            if why := strange(os.lstat(f"{folder}/{name}")):
                raise _unsafe(folder, f"{folder}/{name} {why}")


def is_trusted(uid: int) -> bool:
    """Whether a user's files are as good as our own: root's are, and in a user namespace those of whom it does not know."""
    return uid in (0, os.geteuid()) or (uid == _NOBODY and not _knows_everybody())


def _refuse_strangers_way(folder: Path) -> None:
    for place, status, is_last in _way(str(folder)):
        if not is_trusted(status.st_uid):
            raise _unsafe(folder, f"{place} belongs to user {status.st_uid}")
        if (
            status.st_mode & 0o022
            and not is_last
            and not status.st_mode & stat.S_ISVTX
            and stat.S_ISDIR(status.st_mode)
        ):
            raise _unsafe(folder, f"others may write into {place}")


def _way(path: str) -> Iterator[tuple[str, os.stat_result, bool]]:
    """All that decides where a path leads, from the root on: each folder and each link, as far as they exist."""
    whole = path if path.startswith("/") else f"{Path.cwd()}/{path}"
    at, left, links = "", [part for part in reversed(whole.split("/")) if part], 0
    yield "/", os.lstat("/"), not left
    while left:
        name = left.pop()
        place = at.rpartition("/")[0] if name == ".." else f"{at}/{name}"
        try:
            status = os.lstat(place or "/")
        except (FileNotFoundError, NotADirectoryError):
            return
        is_link = stat.S_ISLNK(status.st_mode)
        yield place, status, not left and not is_link
        if is_link and (links := links + 1) <= _MOST_LINKS:
            target = str(Path(place).readlink())
            at = "" if target.startswith("/") else at
            left += [part for part in reversed(target.split("/")) if part]
        else:
            at = place


def strange(status: os.stat_result) -> str:
    """What is wrong with something that should be a file of ours, or nothing."""
    if not stat.S_ISREG(status.st_mode):
        return "is no file"
    if not is_trusted(status.st_uid):
        return f"belongs to user {status.st_uid}"
    if status.st_nlink > 1:
        return "has another name elsewhere"
    return "may be written by others" if status.st_mode & 0o022 else ""


def _unsafe(folder: Path, why: str) -> Unavailable:
    return Unavailable(f"the folder {folder} cannot be used: {why}")


def _is_ours_alone(folder: Path) -> bool:
    return all(item.name.startswith(_OURS) for item in folder.iterdir())


def _knows_everybody() -> bool:
    """Whether every user has a number here (user_namespaces(7))."""
    try:
        return Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]
    except OSError:
        return True


def waited(attempt: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Try until it succeeds. Raises TryAgainLater when the wait is over."""
    deadline = time.monotonic() + patience
    while not attempt():
        if time.monotonic() >= deadline:
            raise TryAgainLater(f"another call holds {what} for more than {patience:g} s")
        time.sleep(_STEP)
