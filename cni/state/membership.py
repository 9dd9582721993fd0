"""What is kept of a cluster, as values; `clustered.py` and `endpoints.py` keep it, and load them when there is something kept."""

from __future__ import annotations

from typing import NamedTuple

from cni.cluster.model import Block, Endpoint
from cni.values import dataclass

#: A block is given from; on its way back to the cluster; somebody else's by now, while pods of ours have addresses of it; or, in a
#: state that is an older copy, not looked at yet.
HELD, LEAVING, LOST, UNSURE = "held", "leaving", "lost", "unsure"

#: Since when no address is given, where that is not for want of time but for what `trouble` says (CLOCK_BOOTTIME; 0 is never).
SHUT = 1.0


@dataclass(frozen=True)
class Member:
    """This host in its cluster. `trouble` is why nothing new can be had of the cluster now, for people; empty when all is well.
    After `fenced_at`, in seconds of CLOCK_BOOTTIME, no address is given any more; 0 is never. `fences` is the freeAfter it goes by, in seconds. Where the cluster is encrypted
    `vtep` is inside the tunnels and `underlay` outside of them, and nobody is attached to an overlay while there is none:
    `no_tunnel` is why, for people. One that is `leaving` goes on with that, and with nothing else.
    """

    node: str
    machine: str
    token: str
    vtep: str
    mac: str
    encryption: str = ""
    trouble: str = ""
    fenced_at: float = 0.0
    underlay: str = ""
    no_tunnel: str = ""
    leaving: bool = False
    fences: int = 0


class Wish(NamedTuple):
    """What a call waits for: one more block of a family, or that of a certain address. `answer` is why it cannot be had."""

    network: str
    family: int
    address: str = ""
    answer: str = ""


class Holding(NamedTuple):
    """A block of this host, in one of the states above, and how many of its addresses are leased."""

    block: Block
    state: str
    leased: int


class Unsaid(NamedTuple):
    """Of an address, what the cluster is to know and what it was told; None is nothing."""

    network: str
    address: str
    wanted: Endpoint | None
    published: Endpoint | None
