"""A Consul agent of a host, as a developer starts it: Consul's own, built by `tools/bootstrap --consul`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Self

from lab import PATIENCE, ROOT, Host, eventually

CONSUL = ROOT / ".cache/bin/consul"


class Consul:
    """It, on 127.0.0.1 of a host: HTTP at 8500, DNS at 8600. What it knows is in memory, unless it has a `folder`. Use it with `with`."""

    url = "http://127.0.0.1:8500"

    def __init__(self, host: Host, folder: Path | None = None) -> None:
        self.host, self._folder = host, folder
        self.log = host.folder.with_suffix(".consul.log")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind:
            print(self.log.read_text()[-3000:])
        self.kill()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        kept = ("-data-dir", str(self._folder), "-server", "-bootstrap-expect=1") if self._folder else ("-dev",)
        words = ("agent", *kept, "-bind=127.0.0.1", "-client=127.0.0.1", "-log-level=warn")
        with self.log.open("ab") as log:
            command = [*self.host.prefix(), str(CONSUL), *words]
            environ = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ)
        assert eventually(lambda: self._told("/v1/status/leader") not in ("", '""'))

    def kill(self) -> None:
        """End it at once."""
        if self._process:
            self._process.kill()
            self._process.wait(PATIENCE)
            self._process = None

    def services(self) -> dict[str, dict[str, Any]]:
        """What is registered, by id."""
        return json.loads(self._told("/v1/agent/services") or "{}")

    def health(self, name: str) -> list[tuple[str, int, list[str]]]:
        """Of each instance of a service address, port and how its own checks are."""
        found = json.loads(self._told(f"/v1/health/service/{name}") or "[]")
        own = [(item["Service"], [it["Status"] for it in item["Checks"] if it["ServiceID"]]) for item in found]
        return sorted((service["Address"], service["Port"], checks) for service, checks in own)

    def register(self, service: dict[str, Any]) -> None:
        """Have it know a service of somebody else."""
        self._ask("-X", "PUT", "-d", json.dumps(service), f"{self.url}/v1/agent/service/register")

    def deregister(self, key: str) -> None:
        self._ask("-X", "PUT", f"{self.url}/v1/agent/service/deregister/{key}")

    def _told(self, path: str) -> str:
        return self._ask(f"{self.url}{path}")

    def _ask(self, *words: str) -> str:
        return self.host.run("curl", "-s", "--noproxy", "*", "-m", "10", *words, check=False).stdout
