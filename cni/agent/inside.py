"""Rules inside pods, which the kernel tells nobody of outside: it is asked now and then whether any of a namespace's became another."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from cni import engine, log
from cni.errors import CniError, TryAgainLater
from cni.kernel import inventory, kept, netfilter
from cni.kernel.netns import Netns
from cni.naming import Attachment
from cni.node import held
from cni.resources import NftRules, PodRules, Resource
from cni.state import DEFAULT_FOLDER, FILE, Record, Store
from cni.state.tally import MEND, counted
from cni.state.uses import other_folders

#: Between two looks, in seconds.
EVERY = 5.0
_PATIENCE = 0.5


class _Place(NamedTuple):
    folder: Path
    attachment: Attachment
    plugin: str
    netns: str
    netns_id: str


class Inside:
    """Of all pods of the node that have rules inside; as long as nobody attached or left, the state is not read."""

    def __init__(self) -> None:
        self._next = time.monotonic()
        self._seen: object = None
        self._places: list[_Place] = []
        #: The generation of a namespace's rules when they were as they are to be.
        self._fine: dict[_Place, str] = {}

    def due(self) -> float:
        """Seconds until the next look."""
        return max(0.0, self._next - time.monotonic())

    def look(self) -> None:
        """Look, if it is time. Raises CniError where the state cannot be read."""
        if self.due():
            return
        self._next = time.monotonic() + EVERY
        if (now := _state()) != self._seen:
            self._places = list(_places())
            self._fine = {place: known for place, known in self._fine.items() if place in self._places}
            self._seen = now
        for place in self._places:
            generation = _generation(place)
            if generation and generation != self._fine.get(place):
                self._hold(place)
        if self._places:
            kept.let_go()

    def _hold(self, place: _Place) -> None:
        try:
            with (
                closing(Store.open(place.folder, _PATIENCE)) as store,
                held(store, place.attachment, place.plugin, enters=True) as node,
            ):
                record = node.record
                if record is None or not record.complete or node.world.netns is None:
                    return
                store.lock.share_node()
                rules = list(_inside(record))
                amiss = engine.lacking(rules, node.world).mended
                if amiss:
                    with counted("pod-rules", MEND):
                        found = engine.repair(rules, node.world)
                    _tell(record, amiss, found)
                    amiss = [item.line for item in found.failed]
        except TryAgainLater:
            return
        except CniError as error:
            log.warning("guard", f"rules in {place.netns} cannot be put back: {error.msg}")
            return
        if not amiss:
            self._fine[place] = _generation(place)


def _tell(record: Record, amiss: list[str], found: engine.Repaired) -> None:
    whose = record.pod or str(record.attachment)
    said = f"rules inside {whose} were taken away or changed within the last {EVERY:g} s, and were put back"
    log.warning("guard", said, rules=amiss[:20], pods=[whose])
    for item in found.failed:
        log.warning("guard", f"rules inside {whose} cannot be put back: {item.line}")


def _inside(record: Record) -> Iterator[Resource]:
    """Those that nf_tables keeps; of legacy tables nothing tells that they became others."""
    for item in record.resources:
        ours = bool(item.netns) if isinstance(item, NftRules) else isinstance(item, PodRules)
        if ours and getattr(item, "backend", netfilter.IPTABLES_NFT) == netfilter.IPTABLES_NFT:
            yield item


def _folders() -> Iterator[Path]:
    return (item for item in (DEFAULT_FOLDER, *other_folders(DEFAULT_FOLDER)) if (item / FILE).exists())


def _state() -> object:
    """What is another when anything was written."""
    files = [folder / f"{FILE}{more}" for folder in _folders() for more in ("", "-wal")]
    found = [file.stat() for file in files if file.exists()]
    return [(status.st_ino, status.st_size, status.st_mtime_ns) for status in found]


def _places() -> Iterator[_Place]:
    for folder in _folders():
        with closing(Store.open(folder, _PATIENCE)) as store:
            for record in store.inside():
                if any(_inside(record)):
                    yield _Place(folder, record.attachment, record.plugin, record.netns, record.netns_id)


def _generation(place: _Place) -> str:
    netns = Netns.if_there(place.netns)
    if netns is None:
        return ""
    with closing(netns):
        if place.netns_id and netns.identity != place.netns_id:
            return ""
        with netns.entered():
            return inventory.generation()
