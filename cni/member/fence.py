"""How a host that is cut off gives up its addresses by itself (freeAfter), before others may have them.

Counted from when it was heard of last, by a clock that goes on while the host sleeps and that nobody sets: at half of the time no
address is given any more, at three quarters the kernel passes nothing of its pods (barrier.py), and at the end others free its
blocks (freeing.py).
"""

from __future__ import annotations

from cni.kernel.clock import boottime
from cni.state.membership import Member
from cni.values import replace

_GIVES, _PASSES = 1 / 2, 3 / 4


class Fence:
    """`free_after` seconds; 0 is never."""

    def __init__(self, free_after: int) -> None:
        self.free_after = free_after

    def before_joining(self, member: Member, *, is_new: bool) -> Member:
        """A host as it is to be before the store hears of it: fenced never later than it was, and by the shorter of what the
        store was told and is about to be, whose answer may be lost. One that begins gives nothing yet.
        """
        now = boottime()
        fenced_at = now if is_new and self.free_after else self.after(now)
        return replace(
            member,
            fenced_at=min(filter(None, (member.fenced_at, fenced_at)), default=0.0),
            fences=min(filter(None, (member.fences, self.free_after)), default=0),
        )

    def lifted(self, member: Member, heard_at: float) -> Member:
        """The same, once the store has heard of this host as it is now, at that time or later."""
        return replace(member, fenced_at=self.after(heard_at), fences=self.free_after)

    def after(self, heard_at: float) -> float:
        """When no address is given any more, of a host that was heard of at a time."""
        return heard_at + self.free_after * _GIVES if self.free_after else 0.0

    def seconds(self, member: Member | None) -> int:
        """What the others go by: what the store was told last, whatever it is to be told."""
        return (member.fences if member else 0) or self.free_after

    def passes_until(self, member: Member | None) -> float:
        """When the kernel passes nothing of the pods any more; of a host that was never fenced: counted from now. It is to be so
        before the store hears of a shorter time, and so it is by that already.
        """
        seconds, now = self.seconds(member), boottime()
        gives_until = (member.fenced_at if member else 0.0) or now + seconds * _GIVES
        return min(gives_until + seconds * (_PASSES - _GIVES), now + (self.free_after or seconds) * _PASSES)
