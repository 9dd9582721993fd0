"""What the node agent does for who may do less than it: asked in one packet, answered later in one (unix(7))."""

from __future__ import annotations

import socket
from pathlib import Path

from cni import __version__
from cni.errors import TryAgainLater, Unavailable

#: Where the agent listens, for launchers too (launcher/launcher.c).
PATH = Path("/run/agent-cni/agent.sock")
#: What a question begins with; an agent of another release takes it for a call, and hangs up.
MARK = f"agent-cni {__version__} follow\n".encode()

_KIND = socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
_MOST = 192 << 10


class Errand:
    """One question, which nobody waits for."""

    def __init__(self, question: bytes, path: Path = PATH) -> None:
        """Ask it. Raises Unavailable where nobody listens, and TryAgainLater where too many wait."""
        self._socket = socket.socket(socket.AF_UNIX, _KIND)
        try:
            self._socket.connect(str(path))
            self._socket.send(MARK + question)
        except BlockingIOError:
            self._socket.close()
            raise TryAgainLater(f"{path}: too many wait for the node agent") from None
        except OSError as error:
            self._socket.close()
            raise Unavailable(f"{path}: {error.strerror}") from None

    def close(self) -> None:
        """Want no answer any more."""
        self._socket.close()

    def answer(self) -> bytes | None:
        """What was answered, nothing where who was asked hung up; None as long as there is no answer."""
        try:
            return self._socket.recv(_MOST)
        except BlockingIOError:
            return None
        except OSError:
            return b""
