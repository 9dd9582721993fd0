"""The process that sends spans, or flows: it reads on its stdin what is handed over, until there is nobody who could."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cni.agent.otlp import Sender
    from cni.agent.otlp_logs import LogSender

#: Ends so where another start would end likewise.
POINTLESS = os.EX_CONFIG
#: What one datagram may be, in bytes: more than a socket's buffer is by default.
_MOST = 1 << 20
SPANS, FLOWS = "spans", "flows"
_LACKING = "{} are sent nowhere, for that needs OpenTelemetry's library, the extra `otlp`: make install EXTRAS=otlp"


def main(settings: Path, what: str) -> int:
    """Send; the exit code."""
    try:
        made = _sender(what)
    except ImportError as error:
        sys.stderr.write(f"agent-cni: {_LACKING.format(what)} ({error})\n")
        return POINTLESS
    from cni.agent.settings import Settings

    otlp = Settings.load(settings).otlp
    if otlp is None:
        return POINTLESS
    sender = made(otlp)
    while packet := os.read(0, _MOST):
        sender.take(packet)
    sender.end()
    return 0


def _sender(what: str) -> type[Sender | LogSender]:
    if what == SPANS:
        from cni.agent.otlp import Sender

        return Sender
    from cni.agent.otlp_logs import LogSender

    return LogSender


if __name__ == "__main__":
    code = main(Path(sys.argv[1]), sys.argv[2])
    sys.stderr.flush()
    os._exit(code)  # a thread that waits for a collector is not waited for
