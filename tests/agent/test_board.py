"""What workers say by their seats, across processes."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from cni.agent.board import Board


def elsewhere(act: Callable[[], None]) -> None:
    """Do something in a process of its own."""
    child = os.fork()
    if child == 0:
        act()
        os._exit(0)
    os.waitpid(child, 0)


def test_the_pool_sees_what_a_worker_says():
    seat = Board(2).seated()
    assert not seat.busy
    elsewhere(seat.work)
    assert seat.busy
    assert 0 <= seat.seconds < 60
    elsewhere(seat.rest)
    assert not seat.busy


def test_the_last_idle_worker_knows_it():
    board = Board(3)
    first, second = board.seated(), board.seated()
    first.work()
    assert not first.is_last
    elsewhere(second.work)
    assert first.is_last
    assert second.is_last
    first.rest()
    assert not second.is_last


def test_a_seat_is_taken_once_until_it_is_left():
    board = Board(1)
    seat = board.seated()
    with pytest.raises(ValueError, match="not in list"):
        board.seated()
    seat.work()
    seat.leave()
    assert not board.seated().busy
