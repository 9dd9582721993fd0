"""The recorder of flows struck at each of its effects: every line it wrote is whole, what it counted stays, and it goes on."""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import effects
from lab import AGENT_CNI, ROOT, Lab, eventually
from traffic import TIMED_OUT

from crash.ordered import Revived, told_in
from crash.story import Told

sys.path.append(str(ROOT / "netns-tests/flows"))

from test_flows import Shop

#: The least there may be, in MiB: a segment is full after some rounds.
SIZE, PATIENCE = 1, 45
SHUT_PORT = 81


class Street:
    """Two pods, of whom one talks to the other, and knocks where it may not; each time until somebody has seen it."""

    def __init__(self, lab: Lab, held: ExitStack) -> None:
        self._host = lab.host()
        self._shop = Shop(self._host, lab, held)
        held.callback(self._shop.close)
        self._folder = Path("/run/flows")

    def once(self, order: effects.Order) -> list[str]:
        """What was wrong, with one order."""
        found, before = list[str](), self._counted()
        with Revived(self._host, order, "flows", "--record", "--folder", self._folder, "--size", SIZE) as recorder:
            for many in (1, 60):
                found += self._seen(many)
        found += recorder.wrong()
        found += [f"{name} went from {before[name]} to {now}" for name, now in self._counted().items() if now < before.get(name, 0)]  # fmt: skip
        if "agent_cni_flows" in self._host.run("nft", "list", "tables").stdout:
            found.append("conntrack is at work for nobody")
        return found

    def _seen(self, many: int) -> list[str]:
        """Talk so often, and knock, until a flow of it is over, and one denied."""
        began = time.time()

        def talked() -> bool:
            said = [self._shop.connect() for _ in range(many)]
            assert all(it["who"] == "db" for it in said)
            assert self._shop.connect(port=SHUT_PORT) == TIMED_OUT
            states = [(flow["state"], flow["verdict"]) for flow in self._flows() if flow["start"] >= began]
            return ("over", "allowed") in states and any(verdict == "denied" for _, verdict in states)

        found = [] if eventually(talked, PATIENCE) else [f"nobody sees what passes: {self._flows()[-3:]}"]
        return found + self._torn()

    def _flows(self) -> list[dict[str, Any]]:
        done = self._host.run(AGENT_CNI, "flows", "--folder", self._folder, "--json", check=False)
        return list(json.loads(done.stdout)) if done.returncode == 0 else []

    def _torn(self) -> list[str]:
        """Lines that are none, but for the halves that who was killed left before a line of his successor's."""
        found = []
        for file in sorted(self._folder.glob("*.jsonl")):
            for line in file.read_text().splitlines():
                try:
                    json.loads(line or "{}")
                except ValueError:
                    found.append(f"{file.name} has {line[:100]}")
        return found

    def _counted(self) -> dict[str, int]:
        said = self._host.run(AGENT_CNI, "metrics", check=False).stdout.splitlines()
        rows = [line.rsplit(" ", 1) for line in said if line.startswith("agent_cni_flows_") and "_total" in line]
        return {name: int(float(number)) for name, number in rows}


def tell(story: str, seed: str) -> Told:
    """`flows killed, 1 of 4`: at the first effect, the fifth ..."""
    return told_in(Street, story, seed)
