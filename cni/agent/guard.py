"""The agent's watch over rules: a process of its own beside the workers, which puts back what others take away of what holds pods.

It is woken by the kernel alone. Rules inside pods tell it nothing, because who listened there would keep the pod's namespace; it asks
now and then whether any rule there became another.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import stat
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from cni import log
from cni.agent.inside import Inside
from cni.errors import CniError, Conflict
from cni.kernel.rule_events import RuleEvents
from cni.state import DEFAULT_FOLDER, FILE
from cni.state.daemons import GUARD, alone
from cni.vigil import Vigil, gone_before

#: Between two starts, and two tries to be the one, in seconds.
_AGAIN, _RIVALLED = 10.0, 10.0
#: For so long nothing more happens when a change is over, and so long one is waited for.
_QUIET, _LONGEST = 0.01, 0.2
#: How long it may take to end, and how often it is looked whether it has.
_FAREWELL, _STEP = 5.0, 0.01


class Guard:
    """It is started, and started again when it dies; with the agent it ends."""

    def __init__(self) -> None:
        self._line: socket.socket | None = None
        self._child, self._next = 0, 0.0

    def look(self) -> None:
        """Have it run; asked as often as one likes, it is started at most every ten seconds."""
        if self._has_ended() and time.monotonic() >= self._next:
            self._next = time.monotonic() + _AGAIN
            self._start()

    def end(self) -> None:
        """Have it end before its agent becomes another release's, which would not know whose child it was; what it is at it may end."""
        if self._line:
            self._line.close()
        until = time.monotonic() + _FAREWELL
        while not self._has_ended() and time.monotonic() < until:
            time.sleep(_STEP)
        if self._child:
            os.kill(self._child, signal.SIGKILL)
            os.waitpid(self._child, 0)

    def _has_ended(self) -> bool:
        if self._child:
            with suppress(ChildProcessError):
                if os.waitpid(self._child, os.WNOHANG)[0] == 0:
                    return False
        self._child = 0
        return True

    def _start(self) -> None:
        if self._line:
            self._line.close()
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._child = os.fork()
        if self._child == 0:
            _become_guard(its.fileno())
        its.close()
        self._line = ours


def _become_guard(line: int) -> None:
    """End with the agent, whose end of the line closes then, and keep nothing else of it."""
    code = os.EX_SOFTWARE
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
        os.setpgid(0, 0)
        _close_sockets(line)
        gc.freeze()
        _watch(line)
        code = os.EX_OK
    except CniError as error:
        sys.stderr.write(f"agent-cni: rules are not watched: {error.msg}\n")
    finally:
        os._exit(code)


def _close_sockets(line: int) -> None:
    """All but one; what else is open is this process's too, as the way home to its own namespace."""
    for fd in [int(item.name) for item in Path("/proc/self/fd").iterdir()]:
        with suppress(OSError):  # the listing's own is gone
            if fd > 2 and fd != line and stat.S_ISSOCK(os.fstat(fd).st_mode):
                os.close(fd)


def _watch(line: int) -> None:
    inside = Inside()
    with ExitStack() as held:
        while not _is_alone(held):  # the member watches the host's
            if not _waited(line, inside, None, _RIVALLED):
                return
        events, vigil = RuleEvents(), Vigil()
        held.callback(events.close)
        vigil.heard(gone_before())
        _refresh()
        while _waited(line, inside, events, vigil.owed):
            until = time.monotonic() + _LONGEST
            while (more := events.heard(_QUIET)) and time.monotonic() < until:  # one flush may be several transactions
                vigil.heard(more)
            vigil.heard(more)
            vigil.act()


def _refresh() -> None:
    """What else went while nobody watched is looked for once, in a process of its own."""
    if (DEFAULT_FOLDER / FILE).exists():
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
        command = [sys.executable, "-I", "-m", "cni.command.main", "refresh"]
        os.posix_spawn(sys.executable, command, os.environ, file_actions=quiet, setsigdef=[signal.SIGCHLD])


def _is_alone(held: ExitStack) -> bool:
    with suppress(Conflict):
        held.enter_context(alone(GUARD))
        return True
    return False


def _waited(line: int, inside: Inside, events: RuleEvents | None, seconds: float) -> bool:
    """Wait for what the kernel tells, so many seconds at most, and look into pods meanwhile; False where the agent has ended."""
    until = time.monotonic() + seconds
    heard = [events.fileno()] if events else []
    while True:
        ready, _, _ = select.select([line, *heard], [], [], max(0.0, min(until - time.monotonic(), inside.due())))
        if line in ready:
            return False
        if ready or time.monotonic() >= until:
            return True
        try:
            inside.look()
        except CniError as error:
            log.warning("guard", f"rules in pods could not be looked at: {error.msg}")
