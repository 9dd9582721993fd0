"""A daemon's effects, each struck once: it is killed there, refused it, or sent a signal; and goes on, as systemd has it."""

from __future__ import annotations

import errno
import os
import random
import re
import signal
import subprocess
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol, Self

import effects
from lab import ROOT, Host, Lab

from crash.story import Told

AGENT_CNI = ROOT / ".venv/bin/agent-cni"
#: agent-cni with the doors of scenes/effects, and that to etcd.
DOORS = (str(ROOT / ".venv/bin/python3"), "-I", str(Path(__file__).with_name("member_doors.py")))
#: What the kernel, and the disk, refuse with; a store is out of reach instead.
ERRORS = (errno.EPERM, errno.ENOBUFS, errno.ENOMEM, errno.EBUSY)
#: How it is struck, and what of that is counted.
HOW = {"killed": "kills", "refused": "refusals", "stopped": "stops", "hung up": "hangups"}
_SIGNALS = {"stopped": signal.SIGTERM, "hung up": signal.SIGHUP}
_PATIENCE = 60


def told(story: str, seed: str, once: Callable[[effects.Order], list[str]]) -> Told:
    """`names killed, 1 of 12`: at the first effect, the 13th ... of as many as `once` has undisturbed; all where it says no share."""
    how = next(how for how in HOW if f" {how}" in story)
    share = re.search(r", (\d+) of (\d+)$", story)
    first, step = (int(share[1]), int(share[2])) if share else (1, 1)
    chance = random.Random(f"{story} {seed}")
    faults, number, many, strikes = [], 0, 0, 0
    while number <= many:
        error = chance.choice(ERRORS) if how == "refused" and number else 0
        when = chance.choice((effects.BEFORE, effects.AFTER))
        order = effects.Order(Path(f"/run/order-{number}"), number, when, error, signal=_SIGNALS.get(how, 0))
        strikes += number > 0
        wrong = once(order)
        made = order.told()
        many = many or len(made)
        at = made[number - 1] if 0 < number <= len(made) else "nothing"
        faults += [f"{story}: {it} ({how} {when} {number}, errno {error}: {at})" for it in wrong]
        number += step if number else first
    return Told(({"effects": many} if first == 1 else {}) | {HOW[how]: strikes}, faults)


class Scene(Protocol):
    """What a daemon runs in."""

    def once(self, order: effects.Order) -> list[str]:
        """What was wrong, with one order."""
        ...


def told_in(scene: Callable[[Lab, ExitStack], Scene], story: str, seed: str) -> Told:
    """The same in a scene of a host's own, which is made for it."""
    lab = Lab(story)
    try:
        with ExitStack() as held:
            return told(story, seed, scene(lab, held).once)
    finally:
        lab.close()


class Revived:
    """A daemon, `agent-cni` with these words, that is started again whenever it ends, the first time with an order. Use it with `with`."""

    def __init__(self, host: Host, order: effects.Order, *words: object, **environ: str) -> None:
        self._command = [*host.prefix(), *DOORS, str(AGENT_CNI), *map(str, words)]
        self._environ = os.environ | environ
        self._log = host.folder.with_suffix(f".{words[0]}.log")
        self._before = self._log.stat().st_size if self._log.exists() else 0
        self._over = threading.Event()
        self._process = self._started(order.environ)
        self._thread = threading.Thread(target=self._keep)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._process.terminate()
        self._process.wait(_PATIENCE)

    def wrong(self) -> list[str]:
        """When it is over: what of that which it said nobody designed, and how its last life ended."""
        found = undesigned(self._log, self._before)
        return [*found, *[f"it ends with {self._process.returncode}"] * (self._process.returncode != 0)]

    def _started(self, more: dict[str, str]) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environ | more
            )

    def _keep(self) -> None:
        while not self._over.wait(0.1):
            if self._process.poll() is not None:
                self._process = self._started({})


def undesigned(log: Path, since: int = 0) -> list[str]:
    """What a log has, from a byte on, that nobody designed."""
    said = log.read_bytes()[since:].decode(errors="replace") if log.exists() else ""
    return [f"it said {said[-1000:]}"] if "Traceback" in said or "a bug, please report it" in said else []
