"""What the member does to the kernel: what the cluster knows of other hosts, made so here.

One thread alone uses it. What it is not told, it does not touch: before the first Listing nothing is taken away.
"""

from __future__ import annotations

from pathlib import Path

from cni.cluster.model import Node
from cni.cluster.snapshot import Snapshot
from cni.cluster.store import Change, Listing


class Reconciler:
    """This host's part of every network it shares. Every method is bounded in time and raises no CniError: what the kernel refuses
    is logged, and tried again with the next comparison.
    """

    def __init__(self, me: Node, folder: Path) -> None:
        self._me, self._folder = me, folder
        self.snapshot = Snapshot(me.name)

    def heard(self, news: Listing | Change) -> int:
        """Make what is new so; how many rows of the kernel were changed."""
        self.snapshot.apply(news)
        return 0

    def look(self) -> int:
        """See whether this host shares another network now, or has another device of one, and make that so: for when the bell
        rings, and every second. How many rows were changed; without a change it costs two queries.
        """
        return 0

    def compare(self) -> int:
        """Compare all with what the kernel has: how many rows were mended."""
        return 0

    def clear(self) -> None:
        """Take away all that is ours: this host leaves."""
