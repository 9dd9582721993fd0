"""The clock that goes on while the machine sleeps, and that nobody sets."""

from __future__ import annotations

import time


def boottime() -> float:
    """The time since boot, in seconds (CLOCK_BOOTTIME, clock_gettime(2))."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
