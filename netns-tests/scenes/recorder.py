"""The recorder of flows on a host, and what is asked of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any, Self

from lab import AGENT_CNI, PATIENCE, Host, eventually


class Recorder:
    """`agent-cni flows --record` on a host, as an operator starts it. Use it with `with`."""

    def __init__(self, host: Host, *options: object, program: Path = AGENT_CNI) -> None:
        self.host, self._options, self._program = host, options, program
        self.folder = host.folder.with_suffix(".flows")
        self.log = host.folder.with_suffix(".flows.log")
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind:
            print(self.log.read_text())
        self.end()

    def start(self) -> None:
        """Start it, and wait until it listens."""
        words = [*self.host.within(), self._program, "flows", "--record", "--folder", self.folder, *self._options]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(word) for word in words], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
            process = self.process
        assert eventually(lambda: self.listens or process.poll() is not None)
        assert process.poll() is None, self.log.read_text()

    def end(self) -> int:
        """End it as systemd does; its exit code."""
        return self._ended(signal.SIGTERM)

    def kill(self) -> int:
        """End it as a kernel does that has no memory left."""
        return self._ended(signal.SIGKILL)

    def asked(self, *words: object) -> list[dict[str, Any]]:
        """The flows that are printed."""
        found: list[dict[str, Any]] = json.loads(self.said(*words, "--json"))
        return found

    def said(self, *words: object) -> str:
        """What is printed of them."""
        return self.host.run(self._program, "flows", *words, "--folder", self.folder).stdout

    def followed(self, *words: object) -> subprocess.Popen[str]:
        """Somebody who follows."""
        command = [*self.host.within(), self._program, "flows", *words, "--follow", "--folder", self.folder]
        return subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True)

    @property
    def segments(self) -> list[Path]:
        return sorted(self.folder.glob("*.jsonl"))

    @property
    def listens(self) -> bool:
        """Whether one is at work: conntrack is, by a table that goes with it."""
        return "table inet agent_cni_flows" in self.host.run("nft", "list", "tables").stdout

    def _ended(self, by: signal.Signals) -> int:
        if self.process is None:
            return 0
        process, self.process = self.process, None
        os.kill(process.pid, by)
        return process.wait(PATIENCE)
