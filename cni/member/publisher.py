"""What calls have written, done in the store: blocks for those who wait, and the difference between what is wanted to be known of
pods and what was said of them, block by block.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from time import monotonic

from cni import log
from cni.cluster.model import Block, Endpoint
from cni.cluster.store import ClusterStore, Session
from cni.errors import CniError, NameTaken, SessionLost, Unreachable
from cni.kernel.bell import Bell
from cni.member import figures, survivors
from cni.member.estate import Estate
from cni.member.freeing import free
from cni.member.inbox import Ended, Inbox
from cni.member.ledger import Ledger
from cni.member.session import SessionKeeper
from cni.member.trouble import Trouble
from cni.naming import Attachment
from cni.state import Store
from cni.state.membership import HELD, LOST, UNSURE, Unsaid

#: How long a bell that was lost is missed, in seconds.
PATIENCE = 1.0
_MOST = 1000
#: After how many sessions it is asked whether another machine lives as this one: of itself, and of who writes.
_QUIET, _BUSY = 4.0, 1 / 3


class Publisher:
    """Does it, by a thread of its own, when the bell rings and every second."""

    def __init__(self, keeper: SessionKeeper, estate: Estate, folder: Path, bell: Bell, inbox: Inbox) -> None:
        self._keeper = keeper
        self._estate = estate
        self._store, self._ledger = estate.store, estate.ledger
        self._folder = folder
        self._bell = bell
        self._inbox = inbox
        self._trouble = Trouble("publish")
        self._failing_since: float | None = None
        #: When it was said last that this process is the one that lives in a session, by which clock (time.monotonic), and in which.
        self._spoke: tuple[str, float] = ("", 0.0)
        self._compared: tuple[Session | None, int, object, set[Block]] = (None, 0, None, set())
        #: In which session, and in which state's file, it was asked of the kernel which pods live.
        self._looked_round: tuple[str, object] = ("", None)

    def run(self) -> None:
        """Do it for ever."""
        while True:
            self.step()
            if self._bell.wait(PATIENCE):
                self._inbox.look()  # what a call has written is there before the store answers

    def step(self) -> None:
        """Do what there is to do, once, if this host is in the cluster and has heard what is in it. Raises Ended when it leaves."""
        try:
            with closing(Store.open(self._folder)) as state:
                if (member := state.member()) and member.leaving:
                    raise Ended
                if (session := self._keeper.session) and self._ledger.listings:
                    self.turn(session, state)
        except Unreachable as error:
            figures.STORE_ERRORS.add(kind="unreachable")
            self._failed(error.msg)
        except CniError as error:  # the state is in use, or damaged: calls are told so, too
            self._trouble.is_so(error.msg)
        else:
            self._trouble.over()
            self._keeper.writes("")
            self._failing_since = None

    def _failed(self, why: str) -> None:
        """Of a store that is away the session says so. If it goes on all the same, and longer than it could, writes alone fail."""
        self._failing_since = self._failing_since or monotonic()
        session = self._keeper.session
        if session and not self._keeper.is_troubled and monotonic() - self._failing_since > session.seconds:
            why = f"the cluster's store takes no writes: {why}"
            self._trouble.is_so(why)
            self._keeper.writes(f"{why} (since {self._trouble.since})")

    def turn(self, session: Session, state: Store) -> None:
        """The same, with what it takes. Raises Unreachable; another turn goes on."""
        before = state.changes
        try:
            self._speak(session, _QUIET)
            self._turn(session, state)
            if state.changes != before:
                self._speak(session, _BUSY)
        except SessionLost:
            self._keeper.lost(session)

    def _speak(self, session: Session, after: float) -> None:
        """Find out whether another machine lives with this one's memory, so many sessions after the last time. Raises Unreachable and
        SessionLost.
        """
        fence, spoke = self._spoke
        if fence == session.fence and monotonic() - spoke < after * session.seconds:
            return
        try:
            self._store.speak(session)
        except NameTaken as error:
            self._keeper.is_anothers(session, error.msg)
            raise SessionLost(error.msg) from None
        self._spoke = session.fence, monotonic()

    def _turn(self, session: Session, state: Store) -> None:
        before = state.changes
        try:
            self._hold(session, state)
        finally:
            if state.changes != before:
                self._inbox.look()
        for block in publish(self._store, session, state, self._ledger):
            self._estate.defend(session, state, block)
            self._inbox.look()
        free(self._store, session, self._ledger)
        if tuple(state.guest_of()) != session.node.guest_of:
            self._keeper.hasten()

    def _hold(self, session: Session, state: Store) -> None:
        """Have what this host is to have, here and there: the hand goes by it, and not by what is said of pods."""
        if state.is_older():
            state.doubt_copy()
        holdings = state.blocks()
        is_unsure = any(holding.state == UNSURE for holding in holdings)
        ours = {holding.block for holding in holdings if holding.state != LOST}
        ours |= {*self._ledger.own_blocks(session.node.machine)}
        if (now := (session, self._ledger.news, state.place, ours)) != self._compared or is_unsure:
            compare(state, self._ledger, ours)
        if (life := (session.fence, state.place)) != self._looked_round or is_unsure:
            survivors.take_up_nameless(state, ours, session.node.name)
        survivors.free_anothers(state, ours)
        self._compared, self._looked_round = now, life
        self._estate.look_after(session, state)
        self._confirm(session, state)

    def _confirm(self, session: Session, state: Store) -> None:
        """Ask once in a session for what a fenced host thinks to have: the ledger may be of before it was away."""
        member = state.member()
        if self._keeper.is_confirmed(session) or not (member and member.fenced_at):
            return
        for holding in state.blocks():
            if holding.state == HELD:
                self._estate.defend(session, state, holding.block)
        self._keeper.confirm(session)


def publish(store: ClusterStore, session: Session, state: Store, ledger: Ledger) -> list[Block]:
    """Say what is unsaid; the blocks that turned out not to be this host's. Raises Unreachable and SessionLost."""
    refused = []
    for block, some in _unsaid(state):
        there = [item.wanted for item in some if item.wanted]
        gone = [item.published for item in some if not item.wanted and item.published]
        with ledger.expecting(there, [item.key for item in gone]):
            said = store.publish(session, block, there, gone)
            if said:
                ledger.note(there, (item.key for item in gone))
        if not said:
            refused.append(block)
            continue
        figures.PUBLISHED.add(len(there), change="there")
        figures.PUBLISHED.add(len(gone), change="gone")
        _log("publish", there)
        _log("withdraw", gone)
        with state.transaction():
            for item in some:
                state.told(item.network, item.address, item.wanted)
    return refused


