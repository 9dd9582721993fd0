"""Hosts that systemd runs, as far as the member is concerned: `systemctl` plays it, by the unit as it is installed."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from cluster import WIREGUARD, Node
from lab import ROOT

UNIT = "agent-cni-member.service"


@dataclass
class Booted(Node):
    """A host whose member is systemd's to run."""

    def create(self) -> None:
        super().create()
        for folder in ("systemd/system", "sbin", "booted/system", "units"):
            (self.etc / folder).mkdir(parents=True)
        Path("/run/systemd").mkdir(exist_ok=True)
        unit = (ROOT / "tools/systemd/system" / UNIT).read_text().replace("@PREFIX@", str(ROOT / ".venv"))
        (self.etc / "systemd/system" / UNIT).write_text(unit)
        player = Path(__file__).with_name("systemctl.py")
        told = f'exec {sys.executable} {player} {self.etc}/units {self.etc}/systemd/system/{UNIT} "$@"'
        (self.etc / "sbin/systemctl").write_text(f"#!/bin/sh\n{told}\n")
        (self.etc / "sbin/systemctl").chmod(0o755)
        for program in ("wireguard-go", "wg"):
            (self.etc / "sbin" / program).symlink_to(WIREGUARD / program)

    def prefix(self) -> list[str]:
        script = 'mount --bind "$0/booted" /run/systemd && mount --bind "$0/sbin" /usr/local/sbin && exec "$@"'
        return [*super().prefix(), "sh", "-c", script, str(self.etc)]

    @property
    def running(self) -> bool:
        return self.state_of_member == "active"

    @property
    def state_of_member(self) -> str:
        """As systemctl says it."""
        return self.run("systemctl", "is-active", check=False).stdout.strip()

    @property
    def enabled(self) -> bool:
        """Whether the member starts with the host."""
        return (self.etc / "units/enabled").exists()

    @property
    def told(self) -> list[str]:
        """What systemctl was told to do, but for questions."""
        lines = (self.etc / "units/told").read_text().splitlines()
        return [line for line in lines if not line.startswith(("is-active", "supervise", "execute"))]

    @property
    def journal(self) -> str:
        """What its members said."""
        file = self.etc / "units/journal"
        return file.read_text() if file.exists() else ""

    def kill(self) -> None:
        if (self.etc / "units").exists():
            self.run("systemctl", "stop")
