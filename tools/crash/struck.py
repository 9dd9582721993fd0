"""One of our commands, struck at one of its effects on files and programs: killed before it, or refused it by an errno.

    PREFIX/bin/python3 -I struck.py LOG NUMBER SIGKILL|ENOSPC|... agent-cni's words

LOG gets a line for each effect that came: what it is and of which path. Number 0 strikes nothing. Python tells of each effect before it
is done (sys.addaudithook), so who is killed at one has done all before it, and what it wrote to files that are still open may be lost.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from typing import Any

CHANGES = {
    "os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate", "os.utime", "os.posix_spawn",
    "subprocess.Popen",
}  # fmt: skip
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_EXCHANGE = "renameat2"
#: What no other process has.
_OWN = (os.devnull, "/proc/self/", "/proc/thread-self/")


def path_of(event: str, args: tuple[Any, ...]) -> str | None:
    """The path an effect is on, or None of what is none."""
    if event == "open":
        path, _, flags = args
        written = isinstance(flags, int) and flags & _WRITES and not str(path).startswith(_OWN)
        return str(path) if written else None
    if event == "ctypes.dlsym":
        return _EXCHANGE if args[1] == _EXCHANGE else None
    return (
        os.fsdecode(args[0]) if event in CHANGES and not isinstance(args[0], int) else "" if event in CHANGES else None
    )


def main(log: str, number: int, what: str, words: list[str]) -> int:
    from cni.command.main import main as command

    told, at = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC), 0

    def strike(event: str, args: tuple[Any, ...]) -> None:
        nonlocal at
        if (path := path_of(event, args)) is None:
            return
        at += 1
        os.write(told, f"{event} {path}\n".encode())
        if at != number:
            return
        if what == "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(getattr(errno, what), os.strerror(getattr(errno, what)), path)

    sys.addaudithook(strike)
    return command(words)


if __name__ == "__main__":
    code = main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:])
    sys.stdout.flush()
    os._exit(code)  # a hook cannot be taken away, and is called while the interpreter it needs is taken down
