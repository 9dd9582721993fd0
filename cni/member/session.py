"""This host's session: it joins, is heard of, says what changed of the host, and joins anew when it was counted as gone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from threading import Event, Lock

from cni.cluster.config import ClusterConfig
from cni.cluster.model import Node
from cni.cluster.store import ClusterStore, Session
from cni.errors import CniError, NameTaken, SessionLost, Unavailable, Unreachable
from cni.kernel.clock import boottime
from cni.member import figures
from cni.member.fence import Fence
from cni.member.identity import address_of, new_token, node_of, placed, this_host
from cni.member.inbox import Ended
from cni.member.key import Key
from cni.member.trouble import Trouble
from cni.state import Store
from cni.state.membership import SHUT, Member
from cni.values import replace

#: Of a session, after what part it is renewed: two renewals may fail, and it goes on.
_RENEWED_AFTER = 1 / 3
_TRIED_AGAIN_AFTER = 1.0
_UNASKED = "this host is back in the cluster, and has not asked yet whether its blocks are still its own"
_KINDS: dict[type[CniError], str] = {Unreachable: "unreachable", NameTaken: "name_taken"}


class SessionKeeper:
    """The session there is, kept by a thread of its own; `joined` is called with each new one."""

    def __init__(
        self, config: ClusterConfig, store: ClusterStore, folder: Path, machine: str, joined: Callable[[], None]
    ) -> None:
        self._config = config
        self._store = store
        self._folder = folder
        self._machine = machine
        self._joined = joined
        #: Where the cluster is encrypted.
        self.key = Key(folder) if config.encryption else None
        self._trouble = Trouble("session")
        self._session: Session | None = None
        self._confirmed = ""  # the fence of the session in which the store was asked for every block
        self._told = ""  # what people are told of the trouble there is
        self._unwritten = ""  # why nothing can be written, while this host is heard of
        self._abandoned = ("", "")  # the token that is another machine's too, and why
        self._host: Member | None = None
        #: Where others are to send, and may, by this host's uplinks, once they were looked at.
        self._place, self._uplinks = "", tuple[str, ...]()
        #: Whether the store has no record of this host any more, while it is heard of: somebody deleted it.
        self._is_forgotten = False
        self._lock = Lock()
        self._wake = Event()
        self._fence = Fence(config.free_after)
        #: This host as the others know it, or are to; None before it is known itself.
        self.me: Node | None = None
        #: Whether the store was asked by now; the state says what came of it.
        self.has_asked = False
        #: How it is, for people.
        self.status = "joining the cluster"

    @property
    def session(self) -> Session | None:
        """The one that is thought to go on, None while there is none."""
        with self._lock:
            return self._session

    @property
    def host(self) -> Member | None:
        """This host as it was found last."""
        with self._lock:
            return self._host

    @property
    def is_troubled(self) -> bool:
        """Whether it was said that something is wrong, and is."""
        return self._trouble.is_there

    def move(self, place: str, uplinks: tuple[str, ...]) -> None:
        """Be where others send to by another uplink from now on; the store hears of it as soon as it can. Raises what keeps the state."""
        with self._lock:
            self._place, self._uplinks = place, uplinks
            self._host = self._host and self._moved(self._host)
        self._change(lambda known: known and self._moved(known))
        self.hasten()

    def hasten(self) -> None:
        """Have the store hear now what is new of this host."""
        self._wake.set()

    def forgotten(self) -> None:
        """The store has the record of this host no more: it is to have it again, if the session goes on."""
        self._is_forgotten = True
        self._wake.set()

    def lost(self, session: Session) -> None:
        """Somebody was told that it is over: there is to be another."""
        with self._lock:
            if self._session is not session:
                return
            self._session = None
        figures.SESSIONS_LOST.add()
        self._wake.set()

    def is_anothers(self, session: Session, why: str) -> None:
        """Another machine lives with the memory of this one, and so with its token: this one gives no address, and begins anew as itself."""
        with self._lock:
            self._abandoned = session.token, why
        self.lost(session)

    def is_confirmed(self, session: Session) -> bool:
        """Whether the store was asked, in a session, for every block this host thinks to have."""
        return session.fence == self._confirmed

    def confirm(self, session: Session) -> None:
        """It was: where the host was fenced it gives addresses again, once it is heard of anew."""
        self._confirmed = session.fence
        self._wake.set()

    def writes(self, why_not: str) -> None:
        """What is written is taken; or nothing is, for a reason people are told."""
        if why_not != self._unwritten:
            self._unwritten = why_not
            self._wake.set()

    def run(self) -> None:
        """Keep it, for ever."""
        while True:
            self._wake.wait(self.step())
            self._wake.clear()

    def step(self) -> float:
        """Join, or be heard of; after how many seconds to come again. What cannot be is kept in the state, for people."""
        seconds = self._asked()
        self.has_asked |= seconds > 0  # at once again: it was not answered
        return seconds

    def _asked(self) -> float:
        session = self.session
        try:
            if session is None:
                self._join()
            else:
                self._renew(session)
        except SessionLost:
            if session:
                self.lost(session)
            return 0
        except CniError as error:
            figures.STORE_ERRORS.add(kind=_KINDS.get(type(error), "other"))
            self._say(_in_words(error, self._config.node), is_another=isinstance(error, NameTaken))
            return self._config.session * _RENEWED_AFTER if isinstance(error, NameTaken) else _TRIED_AGAIN_AFTER
        self._trouble.over()
        return self._config.session * _RENEWED_AFTER

    def _join(self) -> None:
        member = self._prepared()
        heard_at = boottime()
        session = self._store.join(self._node(member), member.token)
        with self._lock:
            self._session = session
        self._keep(session, member, heard_at)
        self._joined()

    def _renew(self, session: Session) -> None:
        member = replace(self._found(self._member()), token=session.token)
        heard_at = boottime()
        self._store.renew(session)
        figures.RENEWALS.add()
        forgotten, self._is_forgotten = self._is_forgotten, False
        if (me := self._node(member)) != session.node or forgotten:
            self._announce(session, me)
        self._keep(session, member, heard_at)

    def _announce(self, session: Session, me: Node) -> None:
        announced = self._store.announce(session, me)
        with self._lock:
            if self._session is session:
                self._session = announced
        self.me = me
        self._joined()

    def _prepared(self) -> Member:
        """This host, in the state before the store hears of it: a token that is lost would be another life."""
        before = self._member()
        if before and before.leaving:
            raise Ended
        with self._lock:
            abandoned, why = self._abandoned
        if before and before.token == abandoned:
            before = replace(before, token=new_token(), fenced_at=SHUT, trouble=why)
        member = self._found(before)
        self._refuse_renamed(member.node)
        goes_on = before is not None and before.token == member.token
        member = self._fence.before_joining(member, is_new=not goes_on)
        if not goes_on:
            member = replace(member, trouble=f"{member.node} has not joined the cluster yet")
        self._put(member)
        self.me = self._node(member)
        return member

    def _refuse_renamed(self, name: str) -> None:
        """Raise Unavailable where this host's blocks are under another name, which nobody keeps alive then."""
        with closing(Store.open(self._folder)) as state:
            others = {holding.block.node for holding in state.blocks()} - {name}
        if others:
            raise Unavailable(
                f"this host has blocks as {', '.join(sorted(others))}: it cannot be {name} before agent-cni leave"
            )

    def _found(self, before: Member | None) -> Member:
        """This host as it is now."""
        config = self._config
        member = this_host(config, self._machine, before, "" if config.vtep or config.uplinks else self._said(before))
        with self._lock:
            self._host = member = self._moved(member)
        return member

    def _moved(self, member: Member) -> Member:
        """A host where its uplinks say it is: what was found, or is known, may be of before."""
        return placed(member, self._config.encryption, self._place) if self._place else member

    def _said(self, before: Member | None) -> str:
        """Where the store says this host is: as before, while it cannot be asked, and until it is heard of, which is not to wait for that."""
        if before and not self.session:
            return address_of(before)
        try:
            return self._store.reached_at(self._config.node)
        except Unreachable:
            return address_of(before)

    def _node(self, member: Member) -> Node:
        with closing(Store.open(self._folder)) as state:
            key = self.key.public if self.key else ""
            return node_of(member, self._config, key, state.guest_of(), self._uplinks)

    def _keep(self, session: Session, member: Member, heard_at: float) -> None:
        """All is well, and was at a time; but the fence is not lifted before the blocks were asked for: while this host was away
        they may have become another's.
        """
        self.status = self._unwritten or f"in the cluster as {member.node}, at {member.vtep}"
        if member.fenced_at and not self.is_confirmed(session):
            self._put(replace(member, trouble=self._unwritten or _UNASKED))
        else:
            self._put(replace(self._fence.lifted(member, heard_at), trouble=self._unwritten))

    def _put(self, told: Member) -> None:
        def put(known: Member | None) -> Member:
            member = self._moved(told)
            if known and known.encryption == member.encryption:  # what the hand has said meanwhile
                return replace(member, no_tunnel=known.no_tunnel)
            return member

        self._change(put)

    def _change(self, change: Callable[[Member | None], Member | None]) -> None:
        """Have the state say of this host what comes of what it says, unless it leaves. Who has nothing to write waits for no writer."""
        with closing(Store.open(self._folder)) as state:
            if change(known := state.member()) == known:
                return
            with state.transaction():
                known = state.member()
                if (now := change(known)) and now != known and not (known and known.leaving):
                    state.put_member(now)

    def _member(self) -> Member | None:
        with closing(Store.open(self._folder)) as state:
            return state.member()

    def _say(self, why: str, *, is_another: bool) -> None:
        """Have people know what is wrong, from when on. Who is not who it says gives no address: its blocks may be the other's."""
        if self._trouble.is_so(why):
            self.status, self._told = why, f"{why} (since {self._trouble.since})"

        def tell(known: Member | None) -> Member | None:
            if known is None:
                return None
            return replace(known, trouble=self._told, fenced_at=SHUT if is_another else known.fenced_at)

        with suppress(CniError):  # the state is in use, or damaged: the next attempt tells it
            self._change(tell)


def _in_words(error: CniError, name: str) -> str:
    if isinstance(error, NameTaken):
        return f"this host may not be {name} in the cluster: {error.msg}"
    if isinstance(error, Unreachable):
        return f"the cluster's store is not reached: {error.msg}"
    return error.msg
