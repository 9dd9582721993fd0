"""Who is at work, in memory the pool and its workers share: nobody is woken to be told what he need not act on."""

from __future__ import annotations

import mmap
import time
from dataclasses import dataclass

_SECONDS = 8  # a double


class Board:
    """Seats for at most `places` workers, seen by every process that is forked after it was made."""

    def __init__(self, places: int) -> None:
        #: Since when a worker is busy, or, negative, idle; 0 where nobody sits (time.monotonic).
        self._since: memoryview[float] = memoryview(mmap.mmap(-1, places * _SECONDS)).cast("d")

    def seated(self) -> Seat:
        """A free seat, idle from now on. ValueError where there is none."""
        seat = Seat(self._since, self._since.tolist().index(0))
        seat.rest()
        return seat


@dataclass(frozen=True)
class Seat:
    """One worker's place on the board."""

    _since: memoryview[float]
    _number: int

    def work(self) -> None:
        """Be busy from now on."""
        self._since[self._number] = time.monotonic()

    def rest(self) -> None:
        """Be idle from now on."""
        self._since[self._number] = -time.monotonic()

    def leave(self) -> None:
        """Leave the seat to another worker."""
        self._since[self._number] = 0

    @property
    def busy(self) -> bool:
        """Whether its worker serves a call."""
        return self._since[self._number] > 0

    @property
    def is_last(self) -> bool:
        """Whether no worker of the whole board is left for the next call."""
        return all(since >= 0 for since in self._since)

    @property
    def seconds(self) -> float:
        """For how long it has been busy or idle."""
        return time.monotonic() - abs(self._since[self._number])
