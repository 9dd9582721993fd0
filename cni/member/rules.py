"""Rules of pods on this host that somebody else took away: a thread hears of it from the kernel, the hand puts them back (vigil.py)."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import closing, suppress

from cni.errors import CniError, Conflict
from cni.kernel.rule_events import Changed, RuleEvents
from cni.state.daemons import GUARD, alone
from cni.vigil import Vigil, gone_before

#: Between two tries to be the one who watches, in seconds; the node agent may be.
_RIVALLED = 10.0


class Rules:
    """`look` is the hand's, `watch` a thread's."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._told: deque[Changed] = deque()
        self._vigil = Vigil()
        self._begins = False

    @property
    def owed(self) -> float:
        """Seconds until there is something to do."""
        return 0.0 if self._told or self._begins else self._vigil.owed

    def look(self) -> None:
        """Put back what is to be, also what went while nobody watched. Nothing raises a CniError."""
        if self._begins:
            self._begins = False
            with suppress(CniError):  # a state that cannot be read is told by others
                self._vigil.heard(gone_before())
        while self._told:
            self._vigil.heard([self._told.popleft()])
        self._vigil.act()

    def watch(self) -> None:
        """Hear what others do, for ever, as soon as nobody else on the host does."""
        while True:
            with suppress(Conflict), alone(GUARD), closing(RuleEvents()) as events:
                self._begins = True
                self._wake()
                while True:
                    self._told += events.heard(None)
                    self._wake()
            time.sleep(_RIVALLED)
