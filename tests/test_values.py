"""The values of cni/values.py beside those of dataclasses: made, compared, printed, changed and refused alike."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest

from cni import values

ROOT = Path(__file__).parent.parent


def classes(made_by: ModuleType, **how: bool) -> Any:
    """The shapes this suite has, made by one of the two."""

    @made_by.dataclass(**how)
    class Nothing:
        pass

    @made_by.dataclass(**how)
    class One:
        a: int

    @made_by.dataclass(**how)
    class Many:
        word: ClassVar[str] = "class"
        a: int
        b: str = "b"
        c: tuple[str, ...] = ()

        def told(self) -> str:
            return f"{self.a}{self.b}"

    @made_by.dataclass(**how)
    class Apart:
        a: int
        seen: Any = made_by.field(default=None, compare=False)
        found: list[int] = made_by.field(default_factory=list)

    @made_by.dataclass(**how)
    class Checked:
        a: int
        b: int = 0

        def __post_init__(self) -> None:
            if self.a < 0:
                raise ValueError(f"{self.a} is below {self.b}")

    @made_by.dataclass(**how)
    class More(Many):
        d: int = 4
        b: str = "another"

    @made_by.dataclass(**how)
    class Own:
        a: int

        def __repr__(self) -> str:
            return f"<{self.a}>"

        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 7

    return SimpleNamespace(**{kind.__name__: kind for kind in (Nothing, One, Many, Apart, Checked, More, Own)})


HOWS: list[dict[str, bool]] = [{}, {"frozen": True}, {"kw_only": True}, {"frozen": True, "kw_only": True}]
KINDS = ["Nothing", "One", "Many", "Apart", "Checked", "More", "Own"]
EACH = pytest.mark.parametrize(("how", "kind"), list(product(HOWS, KINDS)), ids=str)


def arguments() -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    for count in range(6):
        for named in (
            {},
            {"a": 1},
            {"a": -1},
            {"b": "x"},
            {"c": ("y",)},
            {"a": 1, "b": 2},
            {"z": 1},
            {"seen": 5, "a": 1},
        ):
            yield (1, "two", ("three",), 4, 5)[:count], named
    yield (), {"d": 1, "c": (), "b": "", "a": 0}
    yield (), {"found": [1], "a": 1}


def outcome(act: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """What it gives, or the kind of its failure; of a value all there is to see."""
    try:
        found = act(*given, **named)
    except (TypeError, ValueError, AttributeError) as error:
        return next(kind for kind in (TypeError, ValueError, AttributeError) if isinstance(error, kind))
    return seen(found)


def seen(value: Any) -> Any:
    named = vars(value) if hasattr(value, "__dict__") else {}
    return (repr(value), list(named.items())) if named else repr(value)


def pairs(how: dict[str, bool], kind: str) -> tuple[type[Any], type[Any]]:
    return getattr(classes(values, **how), kind), getattr(classes(dataclasses, **how), kind)


def made(kind: type[Any]) -> list[Any]:
    """A value for each way in which one can be made."""
    found = []
    for given, named in arguments():
        try:
            found.append(kind(*given, **named))
        except (TypeError, ValueError):
            continue
    return found


@EACH
def test_values_are_made_alike(how: dict[str, bool], kind: str):
    ours, theirs = pairs(how, kind)
    told = [outcome(theirs, *given, **named) for given, named in arguments()]
    assert [outcome(ours, *given, **named) for given, named in arguments()] == told
    assert any(item not in (TypeError, ValueError) for item in told)
    assert TypeError in told


@EACH
def test_values_are_equal_and_hashed_alike(how: dict[str, bool], kind: str):
    ours, theirs = pairs(how, kind)
    for one, two in zip(product(made(ours), repeat=2), product(made(theirs), repeat=2), strict=True):
        assert (one[0] == one[1], one[0] != one[1]) == (two[0] == two[1], two[0] != two[1])
    assert [outcome(hash, item) for item in made(ours)] == [outcome(hash, item) for item in made(theirs)]
    assert [item == 1 for item in made(ours)] == [item == 1 for item in made(theirs)]


@EACH
def test_values_are_assigned_and_deleted_alike(how: dict[str, bool], kind: str):
    def changed(value: Any) -> Any:
        value.a = 8
        value.new = 9
        return value

    def emptied(value: Any) -> Any:
        del value.a
        return vars(value)

    ours, theirs = pairs(how, kind)
    for act in (changed, emptied):
        assert [outcome(act, item) for item in made(ours)] == [outcome(act, item) for item in made(theirs)]


@EACH
def test_values_are_replaced_alike(how: dict[str, bool], kind: str):
    ours, theirs = pairs(how, kind)
    for one, two in zip(made(ours), made(theirs), strict=True):
        for changes in ({}, {"a": 5}, {"a": -5}, {"b": "new", "c": ("x",)}, {"z": 1}, {"seen": 1}):
            assert outcome(values.replace, one, **changes) == outcome(dataclasses.replace, two, **changes)


@EACH
def test_classes_are_alike(how: dict[str, bool], kind: str):
    ours, theirs = pairs(how, kind)
    assert [(item.name, item.type) for item in values.fields(ours)] == [
        (item.name, item.type) for item in dataclasses.fields(theirs)
    ]
    assert ours.__match_args__ == theirs.__match_args__
    for name in ("a", "b", "c", "d", "seen", "found", "word"):
        assert getattr(ours, name, "missing") == getattr(theirs, name, "missing"), name


def test_a_class_can_be_made_without_brackets():
    @values.dataclass
    class Bare:
        a: int

    assert repr(Bare(1)).endswith("Bare(a=1)")


def test_what_a_value_is_given_by_default_is_its_own():
    kind = classes(values).Apart
    assert kind(1).found is not kind(1).found


def test_a_value_is_matched_by_place():
    match classes(values, frozen=True).Many(1, "x"):
        case SimpleNamespace():
            found = None
        case value:
            found = value
    kind = type(found)
    match found:
        case kind(1, b):
            assert b == "x"
        case _:
            pytest.fail("not matched")


def test_nobody_who_makes_values_pays_for_dataclasses():
    script = "import sys, cni.verbs; sys.exit(not {'dataclasses', 'inspect', 'ast'}.isdisjoint(sys.modules))"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_every_class_of_this_suite_is_one_that_dataclasses_accept():
    """Left out of values.py is what it would take to refuse a mutable default, or a field without one behind one that has."""
    script = """if True:
        import dataclasses, importlib, pkgutil, sys
        sys.modules["cni.values"] = dataclasses
        import cni
        from cni import plugin
        for module in pkgutil.walk_packages(cni.__path__, "cni."):
            importlib.import_module(module.name)
        for name in plugin.names():
            plugin.load(name)
        from cni.resources.addressing import PodAddress
        assert dataclasses.is_dataclass(PodAddress)
    """
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
