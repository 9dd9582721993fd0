"""What the member does to the kernel: what the cluster knows of other hosts, made so here, and kept so.

One thread uses it, but for `watch`. What it was not told it does not touch: before the first Listing nothing is made or taken away.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from cni import engine, log
from cni.cluster.model import Key, Network, Node
from cni.cluster.snapshot import Snapshot
from cni.cluster.store import Change, Listing
from cni.errors import CniError
from cni.kernel.events import Event, Events
from cni.kernel.files import LockFile
from cni.kernel.view import Link
from cni.member import figures, mending
from cni.member.shares import NOTHING, shares
from cni.overlay.peers import Overlay, Peers, peers_of
from cni.overlay.rows import ORDER, Changed
from cni.resources import VtepFilter, World
from cni.resources.remote import RemoteRow

#: Seconds until all is compared again after the kernel refused something; and between two looks at the state.
_AGAIN, _LEAST = 5.0, 0.2


class Reconciler:
    """This host's part of every network it shares. Every method is bounded in time and raises no CniError: what the kernel refuses
    is logged, and tried again with the next comparison.
    """

    def __init__(self, me: Node, folder: Path) -> None:
        self._node, self._folder = me.name, folder
        self.snapshot = Snapshot(me.name)
        self._shares = NOTHING
        self._shared_at = 0.0
        self._peers: dict[Overlay, Peers] = {}
        self._filter: VtepFilter | None = None
        self._noticed: deque[Event] = deque()
        self._world = World(None, LockFile(folder / "lock"))
        self._links: dict[int, tuple[str, str]] = {}
        self._due = math.inf
        self._told: dict[Key, str] = {}
        self._refused = ""

    def heard(self, news: Listing | Change) -> int:
        """Make what is new so; how many rows of the kernel were changed."""
        first = not self.snapshot.revision
        keys = self.snapshot.apply(news)
        if first or any(key[0] == Network.room for key in keys):
            self._shared_at = 0.0
            self.look()
        self._put_filter()
        count = sum(self._put(peers.touched(keys)) for peers in self._peers.values()) if keys else 0
        self._tell_refused()
        self._tell_figures()
        return count

    def look(self) -> int:
        """See what is otherwise than it was left: for when the bell rings, when `watch` wakes, and every second. How many rows
        were changed: of networks that this host shares since, of what somebody else changed, and, now and then, of all.
        """
        if not self.snapshot.revision:
            return 0
        new = time.monotonic() > self._shared_at + _LEAST and self._share()
        events = [self._noticed.popleft() for _ in range(len(self._noticed))]
        if new or time.monotonic() > self._due or mending.is_for_all(events, self._links):
            return self.compare(anew=new)
        return sum(
            self._put(self._mended(kind, name, rows), mending=True)
            for (kind, name), rows in mending.contradicted(events, self._links, self._peers.values()).items()
        )

    def compare(self, *, anew: bool = False) -> int:
        """Compare all with what the kernel has: how many rows were mended, or made where some begin `anew`."""
        if not self.snapshot.revision:
            return 0
        figures.COMPARISONS.add()
        self._due = math.inf
        self._put_filter(looking=True)
        self._ensure_devices()
        self._world.host.forget_seen()
        names = {peers.link_of(kind) for peers in self._peers.values() for kind in ORDER}
        self._links = {index: link for index, link in self._links.items() if link[0] in names}
        count = sum(self._put(self._differing(peers), mending=True, anew=anew) for peers in self._peers.values())
        self._tell_figures()
        return count

    def watch(self, wake: Callable[[], None]) -> None:
        """Listen to what happens to links and rows, for ever, and wake who calls `look`; a thread's work. Raises KernelRefused."""
        with closing(Events()) as events:
            while True:
                found = [event for event in events.wait() if mending.is_ours(event, self._links)]
                self._noticed.extend(found)
                if found:
                    wake()

    def clear(self) -> None:
        """Take away all that is ours: this host leaves."""
        self.snapshot = Snapshot(self._node)
        self._share()
        for peers in (
            [peers_of(self._shares.me, self.snapshot, overlay) for overlay in self._peers] if self._shares.me else ()
        ):
            self._put(self._differing(peers))
        self._try(VtepFilter((), ()).remove, self._world)
        self._peers, self._filter = {}, None

    # --- what this host has

    def _share(self) -> bool:
        """Follow the networks and devices this host has; whether one is new."""
        self._shared_at, before = time.monotonic(), self._shares.me
        try:
            self._shares = shares(self._folder, self.snapshot)
        except CniError as error:
            self._refuse(error)
            return False
        now, me = self._shares.devices, self._shares.me
        if me != before and me:
            self._peers = {overlay: peers_of(me, self.snapshot, overlay) for overlay in self._peers}
        places = {overlay[1:] for overlay in now}
        for overlay in self._peers.keys() - now.keys():
            peers = self._peers.pop(overlay)
            if overlay[1:] not in places:
                self._put(Changed([], list(peers.resources())))
        new = now.keys() - self._peers.keys()
        self._peers |= {overlay: peers_of(me, self.snapshot, overlay) for overlay in new if me}
        self._put_filter()
        return bool(new) or me != before

    def _ensure_devices(self) -> None:
        """Make again what somebody took away while pods have it."""
        for overlay, device in self._shares.devices.items():
            if device.name in self._shares.in_use:
                others = [item for item in self._shares.said if item.network != overlay.network.name]
                self._world.networks = partial(list, others)
                self._world.host.forget_seen()
                self._try(engine.apply, [device], self._world)

    def _put_filter(self, *, looking: bool = False) -> None:
        """Have VXLAN from this cluster's hosts only; `looking` at what there is, too."""
        overlays = tuple(sorted(f"{device.port} {device.vni}" for device in self._shares.devices.values()))
        vteps = tuple(
            sorted(
                {node.vtep for node in self.snapshot.nodes.values()} - {self._shares.me.vtep if self._shares.me else ""}
            )
        )
        wanted = VtepFilter(vteps, overlays, self._shares.tunnel)
        if not looking and wanted == self._filter:
            return
        if not overlays:
            done = self._try(wanted.remove, self._world)
        else:
            as_left = wanted == self._filter and not any(wanted.differences(self._world))
            done = as_left or self._try(wanted.ensure, self._world)
        self._filter = wanted if done else None

    # --- the kernel

    def _tables(self, peers: Peers) -> Iterator[tuple[type[RemoteRow], Link]]:
        """The kinds of rows a network has here, and the link of each, as far as it is there."""
        for kind in ORDER:
            name = peers.link_of(kind)
            link = self._world.host.link_by_name(name)
            if link:
                others = {index: known for index, known in self._links.items() if known[0] != name}
                self._links = others | {link.index: (name, mending.state_of(link))}
                yield kind, link

    def _differing(self, peers: Peers) -> Changed:
        """What the kernel has otherwise, or has not, and what of ours it has that nobody wants."""
        there: list[RemoteRow] = []
        gone: list[RemoteRow] = []
        for kind, link in self._tables(peers):
            wanted = peers.tables.get((kind, link.name), {})
            found: set[str] = set()
            for key, value in kind.found(self._world, link):
                if key not in wanted:
                    gone.append(kind.of(link.name, key, value))
                elif wanted[key] == value:
                    found.add(key)
            missing = {key: value for key, value in wanted.items() if key not in found} if link.up else {}
            there += [kind.of(link.name, key, value) for key, value in missing.items()]
            gone += kind.in_the_way(self._world, link, missing)
        return Changed(there, gone)

    def _mended(self, kind: type[RemoteRow], name: str, rows: Mapping[str, Any]) -> Changed:
        """Rows of one kind on a link, whoever has what is there."""
        link = self._world.host.link_by_name(name)
        way = kind.in_the_way(self._world, link, rows) if link else []
        return Changed([kind.of(name, *row) for row in rows.items()], way)

    def _put(self, changed: Changed, *, mending: bool = False, anew: bool = False) -> int:
        if not changed.there and not changed.gone:
            return 0
        done = self._try(self._make, changed, mending)
        for change, rows in (("put", changed.there), ("taken", changed.gone)) if done else ():
            for kind, many in Counter(row.kind for row in rows).items():
                figures.CHANGES.add(many, kind=kind, change=change)
                if mending and not anew:
                    figures.MENDS.add(many, kind=kind)
        return len(changed.there) + len(changed.gone)

    def _make(self, changed: Changed, mending: bool) -> None:
        """What is mended may be in the way of what it is to be; else nothing is missing meanwhile."""
        steps = partial(engine.apply, changed.there), partial(engine.remove, changed.gone)
        self._world.host.forget_seen()
        with self._world.host.batch():
            for step in reversed(steps) if mending else steps:
                step(self._world)

    def _try(self, what: Callable[..., None], *about: object) -> bool:
        """Whether it was done."""
        try:
            what(*about)
        except CniError as error:
            self._refuse(error)
            return False
        return True

    # --- what is said of it

    def _refuse(self, error: CniError) -> None:
        """Say once what was refused, and try again soon."""
        self._due = min(self._due, time.monotonic() + _AGAIN)
        figures.REFUSALS.add()
        if error.msg != self._refused:
            log.warning("member", error.msg, verb="reconcile")
        self._refused = error.msg

    def _tell_figures(self) -> None:
        """Say how much is known of the cluster, and how much of it is here."""
        alive = len(self.snapshot.alive)
        figures.NODES.put({("alive",): alive, ("away",): len(self.snapshot.nodes.keys() - self.snapshot.alive.keys())})
        figures.ENDPOINTS.put({(name,): len(known) for name, known in self.snapshot.endpoints.items()})
        rows: Counter[tuple[str, ...]] = Counter()
        for peers in self._peers.values():
            for (kind, _), table in peers.tables.items():
                rows[kind.kind,] += len(table)
        figures.ROWS.put(rows)

    def _tell_refused(self) -> None:
        """Say of each item of the store once why nothing is made of it."""
        now = {key: why for peers in self._peers.values() for key, why in peers.refused.items()}
        for key, why in now.items() if now != self._told else ():
            if self._told.get(key) != why:
                log.warning("member", f"{'/'.join(key)} in the store: {why}", verb="reconcile")
        self._told = now
