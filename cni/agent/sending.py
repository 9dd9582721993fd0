"""The process that sends spans: it reads on its stdin what workers hand over, until there is nobody who could."""

from __future__ import annotations

import os
import sys
from pathlib import Path

#: Ends so where another start would end likewise.
POINTLESS = os.EX_CONFIG
#: What one datagram may be, in bytes: more than a socket's buffer is by default.
_MOST = 1 << 20
_LACKING = "spans are sent nowhere, for that needs OpenTelemetry's library, the extra `otlp`: make install EXTRAS=otlp"


def main(settings: Path) -> int:
    """Send; the exit code."""
    try:
        from cni.agent.otlp import Sender
    except ImportError as error:
        sys.stderr.write(f"agent-cni: {_LACKING} ({error})\n")
        return POINTLESS
    from cni.agent.settings import Settings

    otlp = Settings.load(settings).otlp
    if otlp is None:
        return POINTLESS
    sender = Sender(otlp)
    while packet := os.read(0, _MOST):
        sender.take(packet)
    sender.end()
    return 0


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    sys.stderr.flush()
    os._exit(code)  # a thread that waits for a collector is not waited for
