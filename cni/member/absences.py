"""Since when other hosts are away, as far as it was seen from here: the store knows only that they are."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

from cni.cluster.snapshot import Snapshot
from cni.errors import CniError
from cni.state import Store


class Absences:
    """What the hand has seen of them, which the state keeps for people."""

    def __init__(self, node: str, folder: Path) -> None:
        self._node, self._folder = node, folder
        self._away: set[str] | None = None

    def see(self, snapshot: Snapshot) -> None:
        """Keep who is away by now. Of hosts that were when the first listing came it is not known since when, unless an earlier
        member saw them go; what cannot be kept now is with the next news.
        """
        away = snapshot.nodes.keys() - snapshot.alive.keys() - {self._node}
        if away == self._away:
            return
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()) if self._away is not None else ""
        try:
            with closing(Store.open(self._folder)) as state, state.transaction():
                state.keep_away(away, since)
        except CniError:
            return
        self._away = away
