"""The socket launchers connect to: systemd's, where it activates us, else our own."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cni.errors import Conflict, IoFailure
from cni.kernel.files import private_folder

_FIRST_PASSED = 3  # sd_listen_fds(3)
_BACKLOG = 128
_PATIENCE_SECONDS = 3.0  # to start an agent that systemd starts takes one


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A listening socket at `path`, or the one passed to us. Raises Conflict where an agent listens already."""
    passed = _passed()
    if passed:
        yield passed
        return
    listener = _bound(path)
    own = path.stat()
    try:
        yield listener
    finally:
        with suppress(OSError):  # where somebody took ours away another agent may have put its own
            if os.path.samestat(own, path.stat()):
                path.unlink()  # first: once ours is closed, another agent puts its own there
        listener.close()


def pass_on(listener: socket.socket) -> None:
    """Have the socket ready for the program this process becomes next, as systemd would."""
    os.dup2(listener.fileno(), _FIRST_PASSED)
    os.set_inheritable(_FIRST_PASSED, True)
    os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}


def _passed() -> socket.socket | None:
    if (os.environ.get("LISTEN_FDS"), os.environ.get("LISTEN_PID")) != ("1", str(os.getpid())):
        return None
    try:
        listener = socket.socket(fileno=_FIRST_PASSED)
    except OSError as error:
        raise IoFailure(f"LISTEN_FDS: descriptor {_FIRST_PASSED}: {error.strerror}") from None
    listener.set_inheritable(False)
    listener.setblocking(False)
    return listener


def _bound(path: Path) -> socket.socket:
    try:
        private_folder(path.parent)
        if is_listened_on(path):
            raise Conflict(f"an agent listens on {path} already")
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        listener.bind(str(path))
        path.chmod(0o600)  # in time: until listen() nobody can connect
        listener.listen(_BACKLOG)
    except OSError as error:
        raise IoFailure(f"{path}: {error.strerror or error}") from None
    return listener


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
