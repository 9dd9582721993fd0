"""The socket launchers connect to: systemd's, where it activates us, else our own."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from cni.errors import Conflict, IoFailure
from cni.kernel.files import private_folder

_FIRST_PASSED = 3  # sd_listen_fds(3)
_BACKLOG = 512
#: How a socket is called (LISTEN_FDNAMES) whose file its process has made.
_BOUND = "bound-"
_PATIENCE_SECONDS = 3.0  # to start an agent that systemd starts takes one


class Listener(NamedTuple):
    """A socket that listens, and which file is its own (`_which`) to take away in the end: none where systemd made it."""

    socket: socket.socket
    file: str


@contextmanager
def listening(path: Path) -> Iterator[Listener]:
    """A listening socket at `path`, or the one passed to us. Raises Conflict where an agent listens already."""
    listener = _passed() or _bound(path)
    try:
        yield listener
    finally:
        if listener.file:
            with suppress(OSError):  # where somebody took ours away another agent may have put its own
                if _which(path) == listener.file:
                    path.unlink()  # first: once ours is closed, another agent puts its own there
            listener.socket.close()


def pass_on(listener: Listener) -> None:
    """Have the socket ready for the program this process becomes next, as systemd would; its file, where it is ours, is that one's then."""
    os.dup2(listener.socket.fileno(), _FIRST_PASSED)
    os.set_inheritable(_FIRST_PASSED, True)
    os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
    if listener.file:
        os.environ["LISTEN_FDNAMES"] = listener.file


def _passed() -> Listener | None:
    if (os.environ.get("LISTEN_FDS"), os.environ.get("LISTEN_PID")) != ("1", str(os.getpid())):
        return None
    try:
        made = socket.socket(fileno=_FIRST_PASSED)
    except OSError as error:
        raise IoFailure(f"LISTEN_FDS: descriptor {_FIRST_PASSED}: {error.strerror}") from None
    made.set_inheritable(False)
    made.setblocking(False)
    name = os.environ.get("LISTEN_FDNAMES", "")
    return Listener(made, name if name.startswith(_BOUND) else "")


def _bound(path: Path) -> Listener:
    try:
        private_folder(path.parent)
        if is_listened_on(path):
            raise Conflict(f"an agent listens on {path} already")
        path.unlink(missing_ok=True)
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        made.bind(str(path))
        path.chmod(0o600)  # in time: until listen() nobody can connect
        made.listen(_BACKLOG)
        return Listener(made, _which(path))
    except OSError as error:
        raise IoFailure(f"{path}: {error.strerror or error}") from None


def _which(path: Path) -> str:
    """What tells the file of a socket from another that comes to its place."""
    status = path.stat()
    return f"{_BOUND}{status.st_dev}-{status.st_ino}"


def is_listened_on(path: Path) -> bool:
    """Whether somebody listens there, if only by a full queue. Raises OSError where that cannot be known."""
    if not path.exists():  # below an image's root it may be too long to be asked for (unix(7))
        return False
    with _probe() as probe, suppress(BlockingIOError):
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True


def takes_calls(path: Path) -> bool:
    """Whether who listens there hangs up, in time, on what is no request. Raises OSError where that cannot be asked."""
    with _probe() as probe:
        try:
            probe.connect(str(path))
            probe.settimeout(_PATIENCE_SECONDS)
            probe.send(b"?")
            return not probe.recv(1)
        except ConnectionError:
            return True
        except (BlockingIOError, TimeoutError):
            return False


def _probe() -> socket.socket:
    """A socket whose connect() waits for nobody: where the queue is full it raises BlockingIOError."""
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
