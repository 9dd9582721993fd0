"""The signals that end a call: when they are handled, and how a step is kept whole."""

from __future__ import annotations

import atexit
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: The node agent's among them: SIGALRM for a call's deadline, SIGIO for a caller that went away.
ENDING = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM, signal.SIGIO}

#: Whether SIGIO means an end, while signals are handled: it may tell late of what is known.
_handled: Callable[[], bool] | None = None
#: How many `uninterrupted` are around us, and what was held back before the outermost.
_held = 0
_before: set[int | signal.Signals] = set()


def handle(meant: Callable[[], bool] | None = None) -> None:
    """From now on the first of these signals raises KeyboardInterrupt, so that everything is undone; SIGIO only where it is
    `meant`. The others are ignored then: nothing ends the undoing.

    Who handles them already keeps what was meant.
    """
    global _handled  # noqa: PLW0603 - a process has one disposition for each signal
    _handled = meant or _handled or (lambda: True)
    _take_over()


def ignore() -> None:
    """From now on they do nothing."""
    global _handled  # noqa: PLW0603 - as above
    _handled = None
    _take_over()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold back the signals that end a call, so that a step is done or not begun. One inside another is part of it."""
    global _held, _before  # noqa: PLW0603 - only a process's main thread is interrupted
    outermost = not _held
    if outermost:
        _before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        if outermost:
            signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # raises for one that came just before
        _held += 1
        try:
            yield
        finally:
            _held -= 1
    finally:
        if outermost:
            signal.pthread_sigmask(signal.SIG_SETMASK, _before)


def end_if_asked() -> None:
    """Between two steps of one `uninterrupted`: let a signal that waits end the call, unless all are a step of another."""
    if _held == 1 and signal.sigpending():
        signal.pthread_sigmask(signal.SIG_SETMASK, _before)
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)


def hold_back() -> None:
    """Have this thread and those it starts from now on not be interrupted; `next_ending` says what comes."""
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)


def next_ending() -> bool:
    """Wait for a signal that was held back; whether it ends a service: SIGHUP asks it to look at its configuration, and SIGALRM
    and SIGIO are of calls alone.
    """
    return signal.sigwait(ENDING) in (signal.SIGTERM, signal.SIGINT)


def on_ending(end: Callable[[], object]) -> None:
    """Have what ends a service call this, between two steps of the main thread; SIGHUP does nothing."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def end_by_default() -> None:
    """Let SIGTERM end this process now, as it ends who does not mind it: for who cannot end otherwise."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    signal.raise_signal(signal.SIGTERM)


def _take_over() -> None:
    """Have one handler for all, whatever is handled."""
    if signal.getsignal(signal.SIGALRM) is not _end:
        for number in ENDING:
            signal.signal(number, _end)
        atexit.register(_ignore_for_good)


def _ignore_for_good() -> None:
    """Python gives signals their default meaning before it ends: one that comes then would change a told exit code."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def _end(number: int, _: object) -> None:
    if _handled and (number != signal.SIGIO or _handled()):
        ignore()
        raise KeyboardInterrupt
