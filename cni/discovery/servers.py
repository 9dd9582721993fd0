"""dnsmasq, one for each network: started as nobody, by what the network's calls wrote, and started again when it ends."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress

from cni import log
from cni.errors import CniError, ToolFailed
from cni.kernel import hostsdir, process

PROGRAM, PACKAGE = "dnsmasq", "dnsmasq-base"
#: Seconds until it is started again, twice as long each time it did not even live for that long, and how long it has to end.
_PAUSE, _PAUSE_AT_MOST, _GRACE = 0.1, 30.0, 2.0
_LINES, _PIECE = 5, 1 << 16


def word(network: str) -> str:
    """By what a network's server is known on a command line."""
    return f"--conf-file={hostsdir.FOLDER / network / hostsdir.CONF}"


class Server:
    """One network's."""

    def __init__(self, network: str) -> None:
        self._network = network
        self._news = asyncio.Event()
        #: Why there is none now; empty: there is one.
        self.trouble = "not started yet"

    def look(self) -> None:
        """Have its configuration looked at."""
        self._news.set()

    async def keep(self) -> None:
        """Have one, until this is cancelled; without a configuration there is none."""
        pause, said = _PAUSE, ""
        while True:
            began = time.monotonic()
            try:
                self.trouble = await self._live()
            except CniError as error:
                self.trouble = error.msg
            if self.trouble:
                pause = _PAUSE if time.monotonic() - began > 2 * pause else min(2 * pause, _PAUSE_AT_MOST)
                if self.trouble != said:
                    log.warning("names", self.trouble, verb="serve", network=self._network)
                said = self.trouble
                await asyncio.sleep(pause)

    async def _live(self) -> str:
        """One life of it: why it ended by itself, nothing where its configuration is another now."""
        self._news.clear()
        if not (served := hostsdir.served(self._network)):
            await self._news.wait()
            return ""
        hostsdir.make_folders(hostsdir.FOLDER / self._network)
        folders = hostsdir.folders(self._network)
        if not (program := process.find(PROGRAM, before=os.environ.get("PATH", ""))):
            raise ToolFailed(f"{PROGRAM} is not installed ({PACKAGE}): nobody answers for names")
        process.kill(PROGRAM, word(self._network))  # one whose daemon was killed; it ends by itself, but when
        words = [program, "--keep-in-foreground", "--log-facility=-", word(self._network)]
        running = process.start(process.as_nobody(words, "net_bind_service"))
        said = deque[str](maxlen=_LINES)
        loop = asyncio.get_running_loop()
        loop.add_reader(running.says, _hear, running.says, said, loop)
        loop.add_reader(running.ends, self._news.set)
        code = 0
        try:
            log.event("names", "serve", network=self._network, domain=served.domain, pid=running.pid)
            self.trouble = ""
            while not (ended := process.has_ended(running)) and self._is_as(served, folders):
                self._news.clear()
                await self._news.wait()
        finally:
            _hear(running.says, said, loop)
            for descriptor in (running.says, running.ends):
                loop.remove_reader(descriptor)
            code = process.end(running, _GRACE)
        return f"{PROGRAM} ended ({code}): {_last(said)}" if ended else ""

    def _is_as(self, served: hostsdir.Served, folders: list[tuple[int, int]]) -> bool:
        """Whether a server that began with these has still what it reads, and watches."""
        return (hostsdir.served(self._network), hostsdir.folders(self._network)) == (served, folders)


def _hear(says: int, said: deque[str], loop: asyncio.AbstractEventLoop) -> None:
    """Keep the last lines it said; it writes one in several pieces, of which the last may be still to come."""
    with suppress(BlockingIOError):
        piece = os.read(says, _PIECE)
        said.extend(((said.pop() if said else "") + piece.decode(errors="replace")).split("\n"))
        if not piece:
            loop.remove_reader(says)


def _last(said: Iterable[str]) -> str:
    """The last line that says something, without its own name and number."""
    line = next((line for line in reversed([*said]) if line.strip()), "")
    return line.partition(": ")[2] or line or "it said nothing"
