"""Attachments that have their rules in their pods, which the member may not enter: the node agent holds them to what their feeds say."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from cni.errors import CniError, TryAgainLater, Unavailable
from cni.kernel.errand import Errand
from cni.member.backoff import Backoff
from cni.state.fed import Fed

if TYPE_CHECKING:
    from cni.together import Followed

#: Seconds until it is looked for an answer, at first and at most, or for what is to come again.
_SOON, _LATE = 0.02, 1.0
#: How many the agent is asked about at a time: each is a look into a pod, and a worker serves nobody else meanwhile.
_AT_ONCE = 100
_WITHOUT = "rules in pods follow where the node agent runs (agent-cni serve), else by agent-cni refresh"


class Inside:
    """Those that are to be held, and what the agent was asked and did not answer yet; nobody waits for it."""

    def __init__(self) -> None:
        #: All that were ever due, as long as they are fed.
        self.known: set[Fed] = set()
        self._due: dict[Fed, None] = {}
        self._asked: list[Fed] = []
        self._errand: Errand | None = None
        self._asked_at = 0.0
        self._failed = Backoff[Fed]()

    def add(self, items: Iterable[Fed]) -> None:
        """Have these be held by the next `look`s."""
        found = dict.fromkeys(items)
        self._due |= found
        self.known |= found.keys()

    def keep(self, fed: Iterable[Fed]) -> None:
        """Know no others than these."""
        self.known &= set(fed)

    @property
    def owed(self) -> float:
        """Seconds until `look` is to be called; infinity where nothing is to be done."""
        if self._errand:
            return min(_LATE, max(_SOON, (time.monotonic() - self._asked_at) / 2))
        return _SOON if self._due else self._failed.owed

    def look(self, *, all_of_it: bool = False) -> tuple[int, list[CniError]]:
        """Hear what the agent answered, and ask it for what is due: how many were changed, and why some could not be held."""
        if self.owed == math.inf:
            return 0, []
        from cni import together  # of no use where nobody has rules in a pod

        found = self._heard()
        self._due |= dict.fromkeys(found.again) | self._failed.due(all_of_it=all_of_it)
        if self._due and not self._errand:
            self._asked = list(self._due)[:_AT_ONCE]
            for item in self._asked:
                del self._due[item]
            try:
                self._errand, self._asked_at = Errand(together.question(self._asked)), time.monotonic()
            except TryAgainLater:
                self._due |= dict.fromkeys(self._asked)
            except CniError as error:
                found.failed |= dict.fromkeys(self._asked, Unavailable(f"{_WITHOUT}: {error.msg}"))
        for item in found.failed:
            self._failed.failed(item)
        return len(found.changed), list(found.failed.values())

    def _heard(self) -> Followed:
        from cni import together

        said = self._errand.answer() if self._errand else None
        if said is None or self._errand is None:
            return together.Followed()
        self._errand.close()
        self._errand = None
        try:
            found = together.answered(self._asked, said)
        except CniError as error:
            return together.Followed(failed=dict.fromkeys(self._asked, error))
        for item in set(self._asked).difference(found.failed, found.again):
            self._failed.over(item)
        return found
