"""The member from its beginning to its end: threads that wait, and one hand that changes the kernel.

Any thread's end is the process's, and systemd starts it again: what it programmed stays in the kernel, and what it has not said
is in the state. There is nothing to tidy up, so that to end and to be killed are the same.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

from cni import log
from cni.cluster.config import ClusterConfig
from cni.cluster.store import Change, ClusterStore, Listing
from cni.errors import Conflict, TryAgainLater
from cni.kernel import signals
from cni.kernel.bell import Bell
from cni.kernel.files import LockFile, private_folder
from cni.kernel.notify import notify, watched
from cni.member.estate import Estate
from cni.member.identity import machine_id
from cni.member.inbox import Inbox, started
from cni.member.ledger import Ledger
from cni.member.publisher import Publisher
from cni.member.session import SessionKeeper
from cni.member.tunnels import Tunnels
from cni.member.watcher import Watcher
from cni.naming import digest_of
from cni.state import DEFAULT_FOLDER

#: How long the hand has to end after SIGTERM, in seconds.
_GRACE = 0.8
_BEAT = 1.0
#: systemd is told that a first listing may take longer than it would wait; microseconds.
_MORE_TIME = "EXTEND_TIMEOUT_USEC=30000000"


class Ended(Exception):
    """Somebody asked the member to end."""


def run(config: ClusterConfig, folder: Path = DEFAULT_FOLDER) -> None:
    """Be this host's member until SIGTERM or SIGINT. Raises Conflict where one runs already, and whatever ended one of its threads."""
    serve(config, engine(config), folder)


def engine(config: ClusterConfig) -> ClusterStore:
    """The store of a configuration."""
    from cni.cluster.etcd import EtcdStore  # the one that is needed

    return EtcdStore(config.etcd, config.session)


def serve(config: ClusterConfig, store: ClusterStore, folder: Path) -> None:
    """The same, with a store that is open."""
    machine = machine_id()
    signals.hold_back()
    with alone(folder), closing(Bell(folder)) as bell:
        hand = Hand(config, store, folder, machine, bell)
        try:
            hand.work()
        except Ended:
            notify("STOPPING=1")


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Be the only member of this host. Raises Conflict."""
    private_folder(folder)
    with closing(LockFile(folder / "lock")) as lock:
        try:
            with lock.exclusive(digest_of("member"), "the member", patience=0):
                yield
        except TryAgainLater as error:
            raise Conflict("a member runs on this host already") from error


class Hand:
    """What the threads have for it, and what it does with it."""

    def __init__(self, config: ClusterConfig, store: ClusterStore, folder: Path, machine: str, bell: Bell) -> None:
        self._folder, self._metrics = folder, config.metrics
        self._inbox = Inbox()
        self._ledger = Ledger(config.node)
        self._bell = bell
        self._keeper = SessionKeeper(config, store, folder, machine, bell.ring)
        key = self._keeper.key
        self._tunnels = Tunnels(config, self._keeper, self._ledger, folder, key) if key else None
        self._watcher = Watcher(store, self._heard)
        self._publisher = Publisher(self._keeper, Estate(store, self._ledger), folder, bell)
        self._ready = False
        self._watched = watched()

    def work(self) -> None:
        """Do what the threads bring, for ever. Raises Ended, and whatever ended one of them."""
        for name, work in (
            ("signals", self._mind_signals), ("session", self._keeper.run), ("watch", self._watcher.run),
            ("publish", self._publisher.run),
        ):  # fmt: skip
            started(name, work, self._inbox)
        if self._metrics:
            from cni.member import metrics  # and an HTTP server with it

            started("metrics", partial(metrics.serve, self._metrics), self._inbox)
        log.event("member", "start", node=self._ledger.me)
        while True:
            news = self._inbox.take(_BEAT)
            self._beat()
            if news and not self._ready:
                self._ready = True
                notify("READY=1", "STATUS=in the cluster")

    def _heard(self, news: Listing | Change) -> None:
        before = self._ledger.news
        self._ledger.heard(news)
        if self._ledger.news != before:
            self._bell.ring()
        self._inbox.put(news)

    def _beat(self) -> None:
        if self._tunnels:
            self._tunnels.beat()
        if self._watched:
            notify("WATCHDOG=1")
        if not self._ready:
            notify(_MORE_TIME)

    def _mind_signals(self) -> None:
        while not signals.next_ending():
            log.event("member", "SIGHUP")
        self._inbox.end(Ended())
        time.sleep(_GRACE)
        signals.end_by_default()
