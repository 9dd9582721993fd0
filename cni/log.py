"""The log: one JSON object a line, to /var/log/agent-cni where that can be written.

stderr belongs to the runtime's log, so only failures go there too; stdout is the protocol's. What somebody else put in
the log's place is never written to, and the call goes on.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import Protocol

    class Listener(Protocol):
        """Who takes down a call."""

        def told(self, line: Mapping[str, Any]) -> None: ...
        def step(self, verb: str, items: Sequence[Any]) -> AbstractContextManager[None]: ...


FOLDER = Path("/var/log/agent-cni")

#: What only who put something else in the log's place brings about.
_STRANGE = (errno.EPERM, errno.ELOOP, errno.ENXIO, errno.EISDIR)

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
#: A pipe nobody reads is not waited for, and a link not followed.
_APPENDING = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY


#: Who hears what a call does while it does it; the node agent sets it where it traces one.
listener: Listener | None = None


def step(verb: str, items: Sequence[Any]) -> AbstractContextManager[None]:
    """While a call does something with resources, or asks somebody by his name."""
    return listener.step(verb, items) if listener else nullcontext()


def event(plugin: str, verb: str, error: BaseException | None = None, **facts: Any) -> None:
    """Write what a call did: `facts` such as container, network, seconds; never raises."""
    line: dict[str, Any] = {"time": _now(), "plugin": plugin, "verb": verb, **facts}
    if listener:
        listener.told(line)
    if error is not None:
        line |= {"error": str(error), "code": getattr(error, "code", 999)}
        line |= {"notes": notes} if (notes := getattr(error, "__notes__", None)) else {}
        if line["code"] == 999:
            import traceback  # and tokenize with it

            said = "".join(traceback.format_exception(error))
            line["traceback"] = said.replace(
                sys.prefix, os.path.realpath(sys.prefix)
            )  # which a cold call knows by a descriptor
        _write_stderr(line)
    _append(plugin, line)


def warning(plugin: str, msg: str, **facts: Any) -> None:
    """Say what a call left undone though it ended well; never raises."""
    line = {"time": _now(), "plugin": plugin, **facts, "warning": msg}
    _write_stderr(line)
    _append(plugin, line)


def _append(plugin: str, line: dict[str, Any]) -> None:
    """One write per line: O_APPEND keeps lines of parallel calls whole."""
    try:
        fd = _opened(f"{plugin}.log")
        try:
            os.write(fd, json.dumps(line).encode() + b"\n")
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in _STRANGE:
            why = f"{FOLDER} is not written to: {error.strerror} ({error.filename})"
            _write_stderr({"time": line["time"], "plugin": plugin, "warning": why})


def _opened(file: str) -> int:
    try:
        folder = os.open(FOLDER, _FOLDER)
    except FileNotFoundError:
        FOLDER.mkdir(parents=True, exist_ok=True, mode=0o750)
        folder = os.open(FOLDER, _FOLDER)
    try:
        _refuse_strangers(os.lstat(FOLDER), os.fstat(folder))
        fd = os.open(file, _APPENDING, 0o640, dir_fd=folder)
    finally:
        os.close(folder)
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
        return fd
    os.close(fd)
    raise OSError(errno.EPERM, "no file, or one that has another name elsewhere", file)


def _refuse_strangers(named: os.stat_result, opened: os.stat_result) -> None:
    """`named` is what has the folder's name: the folder that was opened, or root's link to it."""
    for status in (named, opened):
        if status.st_uid not in (0, os.geteuid()):
            raise OSError(errno.EPERM, f"it belongs to user {status.st_uid}", str(FOLDER))
    if opened.st_mode & stat.S_IWOTH or not (stat.S_ISLNK(named.st_mode) or os.path.samestat(named, opened)):
        raise OSError(errno.EPERM, "others may write into it", str(FOLDER))


def _write_stderr(line: dict[str, Any]) -> None:
    """Past Python's buffer: what a full stderr does not take would come with what is said next, and end the process with code 120."""
    try:
        os.write(sys.stderr.fileno(), json.dumps(line).encode() + b"\n")
    except (OSError, ValueError, AttributeError):  # closed, closed by Python, or None as it was closed when we began
        return


def _now() -> str:
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
