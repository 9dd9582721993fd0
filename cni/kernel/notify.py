"""What a service says of itself to who started it (sd_notify(3)): it is ready, how it is, and that it still is."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

_KIND = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
_MICROSECONDS = 1e6


def notify(*lines: str) -> bool:
    """Say lines such as ``READY=1``, and wait for nobody; whether they were said, or nobody asked."""
    if not (path := os.environ.get("NOTIFY_SOCKET")):
        return True
    address = f"\0{path[1:]}" if path.startswith("@") else path
    with suppress(OSError), socket.socket(socket.AF_UNIX, _KIND) as speaker:
        said = (line.replace("\n", " ") for line in lines)  # what somebody else said may be part of one
        speaker.sendto("\n".join(said).encode(errors="backslashreplace"), address)
        return True
    return False


def watched() -> float | None:
    """After how many seconds of silence (``WATCHDOG=1``) this process is ended; None where nobody watches it."""
    pid = os.environ.get("WATCHDOG_PID", "")
    with suppress(KeyError, ValueError):
        if pid in ("", str(os.getpid())):
            return int(os.environ["WATCHDOG_USEC"]) / _MICROSECONDS
    return None
