"""The member from its beginning to its end: threads that wait, and one hand that changes the kernel.

Any thread's end is the process's, and systemd starts it again: what it programmed stays in the kernel, and what it has not said
is in the state. There is nothing to tidy up, so that to end and to be killed are the same.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

from cni import log
from cni.cluster.config import ClusterConfig
from cni.cluster.document import Document
from cni.cluster.engines import store_of
from cni.cluster.model import Network
from cni.cluster.store import Change, ClusterStore, Listing, Sparing
from cni.conflist.placed import BIN_DIR, CONF_DIR
from cni.errors import CniError, Unavailable
from cni.kernel import hostsdir, process, signals
from cni.kernel.bell import Bell
from cni.kernel.notify import notify, watched
from cni.member import figures
from cni.member.barrier import Barrier
from cni.member.conflists import Conflists, Written
from cni.member.cutoff import CutOff
from cni.member.estate import Estate
from cni.member.far_names import FarNames
from cni.member.fence import Fence
from cni.member.identity import address_of, machine_id
from cni.member.inbox import Brought, Ended, Inbox, started
from cni.member.ledger import Ledger
from cni.member.policies import Policies
from cni.member.publisher import Publisher
from cni.member.reconciler import Reconciler
from cni.member.rules import Rules
from cni.member.session import SessionKeeper
from cni.member.trouble import Trouble
from cni.member.tunnels import Tunnels, without
from cni.member.uplinks import routes
from cni.member.uplinks.watch import Uplinks
from cni.member.watcher import Watcher
from cni.overlay.peers import goes_by_endpoints
from cni.state import DEFAULT_FOLDER, Store
from cni.state.daemons import MEMBER, alone

#: How long the hand has to end after SIGTERM, in seconds.
_GRACE = 0.8
_BEAT, _SOON = 1.0, 0.02
#: After so many seconds the hand does not work but hang: as the unit's WatchdogSec.
_STILL = 60.0
#: The kernel is compared with what is to be there without a reason, too; hosts that began together do not go on so.
_COMPARED_AFTER, _SPREAD = 60.0, 15.0


def run(config: ClusterConfig, folder: Path = DEFAULT_FOLDER) -> None:
    """Be this host's member until SIGTERM or SIGINT. Raises Conflict where one runs already, and whatever ended one of its threads."""
    serve(config, store_of(config), folder)


def serve(config: ClusterConfig, store: ClusterStore, folder: Path) -> None:
    """The same, with a store that is open."""
    machine = machine_id()
    process.keep_little_memory()
    signals.hold_back()
    with alone(MEMBER), closing(Bell(folder)) as bell:
        refuse_leaving(folder)
        hand = Hand(config, store, folder, machine, bell)
        try:
            hand.work()
        except Ended:
            notify("STOPPING=1")


def refuse_leaving(folder: Path) -> None:
    """Raise Unavailable where this host was told to leave, and has not yet."""
    with closing(Store.open(folder)) as state:
        member = state.member()
    if member and member.leaving:
        raise Unavailable(f"{member.node} leaves its cluster, and is not done yet: agent-cni leave")


def needs_endpoints(item: Network | Document) -> bool:
    """Whether who hears of it is to hear of others' endpoints too: a network of layer 2, or whose pods have names; a Pod's object, which says who it is, and not where."""
    return item.kind == "Pod" if isinstance(item, Document) else item.names or goes_by_endpoints(item)


def _why_not(keep: Callable[[Store], None], state: Store) -> str:
    """Why one of two cannot do it; the other does."""
    try:
        keep(state)
    except CniError as error:
        return error.msg
    return ""


def _next_comparison() -> float:
    return time.monotonic() + _COMPARED_AFTER + _SPREAD * os.urandom(1)[0] / 256


