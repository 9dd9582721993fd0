"""The DNS gate killed, or refused, at each of its effects, with files half written beside its own: it goes on, and nothing opens meanwhile."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import effects
from lab import ROOT, Host, Lab, eventually
from resolver import ask
from town import Member, Town

from crash.joining import DOORS, ERRORS, WHEN, counted
from crash.story import Told

sys.path.append(str(ROOT / "netns-tests/dnsgate"))

from test_names import OUTSIDE, WEB, World, reaches

AGENT_CNI = ROOT / ".venv/bin/agent-cni"
GARBAGE = ("", "{", "[]", '{"token": 1}', "\0" * 100)


class Gate:
    """One that is started again whenever it ends, the first time with an order."""

    def __init__(self, host: Host, order: effects.Order) -> None:
        self._command = [*host.prefix(), *DOORS, str(AGENT_CNI), "dnsgate"]
        self._log = host.folder.with_suffix(".dnsgate.log")
        self._over = threading.Event()
        self._process = self._started(order.environ)
        self._thread = threading.Thread(target=self._keep)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._process.terminate()
        self._process.wait(60)

    def _started(self, more: dict[str, str]) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | more
            )

    def _keep(self) -> None:
        while not self._over.wait(0.1):
            if self._process.poll() is not None:
                self._process = self._started({})


@contextmanager
def garbage(host: Host, chance: random.Random) -> Iterator[None]:
    """Files that are none of a pod's, beside those that are."""
    folder = host.folder / "dns"
    folder.mkdir(exist_ok=True, mode=0o700)
    files = [folder / f"{number}.pod" for number in range(len(GARBAGE))] + [folder / ".half.pod", folder / "counted"]
    for file in files:
        file.write_text(chance.choice(GARBAGE))
    yield
    for file in files:
        file.unlink(missing_ok=True)


def tell(story: str, seed: str) -> Told:
    """`gate killed, 1 of 12`: at the first effect, the 13th ..."""
    found = re.fullmatch(r"gate (\w+), (\d+) of (\d+)", story)
    assert found
    how, first, step = found[1], int(found[2]), int(found[3])
    chance, lab = random.Random(f"{story} {seed}"), Lab(story)
    faults, number, many, strikes = [], 0, 0, 0
    try:
        host = lab.host()
        with ExitStack() as held:
            town = Town(host, lab, "bridged", held)
            world = World(lab, host, held)
            while number <= many:
                error = 0 if how == "killed" or not number else chance.choice(ERRORS)
                order = effects.Order(Path(f"/run/order-{number}"), number, chance.choice(WHEN), error)
                strikes += number > 0
                with garbage(host, chance):
                    wrong = once(town, world, order)
                made = order.told()
                many = many or len(made)
                at = made[number - 1] if 0 < number <= len(made) else "nothing"
                faults += [f"{story}: {it} ({how} {order.when} {at}, errno {error})" for it in wrong]
                number += step if number else first
    finally:
        lab.close()
    return Told(counted(how, many if first == 1 else 0, strikes), faults)


def once(town: Town, world: World, order: effects.Order) -> list[str]:
    """A pod that was there before the gate, another that comes and goes; what was wrong."""
    first = town.member(WEB)
    with Gate(town.host, order):
        found = served(first)
        second = town.member(WEB)
        found += served(second)
        town.host.delete_pod(second.conf, second.pod)
        found += served(first)
    town.host.delete_pod(first.conf, first.pod)
    if "agent_cni" in town.host.run("nft", "list", "tables").stdout:
        found.append("a table is left")
    return found


def served(pod: Member) -> list[str]:
    """What is wrong with what a pod may resolve and reach; nobody need answer at once."""
    found = []

    def shut() -> None:
        told = ask(pod.pod, OUTSIDE[4], "evil.example", seconds=0.5)
        if (told and told.addresses) or reaches(pod.actor, "198.51.100.66"):
            found.append("what is not allowed is resolved, or reached")

    def resolved() -> bool:
        told = ask(pod.pod, OUTSIDE[4], "api.example.com", seconds=1)
        return bool(told and told.addresses == ["198.51.100.7"])

    shut()
    if not eventually(resolved, 40):
        found.append("what is allowed is not resolved")
    elif not eventually(lambda: reaches(pod.actor, "198.51.100.7"), 20):
        found.append("what is allowed is not reached")
    shut()
    return found
