"""What is told of a packet's way: where it was, what became of it there, and where it ends."""

from __future__ import annotations

from typing import NamedTuple

from cni.reach.packet import Packet
from cni.reach.place import At, Place
from cni.reach.rules import Ruling


class Hop(NamedTuple):
    """One step, in words."""

    where: str
    says: str


class End(NamedTuple):
    """Where a packet ends: `kind` is delivered, denied by rules, refused by them with word to the sender, lost, intercepted, which is
    delivered to a proxy's port, or beyond: on a wire or in a tunnel, `at` which link. `packet` is what was left of it by then.
    """

    kind: str
    where: str
    why: str = ""
    mend: str = ""
    packet: Packet | None = None
    at: At | None = None
    ruling: Ruling | None = None


def lost(where: str, why: str, mend: str = "") -> End:
    """It gets no further."""
    return End("lost", where, why, mend)


def repaired(place: Place) -> str:
    """The command that makes what we made of a place so again, in place."""
    return f"agent-cni repair {'--all' if place.is_node else place.name}"


def stopped(where: str, hook: str, ruling: Ruling) -> End:
    """Rules let it through no further."""
    kind = "refused" if ruling.verb == "reject" else "denied"
    return End(kind, where, f"{ruling.verb} at {hook} by {ruling.by}", ruling=ruling)
