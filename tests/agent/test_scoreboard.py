"""What workers say by their slots, across processes."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from cni.agent.scoreboard import Scoreboard


def elsewhere(act: Callable[[], None]) -> None:
    """Do something in a process of its own."""
    child = os.fork()
    if child == 0:
        act()
        os._exit(0)
    os.waitpid(child, 0)


def test_the_pool_sees_what_a_worker_says():
    slot = Scoreboard(2).claim()
    assert not slot.busy
    elsewhere(slot.work)
    assert slot.busy
    assert 0 <= slot.seconds < 60
    elsewhere(slot.rest)
    assert not slot.busy


def test_the_last_idle_worker_knows_it():
    scoreboard = Scoreboard(3)
    first, second = scoreboard.claim(), scoreboard.claim()
    first.work()
    assert not first.is_last
    elsewhere(second.work)
    assert first.is_last
    assert second.is_last
    first.rest()
    assert not second.is_last


def test_a_seat_is_taken_once_until_it_is_left():
    scoreboard = Scoreboard(1)
    slot = scoreboard.claim()
    with pytest.raises(ValueError, match="not in list"):
        scoreboard.claim()
    slot.work()
    slot.release()
    assert not scoreboard.claim().busy
