"""Why the first process ends, and what it becomes then."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

POOL = """
import os, signal, socket, sys
from cni.agent.pool import Pool
from cni.agent.worker import Terms

class Asked(Pool):
    def _dismiss_all(self):
        super()._dismiss_all()
        if "meanwhile" in sys.argv:
            os.kill(os.getpid(), signal.SIGTERM)

path = sys.argv[1]
listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
listener.bind(path)
listener.listen()
caller = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
caller.connect(path)  # to a worker of another installation
print(Asked(listener, 2, Terms(5), (0, 0, 0)).run(), flush=True)
os.kill(os.getpid(), signal.SIGTERM)
print("not ended", sorted(signal.sigpending()), flush=True)
"""


def said(*words: object) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", POOL, *map(str, words)], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.splitlines()


def test_who_is_asked_to_stop_becomes_no_other_release(tmp_path: Path):
    assert said(tmp_path / "socket", "meanwhile")[0] == "False"


def test_what_asks_to_stop_later_waits_for_what_it_becomes(tmp_path: Path):
    assert said(tmp_path / "socket") == ["True", "not ended [<Signals.SIGTERM: 15>]"]


def test_who_is_hung_up_on_before_there_is_a_pool_goes_on(tmp_path: Path):
    """It would leave its socket, and systemd does not start again who ended by that."""
    code = "import os, signal\nfrom cni.agent.pool import hold_back_stopping\nhold_back_stopping()\nos.kill(os.getpid(), signal.SIGHUP)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
