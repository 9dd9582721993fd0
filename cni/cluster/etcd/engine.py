"""How anything is written to etcd: whoever writes looks first, and compares what it saw.

So a lost answer is no danger: one looks again. And a write that arrives late, after another, finds that its comparison is wrong.
"""

from __future__ import annotations

import time
from typing import Any

from cni.cluster.config import EtcdConfig
from cni.cluster.etcd.gateway import Gateway, Refused, Row, is_at
from cni.cluster.etcd.items import item_of
from cni.cluster.etcd.keys import Keys
from cni.cluster.fields import Malformed
from cni.cluster.model import Alive, Item, Key
from cni.cluster.store import Session
from cni.errors import SessionLost, Unreachable
from cni.kernel.clock import boottime

#: How often one looks again, and how long one waits before, at first.
_LOOKS, _PAUSE = 8, 0.01
#: A busy etcd may take a second for an answer, and there may be three to be asked.
_LEAST = 3.0


class Engine:
    """An etcd, and what all that is asked of it goes through. No request waits for more than a quarter of a session's `seconds`, or
    three seconds, and nobody looks again when that is over twice.
    """

    def __init__(self, config: EtcdConfig, seconds: float) -> None:
        self.seconds, self.patience = seconds, max(_LEAST, seconds / 4)
        self.gateway = Gateway(config, self.patience)
        self.keys = Keys(config.prefix)

    def look(self, *keys: Key) -> list[Row | None]:
        """What is under each key, at one revision."""
        return [rows[0] if rows else None for rows in self.gateway.look(*map(self.keys.of, keys)).rows]

    def item(self, row: Row | None) -> Item | None:
        """The item in a row; None also where it is none."""
        try:
            return item_of(self.keys, row) if row else None
        except Malformed:
            return None

    def lives(self, session: Session) -> dict[str, Any]:
        """The comparison that a session goes on."""
        return is_at(self.keys.of((Alive.room, session.node.name)), created=int(session.fence))

    def unless_lost(self, session: Session, alive: Row | None) -> None:
        """Raise SessionLost where what is alive under the name is not this session."""
        if not alive or str(alive.created) != session.fence:
            raise SessionLost(f"the session of {session.node.name} has ended: the cluster counts this host as gone")

    def attempts(self) -> Attempts:
        """To look and write, and look again."""
        return Attempts(self.gateway, 2 * self.patience)


class Attempts:
    """Whoever writes begins again until something is so."""

    def __init__(self, gateway: Gateway, seconds: float) -> None:
        self._gateway, self._until = gateway, boottime() + seconds
        self._begun = 0
        self._why = "others write to the same place all the time"

    def begin(self) -> None:
        """Look, and write. Raises Unreachable when that was done too often, or for too long."""
        if self._begun == _LOOKS or (self._begun and boottime() > self._until):
            raise Unreachable(self._why)
        time.sleep(_PAUSE * self._begun)
        self._begun += 1

    def write(self, compared: list[dict[str, Any]], operations: list[dict[str, Any]]) -> int:
        """The revision it is written at; 0 where that is not so, or not known: look again. Raises Refused, which stays so."""
        try:
            done = self._gateway.write(compared, operations)
        except Refused:
            raise
        except Unreachable as error:
            self._why = error.msg
            return 0
        return done.at.revision if done.held else 0