def _log(verb: str, pods: Iterable[Endpoint]) -> None:
    """Have a pod's trace say when the cluster was told of it."""
    for item in pods:
        if item.container:
            who = Attachment(item.network, item.container, item.ifname)
            log.event("member", verb, None, **who._asdict(), pod=item.pod, address=item.address)


def compare(state: Store, ledger: Ledger, ours: Iterable[Block]) -> None:
    """Take what the store says of this host's blocks for what it was told, so that what differs is said: nothing is kept there that
    only an older state, or one that was lost, had said, unless it is of a pod that lives.
    """
    said = {(item.network, item.address): item for item in ledger.own_endpoints() if _is_in_one(item, ours)}
    known = {(item.network, item.address): item.published for item in state.said_of()}
    if all(said.get(key) == known.get(key) for key in said.keys() | known.keys()):
        return
    alive = survivors.living(said[key] for key in said.keys() - known.keys())
    with state.transaction():
        known = {(item.network, item.address): item.published for item in state.said_of()}
        for key in said.keys() | known.keys():
            if said.get(key) != known.get(key):
                state.told(*key, said.get(key))
        survivors.take_up(state, alive)


def _is_in_one(item: Endpoint, blocks: Iterable[Block]) -> bool:
    """Of what is in none of its blocks a host can say nothing, whoever said it has it."""
    return any(block.has(item) for block in blocks)


def _unsaid(state: Store) -> list[tuple[Block, list[Unsaid]]]:
    """What is unsaid of this host's blocks, some of it."""
    found = list[tuple[Block, list[Unsaid]]]()
    left = _MOST
    for block in [holding.block for holding in state.blocks() if holding.state != LOST]:
        if left and (some := state.unsaid_of(block, left)):
            found.append((block, some))
            left -= len(some)
    return found
