"""A worker: a process that serves one call after another as a cold process serves its only one, with everything imported."""

from __future__ import annotations

import gc
import os
import resource
import select
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING

from cni import together
from cni.agent.caller import Caller
from cni.agent.request import Refused, Request
from cni.errors import TryAgainLater
from cni.kernel import bell, kept, netns, signals
from cni.main import Stdout, main
from cni.values import dataclass

if TYPE_CHECKING:
    import socket

    from cni.agent.scoreboard import Slot
    from cni.agent.spans import Spans

#: Why a worker ends: the pool let it go; a call left it other than it was; the installation is another one now.
DISMISSED, SPENT, OUTDATED = 0, 1, 3
#: What a worker keeps open is some twenty; where calls leave more behind, another takes its place.
_MOST_DESCRIPTORS = 64
#: Left for a call: one opened 14 at most, and two programs at a time 16 more.
_DESCRIPTORS_OF_A_CALL, _PLENTY = 64, 1 << 20
#: What is the caller's while its call is served; stdout is the launcher's own.
_STREAMS = (0, 2)
_WAKE = b"w"


@dataclass(frozen=True)
class Terms:
    """How calls are served: each within so many seconds, and taken down by whom, if by anybody."""

    seconds: int
    spans: Spans | None = None


class Worker:
    """Serves what arrives on `listener` until `line`, to the pool, closes; says by its `slot` whether it is busy.

    `current` says whether the installation is still the one that was imported.
    """

    def __init__(
        self, listener: socket.socket, line: socket.socket, slot: Slot, current: Callable[[], bool], terms: Terms
    ) -> None:
        self._listener = listener
        self._path = listener.getsockname()
        self._line = line
        self._slot = slot
        self._current = current
        self._seconds, self._spans = terms.seconds, terms.spans

    def run(self) -> int:
        """Serve; returns why it ends. What a call leaves is collected after its answer."""
        gc.disable()
        signals.ignore()
        with select.epoll() as waiting:
            waiting.register(self._listener, select.EPOLLIN | select.EPOLLEXCLUSIVE)  # else a call wakes them all
            waiting.register(self._line, select.EPOLLIN)
            while self._line.fileno() not in {fd for fd, _ in waiting.poll()}:
                with suppress(BlockingIOError):  # another worker was quicker
                    connection, _ = self._listener.accept()
                    if ended := self._served(connection):
                        return ended
        return DISMISSED

    def _served(self, connection: socket.socket) -> int:
        """Serve one connection; why this process must end, or 0."""
        self._slot.work()
        with suppress(OSError):
            os.utime(self._path)  # who waits goes by it whether calls are taken
        if self._slot.is_last:
            self._line.send(_WAKE)
        with bell.answering(), connection:
            if not self._current():
                return OUTDATED
            fit = self._converse(Caller(connection))
        kept.let_go()
        if self._spans:
            self._spans.hand_over()
        gc.collect()
        self._slot.rest()
        return 0 if fit and _next_descriptor() < _MOST_DESCRIPTORS else SPENT

    def _converse(self, caller: Caller) -> bool:
        """Whether this process is as before: a call that was ended from outside may have left something half done."""
        if _room() < _DESCRIPTORS_OF_A_CALL:
            return True
        try:
            if (errand := caller.errand()) is not None:
                with caller.watched(self._seconds):
                    caller.answer(together.answer(errand))
                return netns.is_at_home()
            request = caller.request()
        except KeyboardInterrupt:
            return False
        except (Refused, OSError):
            return True
        stdout, code = Stdout(caller.print), -1
        try:
            with _in_place_of(request), caller.watched(self._seconds), self._traced(request, stdout):
                code = main(request.script, request.environ, stdout)
        except (KeyboardInterrupt, OSError) as ended:  # outside the story: before it began or after its end
            if code < 0:
                why = (
                    f"could not begin: {ended.strerror}"
                    if isinstance(ended, OSError)
                    else "was ended by a signal before it began"
                )
                code = stdout.fail(TryAgainLater(f"the call {why}"))
            caller.end(code)
            return False
        fit = not caller.has_ended() and netns.is_at_home()
        caller.end(code)
        return fit

    def _traced(self, request: Request, stdout: Stdout) -> AbstractContextManager[None]:
        return self._spans.of(request.environ, request.script, stdout) if self._spans else nullcontext()


def _room() -> int:
    """How many descriptors more this process may have: a call that could have too few is left to run cold."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        return (_PLENTY if soft == resource.RLIM_INFINITY else soft) - _next_descriptor()
    except OSError:
        return 0


def _next_descriptor() -> int:
    found = os.dup(0)
    os.close(found)
    return found


@contextmanager
def _in_place_of(request: Request) -> Iterator[None]:
    """Have the caller's streams and working folder, and the pod's namespace as the caller sees it.

    Its environment is passed on instead: setenv(3) keeps every string it was ever given.
    """
    own = {number: os.dup(number) for number in _STREAMS}
    try:
        _take_streams(request.fds)
        if "d" in request.fds:
            os.fchdir(request.fds["d"])
        if "p" in request.fds and "CNI_NETNS" in request.environ:
            netns.handed_over[request.environ["CNI_NETNS"]] = request.fds["p"]
        yield
    finally:
        netns.handed_over.clear()
        os.chdir("/")
        for number, fd in own.items():
            os.dup2(fd, number)
            os.close(fd)
        request.close()


def _take_streams(fds: dict[str, int]) -> None:
    """Make fds[``0``] stdin and fds[``2``] stderr. What the caller had closed cannot be read and takes all: its number must be nobody else's."""
    for number in _STREAMS:
        if str(number) in fds:
            os.dup2(fds[str(number)], number)
        else:
            nothing = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            os.dup2(nothing, number)
            os.close(nothing)
