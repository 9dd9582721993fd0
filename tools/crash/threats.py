"""The threat model, line by line: who may do what, by the tests that try it."""

from __future__ import annotations

import re
from pathlib import Path

from crash.story import Told
from crash.sweeps import ran

WHAT = "each line of docs/threat-model.md, by the tests it names"
FIXED = ()  # make test runs them where they are

_MODEL = Path(__file__).resolve().parents[2] / "docs/threat-model.md"
_TEST = re.compile(r"`((?:netns-)?tests/[^`]+\.py(?:::\w+)?)`")


def stories() -> list[str]:
    """Whoever has a section."""
    return re.findall(r"(?m)^## (.*)$", _MODEL.read_text())


def tell(story: str, seed: str) -> Told:
    section = _MODEL.read_text().partition(f"## {story}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ") and _TEST.search(line)]
    told = ran("cold", *dict.fromkeys(_TEST.findall(section)))
    return Told({"lines": len(lines)} | told.counts, told.faults)
