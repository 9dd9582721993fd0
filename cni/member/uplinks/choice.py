"""Which uplink a host takes, by who answers behind each. Pure: what was seen, and when.

The one that is taken is left at once for a better one, and for one that is as good, and that the host is to prefer, only after a
while: one that comes and goes is not followed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

#: What is behind an uplink: no link that carries anything, or no address; nobody who answers; hosts of the cluster, and no gateway;
#: a gateway.
NOTHING, NOBODY, HOSTS, GATEWAY = range(4)
#: For how many seconds another is to be better: two that fail together are not noticed at the same time.
_SETTLED = 0.15
#: For how many seconds one is to be as good, at first; twice as long each time it failed soon after that, up to the last.
HOLD, _HOLD_AT_MOST = 10.0, 300.0
#: What is soon.
_STEADY = 60.0


class Seen(NamedTuple):
    """What is behind an uplink: one of the above, and how many hosts of the cluster answer, where they are asked."""

    name: str
    behind: int
    hosts: int = 0

    @property
    def worth(self) -> tuple[int, int]:
        """By what uplinks are compared."""
        return self.behind, self.hosts


class Choice:
    """What was decided last, and since when something else is to be considered."""

    def __init__(self, taken: str) -> None:
        self.taken = taken
        self._better, self._preferred = _Considered(), _Considered()
        self._hold, self._returned_at = HOLD, float("-inf")

    def decide(self, now: float, seen: Sequence[Seen]) -> str:
        """The one to be taken from now on; `seen` are all uplinks, those to be preferred first. `now` is in seconds of any clock."""
        taken = next((item for item in seen if item.name == self.taken), Seen(self.taken, NOTHING))
        best = max(seen, key=lambda item: item.worth)
        first = next(item for item in seen if item.worth == best.worth)
        better = first.name if best.worth > taken.worth else ""
        preferred = first.name if not better and best.behind > NOBODY and first.name != self.taken else ""
        is_better = self._better.since(better, now) >= _SETTLED or taken.behind == NOTHING
        is_preferred = self._preferred.since(preferred, now) >= self._hold
        if better and is_better:
            self._take_better(better, now)
        elif preferred and is_preferred:
            self.taken, self._returned_at = preferred, now
        return self.taken

    def _take_better(self, name: str, now: float) -> None:
        """The one that is left so soon after it was taken back is to be longer without a fault."""
        soon = now - self._returned_at < _STEADY
        self._hold = min(2 * self._hold, _HOLD_AT_MOST) if soon else HOLD
        self.taken = name


class _Considered:
    """An uplink that may be taken, if any, and since when."""

    def __init__(self) -> None:
        self._name, self._at = "", 0.0

    def since(self, name: str, now: float) -> float:
        """For how many seconds it was this one without a break."""
        if name != self._name:
            self._name, self._at = name, now
        return now - self._at
