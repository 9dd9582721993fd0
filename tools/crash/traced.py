"""Installations that strace kills at system calls, whoever makes them: a second opinion that needs no seam."""

from __future__ import annotations

import random
import re
import subprocess
from collections import Counter
from typing import NamedTuple

from crash import installing
from crash.installing import FOLDERS, PREFIX, Stage, Struck, sh
from crash.story import Told

CALLS = (
    "openat", "write", "pwrite64", "rename", "renameat2", "mkdir", "rmdir", "unlink", "unlinkat", "symlink", "link", "linkat", "chmod", "fchmod",
    "fchmodat", "fsync", "ftruncate", "utimensat", "copy_file_range", "sendfile", "vfork", "clone", "execve", "flock", "sendto", "sendmsg",
)  # fmt: skip
_READS = re.compile(r"^openat\((?!.*O_(?:CREAT|WRONLY|RDWR))")
#: Of the calls on a copy that nobody uses yet, or no more, so many are struck, and of the others.
_HIDDEN, _SEEN = 8, 40


class Call(NamedTuple):
    """A system call of the command's own process: its name, which of that name it is, and what strace says of it."""

    name: str
    ordinal: int
    said: str


class Traced(Struck):
    """The same, with a kill at a system call in place of an effect."""

    def all(self, story: str, step: int, how: list[str]) -> list[str]:
        """A line for each fault."""
        self._stage.restore(self._before)
        done = _traced(self._stage, self._image, self._words)
        assert done.returncode == 0, f"{done.returncode}: {done.stdout}{done.stderr}"[-500:]
        calls = [it for it in _calls(self._stage.log.read_text(errors="replace")) if not _READS.match(it.said)]
        self.effects = len(calls)
        self._calls = _chosen(calls, self._chance)[self._chance.randrange(step) :: step]
        found = []
        for number, call in enumerate(self._calls):
            self.strikes += 1
            found += [
                f"{story}, at {call.name} {call.ordinal} ({call.said}): {it}" for it in self.once(number, "SIGKILL")
            ]
        return found

    def _strike(self, number: int, what: str) -> subprocess.CompletedProcess[str]:
        name, ordinal, _ = self._calls[number]
        return _traced(self._stage, self._image, self._words, f"inject={name}:signal=KILL:when={ordinal}")


def _traced(stage: Stage, image: str, words: tuple[str, ...], *expressions: str) -> subprocess.CompletedProcess[str]:
    python = stage.images[image] / PREFIX.relative_to("/") / "bin/python3"
    options = [word for it in (f"trace={','.join(CALLS)}", *expressions) for word in ("-e", it)]
    return sh(
        "strace",
        "-f",
        "-y",
        "-qq",
        "-o",
        stage.log,
        *options,
        python,
        "-I",
        "-m",
        "cni.command.main",
        *words,
        check=False,
    )


def _calls(seen: str) -> list[Call]:
    """Of the process that strace began with: numbers are counted for each process."""
    own, counted, found = seen.split(maxsplit=1)[0], Counter[str](), []
    for line in seen.splitlines():
        pid, _, said = line.partition(" ")
        if pid == own and (call := re.match(r" *(\w+)\(", said)):
            counted[call[1]] += 1
            found.append(Call(call[1], counted[call[1]], said.strip()[:160]))
    return found


def _chosen(calls: list[Call], chance: random.Random) -> list[Call]:
    """Some of either kind, in their order."""
    seen = [it for it in calls if any(folder in it.said for folder in FOLDERS) and f"/.{PREFIX.name}." not in it.said]
    hidden = [it for it in calls if it not in seen]
    some = [*chance.sample(seen, min(_SEEN, len(seen))), *chance.sample(hidden, min(_HIDDEN, len(hidden)))]
    return sorted(some, key=calls.index)


def tell(story: str, seed: str) -> Told:
    """`upgrade traced`."""
    return installing.tell(story, seed, Traced)
