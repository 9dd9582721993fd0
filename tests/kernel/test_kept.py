from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cni.kernel import kept, netns
from cni.kernel.kept import PerNamespace, Spare


class Door:
    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the thread is: a file stands for a namespace, `home` for the process's own."""
    monkeypatch.setattr(kept, "_every", [])
    (tmp_path / "home").touch()
    own = (tmp_path / "home").stat()
    monkeypatch.setattr(netns, "home", lambda: (own.st_dev, own.st_ino))
    at = tmp_path / "at"
    at.symlink_to(tmp_path / "home")
    monkeypatch.setattr(netns, "OWN", str(at))
    return at


def go(place: Path, name: str) -> None:
    (place.parent / name).touch()
    place.unlink()
    place.symlink_to(place.parent / name)


def test_each_namespace_has_its_own_and_only_the_process_s_own_stays(place: Path):
    first, second = PerNamespace(Door), PerNamespace(Door)
    at_home = first.here()
    go(place, "pod")
    in_pod, other = first.here(), second.here()
    assert first.here() is in_pod
    assert len({id(door) for door in (at_home, in_pod, other)}) == 3
    kept.let_go()
    assert [door.closed for door in (at_home, in_pod, other)] == [False, True, True]
    go(place, "home")
    assert first.here() is at_home


def test_one_that_is_not_fit_any_more_is_closed_and_made_again(place: Path):
    fit = True
    doors = PerNamespace(Door, lambda door: fit)
    first = doors.here()
    fit = False
    second = doors.here()
    assert (first.closed, second is first, second.closed) == (True, False, False)


def test_what_another_thread_takes_meanwhile_is_its_own(monkeypatch: pytest.MonkeyPatch):
    class Raced(dict[str, Door]):
        def __iter__(self) -> Iterator[str]:
            keys = list(super().__iter__())
            super().pop(keys[0], None)  # another thread's `take`, of the one that was to go
            return iter(keys)

    monkeypatch.setattr(kept, "_every", [])
    spare, doors = Spare[Door](1), [Door() for _ in range(3)]
    spare.give_back("a", doors[0])
    spare.give_back("a", doors[1])
    assert [door.closed for door in doors] == [True, False, False]
    spare._by_key = Raced(spare._by_key)  # type: ignore[arg-type, assignment]
    spare.give_back("b", doors[2])
    assert [door.closed for door in doors] == [True, False, False]


def test_who_asks_while_he_has_one_finds_the_same_two_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kept, "_every", [])
    spare, outer, inner, third = Spare[Door](4), Door(), Door(), Door()
    spare.give_back("a", inner)
    spare.give_back("a", outer)
    for _ in range(3):
        assert (spare.take("a"), spare.take("a"), spare.take("a")) == (outer, inner, None)
        spare.give_back("a", inner)
        spare.give_back("a", outer)
        assert spare.take("a") is outer, "who asks for one only has it, too"
        spare.give_back("a", outer)
    spare.give_back("a", third)
    assert [door.closed for door in (outer, inner, third)] == [False, False, True]
