"""The DNS gate: it judges what pods ask, by the files that calls wrote, and nobody's ADD waits for it.

One thread does all of it, so that an address is let through before its answer passes, and what files say is known before the next question is
judged. While it does not run the kernel drops questions and answers, and what was let through stays.
"""

from __future__ import annotations

import json
import selectors
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path

from cni import log
from cni.dnsgate.inward import Inward
from cni.dnsgate.message import Name, text_of
from cni.dnsgate.place import Place
from cni.dnsgate.reached import Reached
from cni.errors import CniError
from cni.kernel import gatedir, inotify, process, signals
from cni.kernel.files import private_folder
from cni.kernel.gatedir import Entry
from cni.kernel.notify import notify, watched
from cni.state.daemons import GATE, alone

#: Seconds between looks at the clock, at what is too old, and at what the node has; how long a refused name is not logged again, and how
#: many of a pod's are in that time.
_BEAT, _LOOK_BACK, _LOOK_INWARD, _QUIET = 1.0, 5.0, 10.0, 60.0
_MOST_QUIET = 100

_Work = Callable[[Place], None]


def run() -> None:
    """Judge what this node's pods ask until SIGTERM or SIGINT. Raises Conflict where somebody does already."""
    process.keep_little_memory()
    with alone(GATE):
        private_folder(gatedir.FOLDER)
        with closing(inotify.Folders()) as folders:
            Daemon(folders).work()


class Daemon:
    """The namespaces in which pods are held to names, by their files as they are."""

    def __init__(self, folders: inotify.Folders) -> None:
        self._folders = folders
        self._ready = selectors.DefaultSelector()
        self._ready.register(folders.fileno(), selectors.EVENT_READ)
        self._inward = Inward()
        self._entries: dict[Path, Entry] = {}
        self._places: dict[str, Place] = {}
        self._trouble: dict[str, str] = {}
        self._quiet: dict[Reached, dict[Name, float]] = {}
        self._past: Counter[str] = Counter()
        self._said = self._told = ""
        self._told_at = 0.0
        self._ended = False

    def work(self) -> None:
        """Do it until a signal comes; a namespace that cannot be served is tried again."""
        signals.on_ending(self._end)
        log.event("dnsgate", "start")
        back = inward = again = beat = 0.0
        self._inward.look()
        self._look(time.monotonic(), everything=True)
        while not self._ended:
            ready = self._ready.select(_BEAT)
            now = time.monotonic()
            self._look(now, everything=bool(self._trouble) and now - again > _BEAT)
            again = now if now - again > _BEAT else again
            for key, _ in ready:
                if key.data is not None:
                    self._possibly(key.data, lambda place: place.serve(now))  # noqa: B023  # called before the next round
            if now - inward > _LOOK_INWARD:
                inward = now
                self._inward.look()
            if now - back > _LOOK_BACK:
                back = now
                for netns in list(self._places):
                    self._possibly(netns, lambda place: place.look_back(now))  # noqa: B023
                self._quiet = {
                    pod: still
                    for pod, names in self._quiet.items()
                    if (still := {name: until for name, until in names.items() if until > now})
                }
            if now - beat > _BEAT / 2:
                beat = now
                self._beat(now)
        notify("STOPPING=1")
        for netns in list(self._places):
            self._close(netns)

    def _end(self) -> None:
        self._ended = True

    def _look(self, now: float, *, everything: bool) -> None:
        """Go by what became another among the files since."""
        noticed = self._folders.wait(0)
        whole = bool(self._folders.watch([gatedir.FOLDER])) or everything or any(not item.name for item in noticed)
        changed = {gatedir.FOLDER / item.name for item in noticed if gatedir.is_of_pod(item.name)}
        if whole:
            with suppress(CniError):
                found = {entry.path: entry for entry in gatedir.entries()}
                self._entries = {path: self._same(path, entry, changed) for path, entry in found.items()}
        for path in () if whole else changed:
            with suppress(CniError):
                entry = Entry.read(gatedir.read(path))
                if entry and entry.path == path:
                    self._entries[path] = entry
                else:
                    self._entries.pop(path, None)
        if whole or changed:
            self._inward.look()
            self._place(now)

    def _same(self, path: Path, entry: Entry, changed: set[Path]) -> Entry:
        """What is known already of a file that nobody wrote to."""
        known = self._entries.get(path)
        return known if known == entry and path not in changed else entry

    def _place(self, now: float) -> None:
        """Serve each namespace that any pod is to be judged in, and no other."""
        wanted: dict[str, list[Entry]] = {}
        for entry in self._entries.values():
            wanted.setdefault(entry.netns, []).append(entry)
        for netns in self._places.keys() - wanted.keys():
            self._close(netns)
        self._trouble = {netns: why for netns, why in self._trouble.items() if netns in wanted}
        for netns, entries in wanted.items():
            try:
                if netns not in self._places:
                    self._open(netns)
                self._places[netns].go_by(entries, now)
                self._trouble.pop(netns, None)
            except CniError as error:
                self._say_trouble(netns, error)

    def _open(self, netns: str) -> None:
        place = self._places[netns] = Place(netns, self._inward, self._hear)
        self._ready.register(place.queue.fileno(), selectors.EVENT_READ, netns)

    def _close(self, netns: str) -> None:
        place = self._places.pop(netns)
        self._ready.unregister(place.queue.fileno())
        self._past += place.gate.counted
        place.close()

    def _possibly(self, netns: str, work: _Work) -> None:
        """Do something in a namespace; one in which it fails is opened anew."""
        if place := self._places.get(netns):
            try:
                work(place)
            except CniError as error:
                self._say_trouble(netns, error)
                self._close(netns)

    def _say_trouble(self, netns: str, error: CniError) -> None:
        if self._trouble.get(netns) != error.msg:
            log.warning("dnsgate", error.msg, verb="serve", netns=netns)
        self._trouble[netns] = error.msg

    def _hear(self, why: str, pod: Reached, name: Name) -> None:
        """Log what a pod was refused, each name once in a while."""
        now = time.monotonic()
        quiet = self._quiet.setdefault(pod, {})
        if quiet.get(name, 0.0) > now or len(quiet) >= _MOST_QUIET:
            return
        quiet[name] = now + _QUIET
        pod_name, asked = pod.guest.entry.pod, text_of(name)
        if why:
            log.warning("dnsgate", why, verb="admit", pod=pod_name, name=asked)
        else:
            log.event("dnsgate", "refuse", pod=pod_name, name=asked)

    def _beat(self, now: float) -> None:
        """Say that this works, and what it counted: who asks for either reads a file, of which the time counts too."""
        said = f"{len(self._entries)} pods" + f", {len(self._trouble)} namespaces not served" * bool(self._trouble)
        new = [] if said == self._said else ["READY=1", f"STATUS={said}"]
        lines = new + ["WATCHDOG=1"] * (watched() is not None)
        if lines and notify(*lines):
            self._said = said
        told = json.dumps(self._counted(), sort_keys=True)
        if told != self._told or now - self._told_at > gatedir.SILENCE / 4:
            with suppress(CniError):
                gatedir.put(gatedir.FOLDER / gatedir.COUNTED, told + "\n")
                self._told, self._told_at = told, now

    def _counted(self) -> Mapping[str, int]:
        counted = self._past.copy()
        for place in self._places.values():
            counted += place.gate.counted
            counted["lost"] += place.lost
        there = {"pods": len(self._entries), "addresses": sum(place.reached for place in self._places.values())}
        return counted | there
