"""A story: something that is enumerated, in one go; the unit by which the crash test goes on where it was ended."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Told:
    """What came of a story: how many of what there were ("kills": 286), and a line for each fault, which says how to have it again."""

    counts: dict[str, int]
    faults: list[str] = field(default_factory=list)


class Part(Protocol):
    """A module of this package."""

    WHAT: str
    FIXED: tuple[str, ...]  # the stories that `make test` tells, too

    def stories(self) -> Iterable[str]: ...

    def tell(self, story: str, seed: str) -> Told: ...


@dataclass(frozen=True)
class Entry:
    """A line of the journal: a story that was told, of which sources (a digest), at which commit, with which seed."""

    part: str
    story: str
    seed: str
    sources: str
    commit: str
    when: str
    seconds: int
    told: Told


class Journal:
    """What was told so far, one line of JSON each; the later line of a story counts."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def write(self, entry: Entry) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a") as file:
            file.write(json.dumps(asdict(entry)) + "\n")

    def __iter__(self) -> Iterator[Entry]:
        latest = {}
        for line in self.file.read_text().splitlines() if self.file.exists() else ():
            entry = json.loads(line)
            latest[entry["part"], entry["story"]] = Entry(**entry | {"told": Told(**entry["told"])})
        return iter(latest.values())


def row(part: str, what: str, stories: int, entries: list[Entry]) -> str:
    """A part's line of the table: its last run of each story that was told, of so many there are."""
    counts: dict[str, int] = {}
    for entry in entries:
        for name, number in entry.told.counts.items():
            counts[name] = counts.get(name, 0) + number
    numbers = ", ".join(f"{number:,} {name}" for name, number in counts.items())
    faults = sum(len(entry.told.faults) for entry in entries)
    commits = ", ".join(dict.fromkeys(entry.commit for entry in sorted(entries, key=lambda entry: entry.when)))
    spent = sum(entry.seconds for entry in entries)
    days = sorted({entry.when for entry in entries})
    seeds = {seed: sum(entry.seed == seed for entry in entries) for seed in sorted({entry.seed for entry in entries})}
    again = ", ".join(
        f"`make crash-test PARTS={part} SEED={seed}`{f' ({count} stories)' * (len(seeds) > 1)}"
        for seed, count in seeds.items()
    )
    return (
        f"| `{part}` | {what} | {len(entries)} of {stories} stories: {numbers} | {faults} | {_spelled(spent)} | "
        f"{days[-1]}, {commits} | {again} |"
    )


def _spelled(seconds: int) -> str:
    return f"{seconds} s" if seconds < 300 else f"{seconds // 60} min"


def today() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime())
