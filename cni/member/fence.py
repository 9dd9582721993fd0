"""How a host that is cut off gives up its addresses by itself (freeAfter), before others may have them.

Counted from when it was heard of last, by a clock that goes on while the host sleeps and that nobody sets: at half of the time no
address is given any more.
"""

from __future__ import annotations

import time

from cni.state.membership import Member

_HALF = 1 / 2


class Fence:
    """`free_after` seconds; 0 is never."""

    def __init__(self, free_after: int) -> None:
        self._free_after = free_after

    @staticmethod
    def now() -> float:
        """The time, in seconds (CLOCK_BOOTTIME, clock_gettime(2))."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def before_joining(self, before: Member | None) -> float:
        """When no address is given any more, as it is to be before the store hears of it: never later than it was."""
        if before is None:
            return self.now() if self._free_after else 0.0
        if self._free_after and not before.fenced_at:
            return self.now() + self._free_after * _HALF
        return before.fenced_at

    def after(self, heard_at: float) -> float:
        """The same, once the store has heard of this host, at that time or later."""
        return heard_at + self._free_after * _HALF if self._free_after else 0.0
