"""Hosts in etcd: a record that stays, and a key with a lease that says that the host is heard of."""

from __future__ import annotations

import math
import os
import time
from contextlib import suppress

from cni.cluster.config import EtcdConfig
from cni.cluster.etcd.engine import Attempts, Engine
from cni.cluster.etcd.gateway import Row, delete, encoded, is_at, put
from cni.cluster.etcd.keys import TURN, VOICE
from cni.cluster.etcd.listing import listed
from cni.cluster.model import Alive, Block, Node
from cni.cluster.store import Session
from cni.errors import NameTaken, SessionLost, Unreachable
from cni.kernel.clock import boottime

#: A session that nobody renews is gone after its seconds; etcd looks for such every half second.
_MARGIN, _POLL = 2.0, 0.2
#: What is said before a process has spoken is older.
_NEVER = math.inf


class Hosts(Engine):
    """Who is there. See ClusterStore for each method."""

    def __init__(self, config: EtcdConfig, seconds: float) -> None:
        super().__init__(config, seconds)
        self._leases: dict[str, str] = {}
        #: By the session there is: at which revision this process spoke last, and what it said.
        self._spoken: dict[str, tuple[float, bytes]] = {}

    def join(self, me: Node, token: str) -> Session:
        """See ClusterStore."""
        attempts = self.attempts()
        while True:
            attempts.begin()
            known, alive = self._when_free(me, token)
            session = self._resumed(me, token, alive) if alive else self._begun(attempts, me, token, known)
            if session:
                return session

    def _when_free(self, me: Node, token: str) -> tuple[Row | None, Row | None]:
        """What is under the name, when no other life of the host is heard of any more. Raises NameTaken."""
        gives_up = 0.0
        while True:
            known, alive = self.look(me.key, (Alive.room, me.name))
            node = self.item(known)
            if known and not (isinstance(node, Node) and node.machine == me.machine):
                raise NameTaken(f"{me.name} is the name of another machine of the cluster")
            if not alive or self.item(alive) == Alive(me.name, token):
                return known, alive
            gives_up = gives_up or boottime() + self.gateway.granted(alive.lease) + _MARGIN
            if boottime() > gives_up:
                raise NameTaken(f"{me.name} lives in the cluster, in another life that is still heard of")
            time.sleep(_POLL)

    def _begun(self, attempts: Attempts, me: Node, token: str, known: Row | None) -> Session | None:
        lease, seconds = self._lease(me.name)
        life = Alive(me.name, token)
        at, alive = self.keys.of(me.key), self.keys.of(life.key)
        as_seen = [is_at(alive, created=0), is_at(at, modified=known.modified if known else 0)]
        written = attempts.write(as_seen, [put(alive, life.value, lease), put(at, me.value)])
        return Session(me, token, str(written), lease, seconds) if written else None

    def _lease(self, name: str) -> tuple[str, float]:
        """That of an earlier attempt to join, while it goes on: with the session ends what of that attempt is still on its way."""
        lease = self._leases.get(name, "")
        if lease and (seconds := self.gateway.keep(lease)):
            return lease, seconds
        self._leases[name], seconds = self.gateway.lease(self.seconds)
        return self._leases[name], seconds

    def _resumed(self, me: Node, token: str, alive: Row) -> Session | None:
        seconds = self.gateway.keep(alive.lease)
        if not seconds:  # it has ended, and its key goes in a moment
            time.sleep(_POLL)
            return None
        with suppress(SessionLost):
            return self.announce(Session(me, token, str(alive.created), alive.lease, seconds), me)
        return None

    def renew(self, session: Session) -> None:
        """See ClusterStore."""
        heard = self.gateway.keep(session.lease)
        (alive,) = self.look((Alive.room, session.node.name))
        self.unless_lost(session, alive if heard else None)

    def speak(self, session: Session) -> None:
        """See ClusterStore.

        Who speaks compares that nobody did since he spoke last: revisions only grow, and what is older than his own is of a backup. His
        answer may have been lost; then what he said is there.
        """
        at, attempts = self.keys.of((VOICE, session.node.name)), self.attempts()
        while True:
            attempts.begin()
            alive, heard = self.look((Alive.room, session.node.name), (VOICE, session.node.name))
            self.unless_lost(session, alive)
            spoken, words = self._spoken.get(session.fence, (_NEVER, b""))
            if heard and heard.modified > spoken and heard.value != words:
                raise NameTaken(
                    f"{session.node.name} lives in the cluster, and so does another machine with its memory"
                )
            value = {"token": session.token, "words": os.urandom(16).hex()}
            self._spoken = {session.fence: (heard.modified if heard else 0, encoded(value))}
            as_seen = [self.lives(session), is_at(at, modified=heard.modified if heard else 0)]
            if written := attempts.write(as_seen, [put(at, value, session.lease)]):
                self._spoken = {session.fence: (written, encoded(value))}
                return

    def announce(self, session: Session, me: Node) -> Session:
        """See ClusterStore."""
        attempts = self.attempts()
        while True:
            attempts.begin()
            alive, known = self.look((Alive.room, me.name), me.key)
            self.unless_lost(session, alive)
            as_seen = is_at(at := self.keys.of(me.key), modified=known.modified if known else 0)
            if self.item(known) == me or attempts.write([self.lives(session), as_seen], [put(at, me.value)]):
                break
        return session._replace(node=me)

    def turn(self, session: Session, what: str, seconds: float) -> bool:
        """See ClusterStore."""
        at, mine = self.keys.of((TURN, what)), {"node": session.node.name, "token": session.token}
        attempts = self.attempts()
        while True:
            attempts.begin()
            alive, taken = self.look((Alive.room, session.node.name), (TURN, what))
            self.unless_lost(session, alive)
            if taken:
                return taken.value == encoded(mine) and self.gateway.keep(taken.lease) > 0
            lease, _ = self.gateway.lease(seconds)
            if attempts.write([self.lives(session), is_at(at, created=0)], [put(at, mine, lease)]):
                return True

    # --- who goes

    def leave(self, session: Session) -> None:
        """See ClusterStore."""
        me, attempts = session.node, self.attempts()
        gone = [delete(self.keys.of((room, me.name))) for room in (Alive.room, VOICE)]
        while True:
            attempts.begin()
            known, alive = self.look(me.key, (Alive.room, me.name))
            node = self.item(known)
            if (isinstance(node, Node) and node.machine != me.machine) or (
                alive and str(alive.created) != session.fence
            ):
                raise NameTaken(f"{me.name} is the name of another by now, whose blocks stay")
            if not alive or attempts.write([self.lives(session)], gone):
                break
        self._clear(me.name, me.machine)
        with suppress(Unreachable):  # it ends by itself
            self.gateway.end(session.lease)

    def remove(self, node: str) -> list[Block]:
        """See ClusterStore."""
        return self._clear(node)

    def _clear(self, name: str, machine: str = "") -> list[Block]:
        """Let nothing be left of a host that is not alive; the blocks it had."""
        self._is_gone(name)
        freed = []
        for block in listed(self.gateway, self.keys, self.keys.blocks()).items:
            if isinstance(block, Block) and block.node == name and machine in ("", block.machine):
                self._free(block)
                freed.append(block)
        self._forget(name)
        return freed

    def _free(self, block: Block) -> None:
        attempts, at = self.attempts(), self.keys.of(block.key)
        while True:
            attempts.begin()
            (seen,) = self.look(block.key)
            if not seen or self.item(seen) != block:
                return
            as_seen = [self._is_not_alive(block.node), is_at(at, modified=seen.modified)]
            if attempts.write(as_seen, [delete(at), delete(self.keys.endpoints(block))]):
                return
            self._is_gone(block.node)

    def _forget(self, name: str) -> None:
        at, attempts = self.keys.of((Node.room, name)), self.attempts()
        while True:
            attempts.begin()
            (seen,) = self.look((Node.room, name))
            if not seen or attempts.write([self._is_not_alive(name), is_at(at, modified=seen.modified)], [delete(at)]):
                return
            self._is_gone(name)

    def _is_not_alive(self, name: str) -> dict[str, object]:
        return is_at(self.keys.of((Alive.room, name)), created=0)

    def _is_gone(self, name: str) -> None:
        """Raise NameTaken where somebody is alive under a name."""
        (alive,) = self.look((Alive.room, name))
        if alive:
            raise NameTaken(f"{name} is alive: it leaves by itself, or is to be stopped first")
