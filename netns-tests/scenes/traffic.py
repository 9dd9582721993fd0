"""Real traffic between pods: programs that listen and connect under the ids rules look at."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from lab import PATIENCE, Namespace

PROXY = 1337
#: Seconds for whom no answer is expected.
SHORTLY = 1.5
REFUSED, TIMED_OUT = {"error": "ConnectionRefusedError"}, {"error": "TimeoutError"}


class Actor:
    """A program in a namespace, under one user and group, which may be of a user namespace. Use it with `with`, or close it."""

    def __init__(self, where: Namespace, uid: int = 0, gid: int | None = None, users: str = "") -> None:
        gid = uid if gid is None else gid
        capable = ["--inh-caps", "+net_admin,+net_bind_service", "--ambient-caps", "+net_admin,+net_bind_service"]
        ids = ["setpriv", "--reuid", str(uid), "--regid", str(gid), "--clear-groups", *capable]
        python = "/usr/bin/python3" if users else sys.executable  # others may not read what is in /root
        program = [python, "-I", str(Path(__file__).with_name("actor.py"))]
        command = ["nsenter", f"--net={where.path}", *([f"--user={users}"] if users else []), *ids, *program]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.wait(PATIENCE)
        self.process.stdout.close()

    def listen(self, name: str, port: int, *hosts: str, **how: bool) -> None:
        """Listen under a name, on every address of both families unless `hosts` says otherwise."""
        for host in hosts or ("0.0.0.0", "::"):
            assert self._do("listen", name=name, host=host, port=port, **how) == "listening"

    def connect(self, host: str, port: int, scope: int = 0, **how: Any) -> dict[str, Any]:
        """Connect: what the server saw, or {"error": …}; `scope` is the index of a link-local address's link."""
        return self._do("connect", to=[host, port, *([0, scope] if scope else [])], **how)

    def reaches(self, host: str, port: int, **how: Any) -> str:
        """Who answers a connection, or the error's name."""
        seen = self.connect(host, port, **how)
        return seen.get("who") or seen["error"]

    def echo(self, kept: str, text: str = "still there", **how: float) -> Any:
        """What comes back over a connection kept under a name, in so many `seconds`."""
        return self._do("echo", kept=kept, text=text, **how)

    def say(self, kept: str, text: str, last: bool = False) -> None:
        """Send over a kept connection; a server echoes what begins with "held" when it is to `answer`. `last` closes this direction."""
        assert self._do("say", kept=kept, text=text, last=last) == "said"

    def hear(self, kept: str, **how: float) -> Any:
        """What comes over a kept connection, in so many `seconds`."""
        return self._do("hear", kept=kept, **how)

    def ask(self, host: str, port: int, **how: Any) -> dict[str, Any]:
        """One UDP question, answered in so many `seconds`."""
        return self._do("ask", to=[host, port], **how)

    def collect(self, port: int, *hosts: str) -> None:
        """Note what arrives on a UDP port."""
        for host in hosts or ("0.0.0.0", "::"):
            assert self._do("collect", host=host, port=port) == "listening"

    def heard(self, count: int = 0) -> list[list[str]]:
        """What arrived since the last question: [sender, text]. `count` is waited for, as long as a busy machine takes."""
        time.sleep(0.1)
        return self._do("heard", count=count)

    def answer(self) -> None:
        """Echo the line that is held back."""
        assert self._do("answer") == "answered"

    def send(self, host: str, port: int, text: str, **how: Any) -> None:
        """One UDP datagram, which rules of the pod's own namespace may refuse: then it was tried all the same."""
        said = self._do("send", to=[host, port], text=text, **how)
        assert said == "sent" or said["error"].startswith("PermissionError"), said

    def _do(self, verb: str, **order: Any) -> Any:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps({"do": verb, **order}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())
