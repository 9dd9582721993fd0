"""The part of a member that follows feeds of policies, alone: with what the member's unit lets it do, and no cluster."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


def main() -> None:
    """Follow; for each look that did something, how long it took, in milliseconds of this thread's processor and of the clock."""
    from cni.member.policies import Policies
    from cni.state import DEFAULT_FOLDER

    noticed = threading.Event()
    policies = Policies(DEFAULT_FOLDER, noticed.set)
    threading.Thread(target=policies.watch, daemon=True).start()
    while True:
        noticed.wait(min(1.0, policies.owed))
        noticed.clear()
        began, used, done = time.monotonic(), time.thread_time(), policies.done
        policies.look()
        if policies.done != done:
            spent = [1000 * (time.thread_time() - used), 1000 * (time.monotonic() - began)]
            print(policies.done, *(f"{item:.2f}" for item in spent), flush=True)


@contextmanager
def following(prefix: list[str], python: object) -> Iterator[subprocess.Popen[str]]:
    """One that follows on a host, entered by `prefix`."""
    weak = ["setpriv", "--bounding-set", "-all,+net_admin", "--inh-caps", "-all", "--no-new-privs"]
    command = [*prefix, *weak, str(python), "-I", __file__]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
        assert process.poll() is None, process.stderr and process.stderr.read()
    finally:
        process.terminate()
        process.communicate()


if __name__ == "__main__":
    sys.exit(main())
