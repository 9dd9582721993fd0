"""Whatever step of a member or a call is the last, who comes after it goes on: the crash table, enumerated.

A process is killed before and after each of its calls to the store and each of its transactions, in turn. A new member then runs
on what is there, and what must be so is read from the rows themselves, by none of the member's code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from cluster_memory import Memory
from member_host import Host, network
from member_oracle import sound, stored

from cni.state.file import StateFile

NET = network(subnet="10.10.0.0/26", block=8)
DUAL = network("dual", "10.20.0.0/26 fd00:20::/122", 32, mode="l3", vni=200)
PODS = 7  # more than a block has


class Killed(BaseException):
    """kill -9."""


class Steps:
    """Counts steps, and kills at one of them."""

    def __init__(self, fatal: int) -> None:
        self.fatal, self.at = fatal, 0

    def step(self) -> None:
        self.at += 1
        if self.at == self.fatal:
            raise Killed

    def around(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def asked(*args: Any, **options: Any) -> Any:
            self.step()
            answer = method(*args, **options)
            self.step()
            return answer

        return asked


class Fragile:
    """A store whose every write is two steps: before it, and after."""

    def __init__(self, store: Any, steps: Steps) -> None:
        self._store, self._steps = store, steps

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        return self._steps.around(found) if callable(found) else found


@contextmanager
def fragile(host: Host, steps: Steps, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything the host does is steps; afterwards it is a new process."""
    whole, transaction = host.store, StateFile.transaction

    @contextmanager
    def breaking(state: StateFile) -> Iterator[None]:
        if state._db.in_transaction:
            yield
            return
        with transaction(state):
            yield
            steps.step()
        steps.step()

    host.store = Fragile(whole, steps)
    host.again()
    with monkeypatch.context() as patch:
        patch.setattr(StateFile, "transaction", breaking)
        try:
            yield
        finally:
            host.store = whole
    host.again()


def killed(fatal: int, host: Host, story: Callable[[Host], None], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether a story was ended at a step; it is over otherwise."""
    try:
        with fragile(host, Steps(fatal), monkeypatch):
            story(host)
    except Killed:
        host.again()
        return True
    return False


# --- the stories


def comes_and_goes(host: Host) -> None:
    """A first pod, whose ADD waits for a block; others, and some of them end."""
    host.share(NET, DUAL)
    host.add("first", NET)
    host.turn(2)
    for number in range(PODS):
        host.add(f"c{number}", NET)
    host.add("d", DUAL, 4)
    host.add("e", DUAL, 6)
    host.turn()
    for number in range(3):
        host.delete(f"c{number}", NET)
    host.delete("d", DUAL)
    host.turn()


def has_too_much(host: Host) -> None:
    """All pods are gone, and what was had for them is given up."""
    for number in range(PODS):
        host.delete(f"c{number}", NET)
    host.idle = 0
    host.estate._idle = 0
    host.turn(4)


def loses_a_block(host: Host) -> None:
    """Somebody says that the host is gone, while it is, and another takes its blocks."""
    memory = host.store.memory
    memory.end_session(host.name)
    OTHER["store"].remove(host.name)
    OTHER["host"].turn()
    for number in range(PODS):
        OTHER["host"].add(f"o{number}", NET)
    OTHER["host"].turn(2)
    host.turn(3)
    for number in range(3, PODS):
        host.delete(f"c{number}", NET)
    host.turn()


OTHER: dict[str, Any] = {}


@pytest.mark.parametrize("story", [comes_and_goes, has_too_much, loses_a_block])
def test_each_step_can_be_the_last(story: Callable[[Host], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for fatal in count(1):
        memory = Memory()
        host, other = (Host(name, memory, tmp_path / f"{fatal}-{name}") for name in ("node-a", "node-b"))
        OTHER.update(host=other, store=other.store)
        if story is not comes_and_goes:
            comes_and_goes(host)
        other.share(NET)
        other.turn(2)
        other.add("o", NET)
        ended = killed(fatal, host, story, monkeypatch)
        for one in (host, other):  # calls go on, before another member does
            one.add("meanwhile", NET)
        for _ in range(4):
            host.turn()
            other.turn()
        sound(memory, host, other)
        if not ended:
            break
    assert fatal > 30, "the story is told in too few steps"


def test_what_is_found_is_found(tmp_path: Path):
    """The oracle sees what is wrong."""
    memory = Memory()
    host = Host("node-a", memory, tmp_path)
    comes_and_goes(host)
    host.turn()
    sound(memory, host)
    assert len(stored(memory, "addresses")) > PODS
    key = next(key for key, row in memory.rows.items() if key[0] == "addresses" and "container" in row.text)
    memory.write({}, [key])
    with pytest.raises(AssertionError):
        sound(memory, host)
    host.turn()
    sound(memory, host)
