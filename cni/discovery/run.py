"""The daemon of names: it goes by what calls wrote, and nothing waits for it.

All of it is one loop (asyncio, for hundreds of probes wait at the same time); what may wait for another process or a disk is done in a
thread. It keeps nothing: which servers there are to be, who is probed and how that went is in files, so that to end and to be killed
are the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any

from cni import log
from cni.discovery.consul import Registrar
from cni.discovery.probed import Probed
from cni.discovery.servers import Server
from cni.errors import CniError
from cni.kernel import hostsdir, inotify, process, signals
from cni.kernel.hostsdir import Entry
from cni.kernel.notify import notify, watched
from cni.state.daemons import NAMES, alone

_BEAT = 1.0


def run() -> None:
    """Answer for this node's names until SIGTERM or SIGINT. Raises Conflict where somebody does already."""
    process.keep_little_memory()
    with alone(NAMES):
        asyncio.run(Daemon().work())


class Daemon:
    """What there is to be kept, by the folders of names as they are."""

    def __init__(self) -> None:
        self._servers: dict[str, tuple[Server, asyncio.Task[None]]] = {}
        self._probed: dict[Path, tuple[Probed, asyncio.Task[None]]] = {}
        self._entries: dict[Path, Entry] = {}
        self._registrar = Registrar()
        self._ended = asyncio.Event()
        self._tasks = asyncio.TaskGroup()
        self._said = ""
        #: Why what is there could not be read last; it is read as a whole then.
        self._trouble = ""

    async def work(self) -> None:
        """Do it until a signal comes. Raises whatever ended one of the tasks."""
        loop = asyncio.get_running_loop()
        signals.on_ending(lambda: loop.call_soon_threadsafe(self._ended.set))
        log.event("names", "start")
        with closing(inotify.Folders()) as folders:
            async with self._tasks:
                tasks = [self._tasks.create_task(self._registrar.keep())]
                loop.add_reader(folders.fileno(), self._look_if_possible, folders)
                while not self._ended.is_set():
                    self._look_if_possible(folders)
                    self._beat()
                    try:
                        await asyncio.wait_for(self._ended.wait(), _BEAT)
                    except TimeoutError:
                        continue
                loop.remove_reader(folders.fileno())
                notify("STOPPING=1")
                for task in (*tasks, *(task for _, task in (*self._servers.values(), *self._probed.values()))):
                    task.cancel()

    def _look_if_possible(self, folders: inotify.Folders) -> None:
        try:
            self._look(folders)
            self._trouble = ""
        except CniError as error:
            if error.msg != self._trouble:
                log.warning("names", error.msg, verb="look")
            self._trouble = error.msg

    def _look(self, folders: inotify.Folders) -> None:
        """Take what became another since; a folder that is watched anew is read as a whole."""
        noticed = folders.wait(0)
        networks = hostsdir.networks()
        places = [hostsdir.FOLDER, *(hostsdir.FOLDER / network for network in networks)]
        heres = {hostsdir.FOLDER / network / hostsdir.HERE: network for network in networks}
        whole = {item.folder for item in noticed if not item.name} | {*folders.watch([*places, *heres])}
        whole |= {*heres} if self._trouble else set()
        for file in self._entries.keys() | self._probed.keys():
            if file.parent not in heres:
                self._take(file, None)
        for folder in whole & heres.keys():
            found = {entry.path: entry for entry in hostsdir.entries(heres[folder])}
            for file in found.keys() | {file for file in self._entries if file.parent == folder}:
                self._take(file, found.get(file))
        for folder, name in noticed:
            if folder in heres and folder not in whole and not name.startswith("."):
                self._take(folder / name, Entry.read(heres[folder], hostsdir.read(folder / name)))
        self._serve(networks)

    def _serve(self, networks: list[str]) -> None:
        """Have a server for each network that says how it is to be, and for no other."""
        served = {network: said for network in networks if (said := hostsdir.served(network))}
        for network in self._servers.keys() - served.keys():
            server, task = self._servers.pop(network)
            task.cancel()
            log.event("names", "end", network=network)
        for network in served:
            if network not in self._servers:
                server = Server(network)
                self._servers[network] = server, self._begun(server.keep())
            self._servers[network][0].look()
        self._registrar.wanted({network: said.consul for network, said in served.items()}, self._entries.values())

    def _take(self, file: Path, entry: Entry | None) -> None:
        """Go by what a file says now, which may be what was written here."""
        if entry:
            self._entries[file] = entry
        else:
            self._entries.pop(file, None)
        probed, task = self._probed.get(file, (None, None))
        if probed and task and not probed.knows(entry):
            task.cancel()
            del self._probed[file]
            probed = None
        if entry and entry.health and not probed:
            made = Probed(entry)
            self._probed[file] = made, self._begun(made.keep())

    def _begun(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return self._tasks.create_task(work)

    def _beat(self) -> None:
        """Say that this works, and how it is."""
        down = sorted(network for network, (server, _) in self._servers.items() if server.trouble)
        unhealthy = sum(bool(entry.unhealthy) for entry in self._entries.values())
        said = f"{len(self._servers)} networks, {len(self._probed)} pods probed, {unhealthy} not answered"
        said += f"; without a server: {', '.join(down)}" if down else ""
        new = [] if said == self._said else ["READY=1", f"STATUS={said}"]
        lines = new + ["WATCHDOG=1"] * (watched() is not None)
        if lines and notify(*lines):
            self._said = said
