"""How a host that is cut off gives up its addresses by itself (freeAfter), before others may have them.

Counted from when it was heard of last, by a clock that goes on while the host sleeps and that nobody sets: at half of the time no
address is given any more, at three quarters the kernel passes nothing of its pods (barrier.py), and at the end others free its
blocks (freeing.py).
"""

from __future__ import annotations

import time

from cni.state.membership import Member

_GIVES, _PASSES = 1 / 2, 3 / 4


def boottime() -> float:
    """The time, in seconds (CLOCK_BOOTTIME, clock_gettime(2))."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Fence:
    """`free_after` seconds; 0 is never."""

    def __init__(self, free_after: int) -> None:
        self.free_after = free_after

    def before_joining(self, before: Member | None) -> float:
        """When no address is given any more, as it is to be before the store hears of it: never later than it was."""
        if before is None:
            return boottime() if self.free_after else 0.0
        return before.fenced_at or self.after(boottime())

    def after(self, heard_at: float) -> float:
        """The same, once the store has heard of this host, at that time or later."""
        return heard_at + self.free_after * _GIVES if self.free_after else 0.0

    def passes_until(self, member: Member | None) -> float:
        """When the kernel passes nothing of the pods any more; of a host that was never fenced: counted from now."""
        gives_until = (member.fenced_at if member else 0.0) or self.after(boottime())
        return gives_until + self.free_after * (_PASSES - _GIVES)
