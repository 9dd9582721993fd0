"""The agent's first process: it imports everything once, and keeps as many workers as calls need.

A worker is forked, so it begins warm and shares what nobody changes. One that dies, is killed or had its call ended from
outside takes nobody along: the next is forked in its place.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from cni.agent.scoreboard import Scoreboard, Slot
from cni.agent.worker import DISMISSED, OUTDATED, SPENT, Terms, Worker
from cni.values import dataclass

#: What tells one installation of this package from the next.
Installation = tuple[int, int, int]

#: How many wait for calls, and how many there may be; beyond that callers queue, or run cold. Half more than processors
#: keeps them busy while calls wait for the kernel; more attach no pod sooner, at 8 MiB each.
SPARE, MOST = 2, min(16, max(3, 3 * len(os.sched_getaffinity(0)) // 2))
#: Seconds a call may take before it is ended, and then before it is killed; runtimes give up after 120.
DEADLINE, GRACE = 120, 60
_IDLE_SECONDS, _TICK_MS = 30, 1000
_STOPPING = (signal.SIGTERM, signal.SIGINT)
_PACKAGE = Path(__file__).parent.parent / "__init__.py"


@dataclass
class _Member:
    """A worker as the pool sees it."""

    pid: int
    line: socket.socket
    slot: Slot

    def dismiss(self) -> None:
        """Let the worker end: now, or after the call it serves."""
        with suppress(OSError):
            self.line.shutdown(socket.SHUT_WR)


def hold_back_stopping() -> None:
    """Have SIGTERM and SIGINT wait for a pool that minds them, so that no socket is left by what came before it; SIGHUP ends nobody from now on."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)


class Beside(Protocol):
    """What is looked after beside the workers."""

    def look(self) -> None: ...


class Pool:
    """Workers on one listening socket, until `installed` is not what is installed any more."""

    def __init__(
        self,
        listener: socket.socket,
        most: int,
        terms: Terms,
        installed: Installation,
        beside: Sequence[Beside] = (),
    ) -> None:
        self._listener = listener
        self._most = most
        self._terms = terms
        self._members: dict[int, _Member] = {}
        self._scoreboard = Scoreboard(most)
        self._poll = select.poll()
        self._awake, self._wake = socket.socketpair()
        self._stopping = False
        self._outdated = False
        self._installed = installed
        self._beside = beside

    def run(self) -> bool:
        """Serve until SIGTERM or SIGINT. Returns whether another release was installed meanwhile and nobody has asked us to stop: who does
        so from then on asks what we become, which finds that waiting.
        """
        self._wake.setblocking(False)
        signal.set_wakeup_fd(self._wake.fileno())
        self._poll.register(self._awake, select.POLLIN)
        for number in _STOPPING:
            signal.signal(number, self._stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
        gc.collect()
        gc.freeze()  # a worker's collections would write to every object, and so copy every page
        self._fill()
        while not (self._stopping or self._outdated):
            for beside in self._beside:
                beside.look()
            self._listen()
            self._fill()
            idle = self._idle()
            if len(idle) > SPARE and idle[-1].slot.seconds > _IDLE_SECONDS:
                idle[-1].dismiss()
        self._dismiss_all()
        hold_back_stopping()
        return self._outdated and not self._stopping

    def _stop(self, number: int, frame: object) -> None:
        self._stopping = True

    def _listen(self) -> None:
        """Hear of workers that ended, and that none is left to spare; kill one that does not come to its end."""
        for fd, _ in self._poll.poll(_TICK_MS):
            if fd == self._awake.fileno():
                self._awake.recv(64)
            else:
                self._hear(self._members[fd])
        for member in self._members.values():
            if member.slot.busy and member.slot.seconds > self._terms.seconds + GRACE:
                os.kill(member.pid, signal.SIGKILL)

    def _hear(self, member: _Member) -> None:
        said = b""
        with suppress(ConnectionError):
            said = member.line.recv(64)
        if not said:  # what a worker says is only to wake us, for `_fill`
            self._bury(member)

    def _fill(self) -> None:
        """Have workers to spare: one for each call that could come while the others are busy."""
        for _ in range(min(SPARE - len(self._idle()), self._most - len(self._members))):
            self._fork()

    def _idle(self) -> list[_Member]:
        return [member for member in self._members.values() if not member.slot.busy]

    def _fork(self) -> None:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        slot = self._scoreboard.claim()
        pid = os.fork()
        if pid == 0:
            others = [ours, self._awake, self._wake, *(member.line for member in self._members.values())]
            self._become_worker(its, slot, others)
        its.close()
        self._members[ours.fileno()] = _Member(pid, ours, slot)
        self._poll.register(ours, select.POLLIN)

    def _become_worker(self, line: socket.socket, slot: Slot, others: list[socket.socket]) -> None:
        code = os.EX_SOFTWARE
        try:
            signal.set_wakeup_fd(-1)
            os.setpgid(0, 0)  # a terminal's Ctrl-C is for the pool: calls end as their callers wish
            for other in others:
                other.close()
            code = Worker(self._listener, line, slot, self._is_current, self._terms).run()
        finally:
            os._exit(code)

    def _is_current(self) -> bool:
        return installation() == self._installed

    def _bury(self, member: _Member) -> None:
        self._poll.unregister(member.line)
        del self._members[member.line.fileno()]
        member.line.close()
        member.slot.release()
        _, status = os.waitpid(member.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self._outdated |= code == OUTDATED
        if code not in (DISMISSED, SPENT, OUTDATED):
            sys.stderr.write(f"agent-cni: a worker ended with {code}\n")

    def _dismiss_all(self) -> None:
        """No call is cut short: each has its deadline."""
        for member in self._members.values():
            member.dismiss()
        while self._members:
            self._listen()


def installation() -> Installation:
    """What changes when this package is installed again; to be asked before anything of it is imported."""
    status = _PACKAGE.stat()
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns
