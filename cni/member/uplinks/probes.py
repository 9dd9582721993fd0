"""Neighbours on uplinks, asked again and again by the kernel: one who is asked three times and says nothing is silent."""

from __future__ import annotations

from collections.abc import Collection
from math import inf
from typing import NamedTuple

from cni.kernel.netlink.reachability import Asking
from cni.kernel.view import ANSWERS, ASKED, FIXED, LinkRef

#: Seconds: in which an answer is to come; after which one who answered is asked again; and one who is silent, of everybody on the link.
WAIT, _EVERY, _SILENT_EVERY = 0.2, 0.3, 1.0
#: How many questions in a row nobody answers who is silent. The last is for everybody on the link: on one wire with two links of his a
#: host answers by either (arp_ignore in ip-sysctl), and one who was at the other's MAC is here still.
_LOST = 3


class Target(NamedTuple):
    """Who is asked: an address on a link."""

    link: LinkRef
    address: str


class _Known:
    """What came of it so far; `answers` None: nobody can say yet."""

    def __init__(self) -> None:
        self.answers: bool | None = None
        self.lost = 0
        self.asked_at = -inf


class Probes:
    """What is known of each target. One thread's."""

    def __init__(self, host: Asking) -> None:
        self._host = host
        self._known: dict[Target, _Known] = {}

    def ask(self, targets: Collection[Target], now: float) -> None:
        """Hear of those who were asked, and ask those whose turn it is: call it every WAIT seconds. Raises KernelRefused."""
        self._known = {target: self._known.get(target) or _Known() for target in targets}
        for target, known in self._known.items():
            if now - known.asked_at >= WAIT:
                self._look(target, known, now)

    def answers(self, target: Target) -> bool | None:
        """Whether somebody answers there; None where that is not known yet."""
        return self._known[target].answers

    def _look(self, target: Target, known: _Known, now: float) -> None:
        state = self._host.reachability(*target)
        is_asked = known.asked_at > -inf
        if state == FIXED or (state == ANSWERS and is_asked):
            known.answers, known.lost = True, 0
        due = known.asked_at + (_EVERY if state == ANSWERS else WAIT if known.answers else _SILENT_EVERY)
        if state == FIXED or now < due:
            return
        if state != ANSWERS and is_asked:
            known.lost += 1
            known.answers = False if known.lost >= _LOST else known.answers
        if state == ANSWERS or (state == ASKED and known.answers and known.lost < _LOST - 1):
            self._host.ask_again(*target)
        else:
            self._host.ask_all(*target)
        known.asked_at = now
