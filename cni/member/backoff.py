"""What failed and is tried again: after a second, and each time it fails once more after twice as long, up to a minute."""

from __future__ import annotations

import math
import time
from collections.abc import Hashable
from typing import Generic, TypeVar

_FIRST, _LONGEST = 1.0, 60.0  # seconds

T = TypeVar("T", bound=Hashable)


class Backoff(Generic[T]):
    """Items that failed, each with when it is tried again."""

    def __init__(self) -> None:
        self._pauses: dict[T, float] = {}
        self._waiting: dict[T, float] = {}

    def failed(self, item: T) -> None:
        """Have it tried again later."""
        self._pauses[item] = min(2 * self._pauses.get(item, _FIRST / 2), _LONGEST)
        self._waiting[item] = time.monotonic() + self._pauses[item]

    def over(self, item: T) -> None:
        """It is done, or nobody's any more: the next time it fails is its first."""
        self._pauses.pop(item, None)
        self._waiting.pop(item, None)

    def due(self, *, all_of_it: bool = False) -> dict[T, None]:
        """What is to be tried now, which is nothing that waits any more; `all_of_it` whenever that would be."""
        now = time.monotonic()
        found = dict.fromkeys(item for item, at in self._waiting.items() if all_of_it or at <= now)
        for item in found:
            del self._waiting[item]
        return found

    @property
    def owed(self) -> float:
        """Seconds until something is to be tried; infinity where nothing failed."""
        return max(0.0, min(self._waiting.values(), default=math.inf) - time.monotonic())
