"""What the member does to the kernel: what the cluster knows of other hosts, made so here, and kept so.

One thread uses it, but for `watch`. What it was not told it does not touch: before the first Listing nothing is made or taken away.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from cni import log
from cni.cluster.model import Alive, Key, Network, Node
from cni.cluster.snapshot import Snapshot
from cni.cluster.store import Change, Listing
from cni.errors import CniError
from cni.kernel import netfilter
from cni.kernel.events import Events
from cni.kernel.locks import LockFile
from cni.member import figures, mending
from cni.member.absences import Absences
from cni.member.devices import Devices, bridge_of
from cni.member.rows import KernelRows
from cni.member.shares import NOTHING, Shares, entrances, shares, uplink_of
from cni.member.uplinks.way import carriers
from cni.naming import VTEP_TABLE
from cni.overlay.peers import NO_UPLINK, Overlay, Peers, goes_by_endpoints, peers_of
from cni.resources import VtepFilter, VxlanLink, World
from cni.state.uses import node_lock

#: Seconds until all is compared again after the kernel refused something, or a call was at what is to be made; and between two
#: looks at the state.
_AGAIN, _SOON, _LEAST = 5.0, 1.0, 0.2


class Reconciler:
    """This host's part of every network it shares. Every method is bounded in time and raises no CniError: what the kernel refuses
    is logged, and tried again with the next comparison.
    """

    def __init__(self, me: Node, folder: Path, uplinks: Sequence[str] = ()) -> None:
        self._node, self._folder, self._uplinks = me.name, folder, uplinks
        self.snapshot = Snapshot(me.name)
        self._absences = Absences(me.name, folder)
        self._shares, self._uplink, self._entrances = NOTHING, NO_UPLINK, tuple[str, ...]()
        self._shared_at = 0.0
        self._owes = False
        self._peers: dict[Overlay, Peers] = {}
        self._filter: VtepFilter | None = None
        self._noticed = mending.Noticed()
        self._lock = LockFile(node_lock())
        self._world = World(None, self._lock)
        self._rows = KernelRows(self._world, self._refuse)
        self._devices = Devices(self._world, self._refuse)
        self._due = math.inf
        #: When to compare once more after this host moved: a call that was at work may have made a device where it was before.
        self._again_at = -math.inf
        self._told: dict[Key, str] = {}
        self._refused: set[str] = set()

    def heard(self, news: Listing | Change) -> int:
        """Make what is new so; how many rows of the kernel were changed."""
        first = not self.snapshot.revision
        keys = self.snapshot.apply(news)
        rooms = {key[0] for key in keys}
        known, count = list(self._peers.values()), 0
        if first or Network.room in rooms:
            self._shared_at = 0.0
            count = self.look()
        are_judged = any(peers.are_hosts_judged(rooms) for peers in known)
        count += sum(self._rows.change(peers.touched(keys)) for peers in known if peers in self._peers.values())
        if are_judged:
            self._put_filter()
        if are_hosts := not rooms.isdisjoint((Node.room, Alive.room)):
            self._absences.see(self.snapshot)
        self._tell_refused()
        self._tell_figures(hosts=are_hosts)
        return count

    def look(self) -> int:
        """See what is otherwise than it was left: for when the bell rings, when `watch` wakes, and every second. How many rows
        were changed: of networks that this host shares since, of what somebody else changed, and, now and then, of all.
        """
        if not self.snapshot.revision:
            return 0
        events = self._noticed.take()
        for_all = mending.is_for_all(events, self._rows.links, self._rows.awaited)
        # of a link that came, or moved, the state may say something else by now
        self._owes = not for_all and time.monotonic() < self._shared_at + _LEAST
        new = not self._owes and self._share()
        if new or for_all or time.monotonic() > self._due:
            return self.compare()
        return self._rows.mend(mending.contradicted(events, self._rows.links, self._peers.values()))

    @property
    def owed(self) -> float:
        """Seconds until `look` is to be called for what the last one was too soon for; infinity where it was not."""
        return max(0.0, self._shared_at + _LEAST - time.monotonic()) if self._owes else math.inf

    def compare(self) -> int:
        """Compare all with what the kernel has: how many rows were mended."""
        if not self.snapshot.revision:
            return 0
        figures.COMPARISONS.add()
        self._due = self._again_at if time.monotonic() < self._again_at else math.inf
        self._put_filter(looking=True)
        if not self._devices.keep(self._found):
            self._due = time.monotonic() + _SOON
        self._rows.forget_links(self._peers.values())
        count = self._rows.compare(self._peers.values())
        if self._due in (math.inf, self._again_at):
            self._refused.clear()
        self._tell_figures()
        return count

    def watch(self, wake: Callable[[], None]) -> None:
        """Listen to what happens to links and rows, for ever, and wake who calls `look`; a thread's work. Raises KernelRefused."""
        rows = self._rows
        with closing(Events()) as events:
            while True:
                heard = events.wait(lambda link, message: mending.may_be_ours(link, message, rows.links, rows.awaited))
                found = [event for event in heard if mending.is_ours(event, rows.links, rows.awaited)]
                every = list(self._peers.values())  # the hand changes it meanwhile
                agrees = partial(mending.agrees, links=rows.links, every=every)
                if self._noticed.bring(found, agrees) and found:
                    wake()

    def shut(self) -> None:
        """Before anything is heard: let nothing of networks that are to be encrypted pass in clear, where it did so far."""
        try:
            found = self._found()
            own = self._devices.ports(found.me) if found.me else ()
            overlays = tuple(sorted({*_spelled(found.devices.values()), *own}))
            if found.tunnel and overlays and found.tunnel not in netfilter.nft_list(f"table {VTEP_TABLE}"):
                here = entrances(self._world, found)
                VtepFilter((), overlays, found.tunnel, entrances=here).ensure(self._world)
        except CniError as error:
            self._refuse(error)

    def clear(self) -> tuple[str, ...]:
        """Take away all that is ours: this host leaves. The overlays (``PORT VNI``) that pods are left on: those have VXLAN from nobody.
        What the kernel refused is `refused` then, for nobody comes back to it.
        """
        self._refused.clear()
        self.snapshot = Snapshot(self._node)
        self._share()
        me, devices = self._shares.me, self._shares.devices.values()
        self._rows.compare(
            [peers_of(me, self.snapshot, overlay, self._uplink) for overlay in self._peers] if me else []
        )
        left = _spelled(device for device in devices if device.name in self._shares.in_use)
        self._devices.clear(self._shares)
        shut = VtepFilter((), left, self._shares.tunnel, entrances=self._entrances)
        self._try(shut.ensure if left else shut.remove)
        self._peers, self._filter = {}, None
        return left

    @property
    def refused(self) -> list[str]:
        """What could not be done since it was last looked through, a line each."""
        return sorted(self._refused)

    # --- what this host has

    def _share(self) -> bool:
        """Follow the networks and devices this host has; whether one is new."""
        self._shared_at, self._owes, before = time.monotonic(), False, (self._shares, self._uplink, self._entrances)
        try:
            self._shares = self._found()
            self._uplink, self._entrances = uplink_of(self._world, self._shares), entrances(self._world, self._shares)
        except CniError as error:
            self._refuse(error)
            return False
        if (self._shares, self._uplink, self._entrances) == before:
            return False
        now, me = {*self._shares.devices, *self._shares.without}, self._shares.me
        is_moved = (me, self._uplink) != (before[0].me, before[1])
        if me and before[0].me and me != before[0].me:
            self._devices.move(me)
            self._again_at = self._shared_at + _AGAIN
        gone = [self._peers.pop(overlay) for overlay in [*self._peers] if is_moved or overlay not in now]
        new = now - self._peers.keys()
        self._peers |= {overlay: peers_of(me, self.snapshot, overlay, self._uplink) for overlay in new if me}
        self._rows.leave(gone, self._peers.values())
        self._put_filter()
        return bool(new or gone)

    def _found(self) -> Shares:
        return shares(self._folder, self.snapshot, self._place_of).after(self._shares)

    def _place_of(self, network: Network, shared: bool) -> str | None:
        """A network that a call shares is that call's to begin: it says where when it is done."""
        begun = any(overlay.network.name == network.name for overlay in self._shares.devices)
        return bridge_of(self._world, network) if begun or not (shared and self._lock.is_shared()) else None

    def _put_filter(self, *, looking: bool = False) -> None:
        """Have VXLAN from this cluster's hosts only; `looking` at what there is, too."""
        overlays = _spelled(self._shares.devices.values())
        vteps = {vtep for peers in self._peers.values() for vtep in peers.vteps}
        uplinks = tuple(dict.fromkeys(link.name for link in carriers(self._world.host, self._uplinks)))
        every = tuple(sorted({*uplinks, *self._entrances}))
        wanted = VtepFilter(tuple(sorted(vteps)), overlays, self._shares.tunnel, uplinks, every)
        if wanted == self._filter and not (looking and self._is_otherwise(wanted)):
            return
        self._filter = wanted if self._try(wanted.ensure if overlays else wanted.remove) else None

    def _is_otherwise(self, wanted: VtepFilter) -> bool:
        """Whether what is there is another, or does not say what it is."""
        found = list[str]()
        return not self._try(lambda world: found.extend(wanted.differences(world))) or bool(found)

    # --- what the kernel refuses, and what is not believed

    def _try(self, what: Callable[[World], None]) -> bool:
        """Whether it was done."""
        try:
            what(self._world)
        except CniError as error:
            self._refuse(error)
            return False
        return True

    def _refuse(self, error: CniError) -> None:
        """Say once what was refused, and try again soon."""
        self._due = min(self._due, time.monotonic() + _AGAIN)
        figures.REFUSALS.add()
        if error.msg not in self._refused:
            log.warning("member", error.msg, verb="reconcile")
        self._refused.add(error.msg)

    def _tell_figures(self, *, hosts: bool = True) -> None:
        """Say how much is known of the cluster, and how much of it is here; of `hosts` only if they are others, for they are counted."""
        if hosts:
            away = len(self.snapshot.nodes.keys() - self.snapshot.alive.keys())
            figures.NODES.put({("alive",): len(self.snapshot.alive), ("away",): away})
        heard = [name for name, network in self.snapshot.networks.items() if goes_by_endpoints(network)]
        figures.ENDPOINTS.put({(name,): len(self.snapshot.endpoints.get(name, ())) for name in heard})
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


def _spelled(devices: Iterable[VxlanLink]) -> tuple[str, ...]:
    """As a VtepFilter has overlays."""
    return tuple(sorted(f"{device.port} {device.vni}" for device in devices))
