"""Folders of ours, and whose they are."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cni.errors import Unavailable

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
    "switched",
)
#: What is opened by name in a folder of ours, by SQLite among others.
_OPENED = (
    *(f"{name}{end}" for name in ("state.db", "documents.db") for end in ("", "-wal", "-shm", "-journal")),
    "lock",
)
_MOST_LINKS = 40  # as the kernel (path_resolution(7))
_NOBODY = 65534


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
