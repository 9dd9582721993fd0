"""Signals that end a call, and the steps they do not cut in two."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from cni.kernel import signals


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in signals.ENDING}
    yield
    signals.ignore()
    for number, handler in before.items():
        signal.signal(number, handler)


def come(number: signal.Signals) -> None:
    """To this thread: the process may have others, of pytest-xdist or of a test before, which hold back nothing."""
    signal.raise_signal(number)


@pytest.mark.parametrize("number", sorted(signals.ENDING))
def test_a_signal_is_handled_until_it_is_ignored(number: signal.Signals):
    signals.handle()
    with pytest.raises(KeyboardInterrupt):
        come(number)
    signals.ignore()
    come(number)


def test_a_wake_up_ends_what_it_is_meant_for():
    meant = False
    signals.handle(lambda: meant)
    signals.handle()
    come(signal.SIGIO)
    meant = True
    with pytest.raises(KeyboardInterrupt):
        come(signal.SIGIO)


def step_in_step(done: list[str]) -> None:
    with signals.uninterrupted():
        come(signal.SIGTERM)
        with signals.uninterrupted():
            signals.end_if_asked()
            done.append("inner")
        done.append("outer")


def two_steps(done: list[str]) -> None:
    with signals.uninterrupted():
        signals.end_if_asked()
        come(signal.SIGHUP)
        done.append("first")
        signals.end_if_asked()
        done.append("second")


def test_a_signal_waits_for_the_end_of_a_step():
    signals.handle()
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        step_in_step(done)
    assert done == ["inner", "outer"]
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_signal_ends_a_call_between_two_steps():
    signals.handle()
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        two_steps(done)
    assert done == ["first"]
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_wake_up_without_a_meaning_ends_nothing_between_two_steps():
    signals.handle(lambda: False)
    with signals.uninterrupted():
        come(signal.SIGIO)
        signals.end_if_asked()
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_nothing_ends_the_undoing_of_what_was_ended():
    signals.handle()
    with pytest.raises(KeyboardInterrupt):
        burst()
    come(signal.SIGTERM)
    signals.handle()
    with pytest.raises(KeyboardInterrupt):
        come(signal.SIGTERM)


def burst() -> None:
    """Three at once; what is done when the first is heard must come to its end."""
    done: list[str] = []
    try:
        with signals.uninterrupted():
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                come(number)
    finally:
        with signals.uninterrupted():
            done.append("undone")
        assert done == ["undone"]


def test_a_step_does_not_let_through_what_a_caller_held_back():
    signals.handle()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    done: list[str] = []
    try:
        two_steps(done)
        assert done == ["first", "second"]
    finally:
        signals.ignore()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})


def test_signals_that_a_caller_held_back_stay_so():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        with signals.uninterrupted():
            pass
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == {signal.SIGHUP}
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})


LATE = """
import os
from cni.kernel import signals

class Late:
    def __del__(self, kill=os.kill, pid=os.getpid()):
        kill(pid, 15)

signals.handle()
signals.ignore()
late = Late()
"""


def test_a_signal_that_comes_while_python_ends_changes_no_exit_code():
    assert subprocess.run([sys.executable, "-c", LATE], check=False).returncode == 0
