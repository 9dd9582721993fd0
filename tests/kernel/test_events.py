"""What the kernel tells, and who listens, while much happens."""

from __future__ import annotations

from types import SimpleNamespace

from cni.kernel import events
from cni.kernel.events import OVERRUN, Event, Events


def test_a_flood_is_told_while_it_lasts(monkeypatch):
    """It need not end, and whoever waits for its end does nothing meanwhile."""
    monkeypatch.setattr(events, "_event_of", lambda message, _: Event(OVERRUN, 0) if message else None)
    monkeypatch.setattr(events, "messages", lambda data: [data, b""])
    heard = Events()
    try:
        reads = []
        own, heard._socket = heard._socket, SimpleNamespace(recv=lambda *_: reads.append(1) or b"more")
        found = heard.wait()
        assert found == [Event(OVERRUN, 0)] * len(reads)
        assert len(reads) < 100
    finally:
        heard._socket = own
        heard.close()