class Hand:
    """What the threads have for it, and what it does with it."""

    def __init__(self, config: ClusterConfig, store: ClusterStore, folder: Path, machine: str, bell: Bell) -> None:
        self._config = config
        self._folder, self._store = folder, store
        self._inbox = Inbox()
        self._ledger = Ledger(config.node)
        self._bell = bell
        self._keeper = SessionKeeper(config, store, folder, machine, bell.ring)
        key = self._keeper.key
        self._tunnels = Tunnels(config, self._keeper, self._ledger, folder, key) if key else None
        self._policies = Policies(folder, self._inbox.look, config.node)
        self._names = FarNames(config.node)
        self._rules = Rules(self._inbox.look)
        sparing = Sparing(config.node, needs_endpoints, self._needs_endpoints_besides)
        self._watcher = Watcher(store, self._heard, lambda: self._keeper.is_troubled, sparing)
        self._conflists = Conflists(Path(config.conflists), CONF_DIR, BIN_DIR) if config.conflists else None
        estate = Estate(store, self._ledger, conflists=self._conflists, written=Written(CONF_DIR))
        self._publisher = Publisher(self._keeper, estate, folder, bell, self._inbox)
        self._cut_off = CutOff()
        self._barrier = Barrier(Fence(config.free_after))
        self._trouble = Trouble("cut off")
        #: What this service is, and what of it was said.
        self._states: dict[str, str] = {}
        self._said: dict[str, str] = {}
        self._watched = watched() is not None
        self._beaten = time.monotonic()

    def work(self) -> None:
        """Do what the threads bring, for ever. Raises Ended, whatever ended one of them, and what there cannot be freeAfter
        without.
        """
        with closing(Store.open(self._folder)) as state:
            self._barrier.keep(state)  # before the cluster may count on it
            before = address_of(state.member())
        self._start_threads(before)
        log.event("member", "start", node=self._config.node)
        pause = _SOON
        while (me := self._keeper.me) is None:
            self._inbox.rest(pause)
            pause = min(2 * pause, _BEAT)
            self._rules.look()
            self._policies.look()
            self._beat()
        if not self._tunnels:
            without(self._config, self._folder)
        reconciler = Reconciler(me, self._folder, self._config.uplinks)
        reconciler.shut()
        started("kernel", partial(reconciler.watch, self._inbox.look), self._inbox)
        due = _next_comparison()
        while True:
            brought = self._inbox.take(min(_BEAT, reconciler.owed, self._policies.owed, self._rules.owed))
            compares = time.monotonic() > due
            if compares:
                due = _next_comparison()
            self._do(reconciler, brought, compares=compares)
            self._beat()

    def _start_threads(self, before: str) -> None:
        """Have those that wait; `before` is the address this host was known by when its last member ended."""
        for name, work in (
            ("signals", self._mind_signals), ("session", self._keeper.run), ("watch", self._watcher.run),
            ("publish", self._publisher.run), ("policies", self._policies.watch), ("rules", self._rules.watch),
        ):  # fmt: skip
            started(name, work, self._inbox)
        if self._config.uplinks:
            uplinks = Uplinks(self._config.uplinks, before, self._ledger.others, self._keeper.move, self._switched)
            started("uplinks", uplinks.run, self._inbox)
        else:
            routes.clear_all()
        if self._config.metrics:
            from cni.kernel.tls import OwnSecrets
            from cni.member import metrics  # and an HTTP server with it

            said = self._config
            own = OwnSecrets(said.metrics_client_ca, said.metrics_cert, said.metrics_key) if said.metrics_cert else None
            answering = partial(metrics.serve, said.metrics, self._health(), secrets=own)
            started("metrics", answering, self._inbox)

    def _do(self, reconciler: Reconciler, brought: Brought, *, compares: bool) -> None:
        self._rules.look()
        for news in brought.news:
            if reconciler.heard(news):
                figures.CONVERGENCE.observe(time.monotonic() - brought.since)
            self._policies.heard(news)
            self._names.heard(news)
        self._policies.look(compares=compares)
        self._names.keep()
        if brought.look or not (brought.news or compares) or not reconciler.owed:
            reconciler.look()
            self._cut()
        if compares:
            reconciler.compare()
            if self._tunnels:
                self._tunnels.compare()

    def _cut(self) -> None:
        """Have nobody reach pods here by addresses that are not theirs any more, or soon not."""
        troubles = list[str]()
        try:
            with closing(Store.open(self._folder)) as state:
                troubles += filter(None, (_why_not(self._barrier.keep, state), _why_not(self._cut_off.keep, state)))
        except CniError as error:
            troubles.append(error.msg)
        if troubles:
            self._trouble.is_so("; ".join(dict.fromkeys(troubles)))
        else:
            self._trouble.over()

    def _switched(self) -> None:
        """Go on from another address: the kernel's part of it waits for no store."""
        self._inbox.look()
        self._store.reconnect()
        self._keeper.hasten()

    def _needs_endpoints_besides(self) -> bool:
        """Whether pods here go by others' endpoints for what the store does not say: documents of a folder, names that came later."""
        return self._policies.are_from_folders() or bool(hostsdir.networks())

    def _heard(self, news: Listing | Change) -> None:
        before = self._ledger.news
        self._ledger.heard(news)
        if isinstance(news, Change) and self._keeper.me and self._keeper.me.key in news.gone:
            self._keeper.forgotten()
        if self._ledger.news != before:
            self._bell.ring()
        if isinstance(news, Listing) or news.put or news.gone:
            self._inbox.put(news)

    def _beat(self) -> None:
        """Say that the hand works, and what for. It is ready, and a node's boot goes on, also when the store is away."""
        self._beaten = time.monotonic()
        if self._tunnels:
            self._tunnels.beat()
        self._states |= {"READY": "1"} if self._keeper.has_asked else {}
        self._states["STATUS"] = self._keeper.status
        new = [f"{name}={text}" for name, text in self._states.items() if self._said.get(name) != text]
        lines = new + ["WATCHDOG=1"] * self._watched
        if lines and notify(*lines):
            self._said |= self._states

    def _health(self) -> dict[str, Callable[[], str]]:
        """What probes ask for, each with why not: whether the hand moves, without which nothing mends it but another process; and whether
        this host can serve pods.
        """

        def why_not_alive() -> str:
            still = time.monotonic() - self._beaten
            return f"nothing was done for {still:.0f} s" if still > _STILL else ""

        def why_not_ready() -> str:
            if not self._keeper.session:
                return self._keeper.status
            return self._conflists.lacking if self._conflists else ""

        return {"/healthz": why_not_alive, "/readyz": why_not_ready}

    def _mind_signals(self) -> None:
        while not signals.next_ending():
            log.event("member", "SIGHUP")
        self._inbox.end(Ended())
        time.sleep(_GRACE)
        signals.end_by_default()
