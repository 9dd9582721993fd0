"""Who is at work, in memory the pool and its workers share: nobody is woken to be told what he need not act on."""

from __future__ import annotations

import mmap
import time

from cni.values import dataclass

_SECONDS = 8  # a double


class Scoreboard:
    """Slots for at most `places` workers, seen by every process that is forked after it was made."""

    def __init__(self, places: int) -> None:
        #: Since when a worker is busy, or, negative, idle; 0 where the slot is free (time.monotonic).
        self._since: memoryview[float] = memoryview(mmap.mmap(-1, places * _SECONDS)).cast("d")

    def claim(self) -> Slot:
        """A free slot, idle from now on. ValueError where there is none."""
        slot = Slot(self._since, self._since.tolist().index(0))
        slot.rest()
        return slot


@dataclass(frozen=True)
class Slot:
    """One worker's place on the scoreboard."""

    _since: memoryview[float]
    _number: int

    def work(self) -> None:
        """Be busy from now on."""
        self._since[self._number] = time.monotonic()

    def rest(self) -> None:
        """Be idle from now on."""
        self._since[self._number] = -time.monotonic()

    def release(self) -> None:
        """Leave the slot to another worker."""
        self._since[self._number] = 0

    @property
    def busy(self) -> bool:
        """Whether its worker serves a call."""
        return self._since[self._number] > 0

    @property
    def is_last(self) -> bool:
        """Whether no worker of the whole scoreboard is left for the next call."""
        return all(since >= 0 for since in self._since)

    @property
    def seconds(self) -> float:
        """For how long it has been busy or idle."""
        return time.monotonic() - abs(self._since[self._number])
