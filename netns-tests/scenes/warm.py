"""Node agents for the hosts of the tests, and what the plugins answered with and without them.

With AGENT_CNI_MODE=warm every host has its agent. An agent takes half a second to import, so one process has done that
and forks: what it forks is `cni.agent.serve.serve`, as `agent-cni serve` calls it.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

MODE = os.environ.get("AGENT_CNI_MODE", "cold")
RUN, NAMES = Path("/run/agent-cni"), Path("/run/agent-cni-names")
TRANSCRIPTS = Path(__file__).resolve().parents[2] / ".cache/transcripts"

_NEWNET, _NEWNS, _BIND, _REC, _SLAVE = 0x40000000, 0x00020000, 4096, 16384, 1 << 19


class Nursery:
    """The process agents are forked from, one for all tests of a worker; it ends with the worker."""

    def __init__(self, python: Path, *, seam: bool = False) -> None:
        """With `seam` what a call's environment orders befalls its effects (scenes/effects.py)."""
        command = [str(python), "-I", __file__, *["seam"] * seam]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self, netns: str, folder: Path, names: Path) -> int:
        """Start an agent in a host's namespace, with `folder` as its /run/agent-cni and `names` as its /run/agent-cni-names; its pid,
        once it listens.
        """
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([netns, str(folder), str(names)]) + "\n")
        self._process.stdin.flush()
        pid = int(self._process.stdout.readline())
        while not (folder / "agent.sock").exists():
            os.kill(pid, 0)
            time.sleep(0.002)
        return pid


def stop(pid: int, number: signal.Signals = signal.SIGTERM) -> None:
    """End an agent and wait until it is gone."""
    descriptor = os.pidfd_open(pid)
    os.kill(pid, number)
    import select

    select.select([descriptor], [], [], 30)
    os.close(descriptor)


def _nurse() -> None:
    import cni.agent.serve

    cni.agent.serve._warm()
    if sys.argv[1:]:
        sys.path.append(str(Path(__file__).parent))
        import effects

        effects.install_in_workers()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for an agent: `stop` asks its pidfd
    for line in sys.stdin:
        netns, folder, names = json.loads(line)
        pid = os.fork()
        if not pid:
            _be_agent(netns, folder, names)
        print(pid, flush=True)


def _be_agent(netns: str, folder: str, names: str) -> None:
    from cni.agent.pool import DEADLINE, MOST
    from cni.agent.serve import serve

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(netns).open() as file:
        done = [libc.setns(file.fileno(), _NEWNET), libc.unshare(_NEWNS)]
    # What is mounted next is for this agent alone, however the mounts of the test run propagate.
    done.append(libc.mount(b"none", b"/", None, _REC | _SLAVE, None))
    for source, place in ((folder, RUN), (names, NAMES)):
        done.append(libc.mount(source.encode(), str(place).encode(), None, _BIND, None))
    assert done == [0] * 5, os.strerror(ctypes.get_errno())
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    serve(RUN / "agent.sock", MOST, DEADLINE)
    os._exit(0)


class Transcript:
    """Our plugins' calls of one test, in order, without what differs between two runs of anything.

    A test that interferes with a call while it runs has no transcript: what comes of it depends on the instant.
    """

    def __init__(self, test: str) -> None:
        self._file = TRANSCRIPTS / MODE / (re.sub(r"[^\w.\[\]-]+", "_", test)[-180:] + ".json")
        self._calls: list[dict[str, Any]] = []
        self._dropped = False
        self._random: dict[str, str] = {}

    def add(self, verb: str, plugin: str, code: int, stdout: str, stderr: str) -> None:
        """Note a call."""
        said = {"stdout": self._settled(stdout), "stderr": self._settled(stderr)}
        self._calls.append({"verb": verb, "plugin": plugin, "code": code, **said})

    def drop(self) -> None:
        """Keep nothing of this test."""
        self._dropped = True

    def write(self) -> None:
        """Keep it for the comparison."""
        if self._calls and not self._dropped:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.write_text(json.dumps(self._calls, indent=1))

    def _settled(self, text: str) -> str:
        text = re.sub(r'"time": "[^"]+"', '"time": ""', text)
        text = re.sub(r'"seconds": [\d.]+', '"seconds": 0', text)
        text = re.sub(r"/tmp/pytest-of-\w+/pytest-\d+/(?:popen-gw\d+/)?(\w*?)\d+(?!\w)", r"/tmp/\1", text)
        # sets of peers are called after their feed, which is a folder of the test's
        return re.sub(
            r"\b[0-9a-f]{2}(:[0-9a-f]{2}){5}\b|\bveth[0-9a-f]{8}\b|\b[pn][46]-[0-9a-f]{16}\b", self._called, text
        )

    def _called(self, found: re.Match[str]) -> str:
        """MACs of others, and names of the reference bridge's veths, are random: called in the order they appear."""
        return self._random.setdefault(found[0], f"random{len(self._random)}")


def differences() -> list[str]:
    """Where the transcripts of both modes differ, a line for each test that ran with an agent: not all do."""
    found = []
    for file in sorted((TRANSCRIPTS / "warm").glob("*.json")):
        other, warm = TRANSCRIPTS / "cold" / file.name, json.loads(file.read_text())
        cold = json.loads(other.read_text()) if other.exists() else []
        if cold != warm:
            found.append(f"{file.name}: {_first_difference(cold, warm)}")
    return found


def _first_difference(cold: list[Any], warm: list[Any]) -> str:
    if len(cold) != len(warm):
        return f"{len(cold)} calls cold, {len(warm)} warm"
    number, one, other = next((n, a, b) for n, (a, b) in enumerate(zip(cold, warm, strict=True)) if a != b)
    return f"call {number}\n  cold {json.dumps(one)}\n  warm {json.dumps(other)}"


if __name__ == "__main__":
    _nurse()
