"""How a repair goes through a plan, with resources that only take notes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cni import engine
from cni.errors import Conflict, KernelRefused
from cni.kernel.locks import LockFile
from cni.resources import Resource, World
from cni.values import dataclass

NOTES: list[str] = []
BROKEN: set[str] = set()
LOST: set[str] = set()


@dataclass(frozen=True)
class Thing(Resource, abstract=True):
    """Is broken or lost as the sets say; `refuses` is why it cannot be made, `takes` what breaks when it is put right."""

    name: str
    refuses: str = ""
    takes: tuple[str, ...] = ()
    kind = "Thing"

    def ensure(self, world: World) -> None:
        NOTES.append(f"ensure {self.name}")
        self._done()
        world.created(self)

    def repair(self, world: World) -> None:
        NOTES.append(f"repair {self.name}")
        self._done()

    def is_lost(self, world: World) -> bool:
        return self.name in LOST

    def differences(self, world: World) -> Iterator[str]:
        if self.name in BROKEN:
            yield f"{self.name} is broken"

    def remove(self, world: World) -> None:
        NOTES.append(f"remove {self.name}")

    def _done(self) -> None:
        if self.refuses == "conflict":
            raise Conflict(f"{self.name} is another's")
        if self.refuses:
            raise KernelRefused(f"{self.name} refused")
        BROKEN.discard(self.name)
        LOST.discard(self.name)
        BROKEN.update(self.takes)

    def describe(self) -> str:
        return self.name


class Link(Thing, abstract=True):
    of_link = True


class Follower(Thing, abstract=True):
    follows = True


class Rule(Thing, abstract=True):
    stays = True


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    for each in (NOTES, BROKEN, LOST):
        each.clear()
    lock = LockFile(tmp_path / "lock")
    lock.share_node()
    yield World(None, lock)
    lock.close()


def test_nothing_is_touched_where_nothing_is_amiss(world: World):
    assert engine.repair([Link("link"), Thing("a"), Follower("sysctl")], world) == engine.Repaired()
    assert NOTES == []


def test_only_what_is_amiss_is_put_right(world: World):
    BROKEN.update(("b",))
    assert engine.repair([Thing("a"), Thing("b"), Thing("c")], world).mended == ["b is broken"]
    assert NOTES == ["repair b"]


def test_what_a_repair_takes_along_is_put_right_then(world: World):
    BROKEN.add("b")
    found = engine.repair([Thing("a"), Thing("b", takes=("a",))], world)
    assert (found.mended, found.failed, NOTES) == (["b is broken", "a is broken"], [], ["repair b", "repair a"])


def test_what_has_no_differences_follows_the_link(world: World):
    BROKEN.add("link")
    engine.repair([Follower("sysctl"), Link("link"), Thing("a"), Follower("announcement")], world)
    assert NOTES == ["repair sysctl", "repair link", "repair announcement"]


def test_one_that_cannot_be_put_right_keeps_no_other(world: World):
    BROKEN.update(("a", "b", "c"))
    found = engine.repair([Thing("a", refuses="conflict"), Thing("b", refuses="it"), Thing("c")], world)
    assert found.mended == ["c is broken"]
    assert [(item.line, item.mend.split(",")[0]) for item in found.failed] == [
        ("a is another's", "put that out of the way"),
        ("b refused", "delete the pod: what comes in its place is attached anew"),
    ]


def test_what_is_put_right_again_and_again_ends(world: World):
    BROKEN.add("a")
    found = engine.repair([Thing("a", takes=("b",)), Thing("b", takes=("a",))], world)
    assert len(NOTES) == 4
    assert len(found.failed) == 1


def test_a_lost_link_is_made_anew_with_all_that_follows(world: World):
    LOST.add("link")
    BROKEN.add("bridge")
    plan = [Thing("bridge"), Rule("policy"), Link("link"), Rule("gate"), Thing("address")]
    found = engine.repair(plan, world)
    assert found.mended == ["bridge is broken", "link is made anew"]
    assert NOTES == ["repair bridge", "remove link", "ensure link", "ensure gate", "ensure address"]


def test_a_link_that_cannot_be_made_whole_is_taken_back_and_what_holds_the_pod_stays(world: World):
    LOST.add("link")
    with pytest.raises(KernelRefused, match="address refused"):
        engine.repair([Rule("policy"), Link("link"), Rule("gate"), Thing("address", refuses="it")], world)
    NOTES.clear()
    world.undo.close()
    assert NOTES == ["remove link"]


def test_a_look_says_the_same_and_touches_nothing(world: World):
    LOST.add("link")
    BROKEN.add("a")
    found = engine.lacking([Thing("a"), Link("link")], world)
    assert found.mended == ["a is broken", "link is to be made anew"]
    assert NOTES == []
