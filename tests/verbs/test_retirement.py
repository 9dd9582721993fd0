"""What goes with its last user, while others come and go: one call is made in the midst of another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cni.errors import CniError, Incomplete, KernelRefused, TryAgainLater
from cni.kernel.locks import LockFile
from cni.state import Store


@pytest.fixture(autouse=True)
def nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever would have to wait for the other call, which waits for him, raises TryAgainLater at once."""
    monkeypatch.setattr("cni.node.opened.__wrapped__.__defaults__", (False, 0))


@pytest.fixture
def refused(run: Any) -> Callable[..., Callable[[], None]]:
    """A call for the midst of another that must find it has to wait."""

    def refuse(*call: str, **keys: Any) -> Callable[[], None]:
        def ask() -> None:
            with pytest.raises(TryAgainLater, match=r"^another call holds RetiringThing rules for"):
                run(*call, **keys)

        return ask

    return refuse


@pytest.fixture(params=["one folder", "two folders"])
def second(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """What another network adds to its configuration: a folder of its own, or nothing. A node is one."""
    return {"dataDir": str(tmp_path / "second")} if request.param == "two folders" else {}


def test_a_slow_retirement_does_not_lock_the_state(run: Any, remembered: Any):
    run("ADD")
    run.midst["remove rules"] = lambda: (
        run("ADD", "c2", shares=["others"]),
        run("DEL", "c2"),
        run("ADD", "c3", shares=[]),
    )
    run("DEL")
    assert run.existing == {"bridge", "veth-c3", "last"}
    assert remembered()[0] == ["c3"]


def test_who_comes_while_it_is_taken_away_waits_and_makes_it_again(
    run: Any, remembered: Any, refused: Any, second: dict[str, Any]
):
    run("ADD")
    run.midst["remove rules"] = refused("ADD", "c2", **second)
    run("DEL")
    assert run.existing == {"bridge"}
    assert remembered() == ([], [])
    run("ADD", "c2", **second)
    assert "rules" in run.existing


def test_who_came_before_anybody_could_know_keeps_it(
    run: Any, remembered: Any, monkeypatch: pytest.MonkeyPatch, second: dict[str, Any]
):
    """Between the look for other users and the thing's byte; also in a folder that was not there before."""
    run("ADD")
    exclusive, coming = LockFile.exclusive, ["c2"]

    def slow(lock: LockFile, digest: str, what: str, *patience: float) -> Any:
        if what == "RetiringThing rules" and coming:
            run("ADD", coming.pop(), **second)
        return exclusive(lock, digest, what, *patience)

    monkeypatch.setattr(LockFile, "exclusive", slow)
    run("DEL")
    assert "remove rules" not in run.notes
    assert remembered()[0] == ([] if second else ["c2"])
    assert "rules" in run.existing
    run("DEL", "c2", **second)
    assert "rules" not in run.existing


def test_of_two_that_go_together_one_retires(run: Any, remembered: Any, second: dict[str, Any]):
    run("ADD", "c1")
    run("ADD", "c2", **second)
    run.midst["remove veth-c1"] = lambda: run("DEL", "c2", **second)
    run("DEL", "c1")
    assert run.notes.count("remove rules") == 1
    assert remembered() == ([], [])


def test_who_becomes_the_last_while_he_retires_something_else_retires_that_too(run: Any, remembered: Any):
    run("ADD", "c1", shares=["own", "rules"])
    run("ADD", "c2")
    run.midst["remove own"] = lambda: run("DEL", "c2")
    run("DEL", "c1")
    assert [note for note in run.notes if note in ("remove own", "remove rules")] == ["remove own", "remove rules"]
    assert run.existing == {"bridge"}
    assert remembered() == ([], [])


@pytest.mark.parametrize("error", [KernelRefused("busy"), KeyboardInterrupt(), ZeroDivisionError()], ids=repr)
def test_a_retirement_that_did_not_end_is_the_next_dels(run: Any, remembered: Any, error: BaseException):
    run("ADD")
    run.faults["remove rules"] = error
    with pytest.raises(Incomplete if isinstance(error, CniError) else type(error)):
        run("DEL")
    assert remembered() == (["c1"], ["10.1.0.2"])
    run.faults.clear()
    run("DEL")
    assert run.existing == {"bridge"}
    assert remembered() == ([], [])


def test_what_was_retired_and_not_forgotten_is_made_again_by_who_comes(
    run: Any, remembered: Any, monkeypatch: pytest.MonkeyPatch
):
    """As if the call had been killed in between."""

    def killed(*_: object) -> None:
        raise SystemExit

    run("ADD")
    with monkeypatch.context() as patched:
        patched.setattr(Store, "forget", killed)
        with pytest.raises(SystemExit):
            run("DEL")
    assert "rules" not in run.existing
    run("ADD", "c2")
    run("DEL")
    assert "rules" in run.existing
    run("DEL", "c2")
    assert run.existing == {"bridge"}
    assert remembered() == ([], [])
