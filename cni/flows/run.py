"""The recorder of flows: it hears what the kernel tells of connections and drops, and writes lines. Nothing waits for it.

What it does not take in time the kernel does not keep, and it is counted. So it may be slow, and has the least of the processor.
"""

from __future__ import annotations

import select
import time
from contextlib import ExitStack, closing

from cni import log
from cni.agent.exporter import Exporter
from cni.errors import CniError, Conflict
from cni.flows.recorder import NamesOf, Recorder
from cni.flows.ring import Ring
from cni.flows.sighting import BEGUN, DENIED, ENDED
from cni.flows.whose import Whose
from cni.kernel import conntrack, nflog, process, signals
from cni.kernel.notify import notify, watched
from cni.naming import DROPS
from cni.state.daemons import FLOWS, alone
from cni.state.recorded import Counts, Recorded

#: So long events are let gather, how often somebody looks whether to end, and how often who has the drops is asked, in seconds.
_GATHERED, _BEAT, _TRIED_AGAIN_AFTER = 0.1, 0.5, 10.0
#: Of so many at a time lines are made.
_MOST = 2000
#: So many lines are a datagram to who sends them: of a kilobyte each at most, which fits his socket.
_AT_ONCE = 50
_LEAST_OF_THE_PROCESSOR = 19


def no_names(address: str) -> tuple[str, ...]:
    """Nobody says by which names an address was resolved."""
    return ()


def record(ring: Ring, names_of: NamesOf = no_names, exporter: Exporter | None = None) -> None:
    """Record what pods of this node do until SIGTERM or SIGINT, and have an exporter send it, too. Raises Conflict where somebody does
    already, and KernelRefused.
    """
    process.keep_little_memory()
    process.be_nice(_LEAST_OF_THE_PROCESSOR)
    with alone(FLOWS), closing(Recorded()) as counted, ExitStack() as held:
        for line in conntrack.account():
            log.warning("flows", f"{line}: bytes and times are not said")
        heard = held.enter_context(closing(conntrack.Listener()))
        held.enter_context(closing(conntrack.Tracking()))  # which says that somebody listens
        loop = _Loop(ring, Recorder(whose := Whose(), names_of), whose, counted, heard)
        loop.exporter = exporter
        loop.work()


class _Loop:
    def __init__(
        self, ring: Ring, recorder: Recorder, whose: Whose, counted: Recorded, heard: conntrack.Listener
    ) -> None:
        self._ring, self._recorder, self._whose, self._counted, self._heard = ring, recorder, whose, counted, heard
        self._drops: nflog.Listener | None = None
        self._tried, self._ended, self._said, self._trouble = 0.0, False, "", ""
        self._before = counted.counts
        self.exporter: Exporter | None = None

    def work(self) -> None:
        signals.on_ending(self._end)
        log.event("flows", "start")
        try:
            while not self._ended:
                self._listen_to_drops()
                sockets = [self._heard.fileno(), *([self._drops.fileno()] if self._drops else [])]
                if select.select(sockets, [], [], _BEAT)[0]:
                    time.sleep(_GATHERED)
                self._turn()
                self._beat()
        finally:
            notify("STOPPING=1")
            if self._drops:
                self._drops.close()
            if self.exporter:
                self.exporter.end()

    def _end(self) -> None:
        self._ended = True

    def _listen_to_drops(self) -> None:
        """Where somebody else listens (agent-cni policy log), once he is gone."""
        if self._drops or time.monotonic() < self._tried:
            return
        self._tried = time.monotonic() + _TRIED_AGAIN_AFTER
        try:
            self._drops = nflog.Listener(DROPS)
        except Conflict as error:
            self._warn(f"{error.msg}: what policies drop is not recorded")

    def _turn(self) -> None:
        """Take what waits. Whose addresses are is asked after the events came: who has one by then had it said before he could use it."""
        events, drops = self._heard.waiting(_MOST), list(self._drops.waiting(_MOST)) if self._drops else []
        self._whose.look()
        found = [*self._recorder.tracked(conntrack.tracked(events, self._whose)), *self._recorder.dropped(drops)]
        lines = [item.line for item in found]
        unwritten, unsent = self._write(lines), self._send(lines)
        kinds = [item.what for item in found]
        now = self._counted.counts
        shed = self._before.shed + self._heard.shed + (self._drops.shed if self._drops else 0)
        lost = shed > now.shed or unwritten > 0
        self._counted.put(Counts(
            now.begun + kinds.count(BEGUN), now.ended + kinds.count(ENDED), now.denied + kinds.count(DENIED),
            max(shed, now.shed), now.unwritten + unwritten, now.unsent + unsent, time.time() if lost else now.lost_at,
        ))  # fmt: skip

    def _send(self, lines: list[bytes]) -> int:
        """Have the collector told; how many lines nobody took."""
        if self.exporter is None:
            return 0
        self.exporter.look()
        lots = [lines[at : at + _AT_ONCE] for at in range(0, len(lines), _AT_ONCE)]
        return sum(len(lot) for lot in lots if not self.exporter.hand_over(b"".join(lot)))

    def _write(self, lines: list[bytes]) -> int:
        """Have the ring say it; how many lines it did not take."""
        try:
            self._ring.append(lines)
        except (OSError, CniError) as error:
            self._warn(f"flows are not written: {getattr(error, 'msg', '') or getattr(error, 'strerror', '')}")
            return len(lines)
        return 0

    def _warn(self, line: str) -> None:
        """Say once what is wrong."""
        if line != self._trouble:
            log.warning("flows", line)
        self._trouble = line

    def _beat(self) -> None:
        """Say that this works, and how it is."""
        counts = self._counted.counts
        said = f"{counts.begun} connections seen, {counts.denied} denied, {counts.shed} events shed"
        new = [] if said == self._said else [*([] if self._said else ["READY=1"]), f"STATUS={said}"]
        lines = new + ["WATCHDOG=1"] * (watched() is not None)
        if lines and notify(*lines):
            self._said = said
