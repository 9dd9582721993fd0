"""Since when hosts are away, as a member sees it."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import pytest

from cni.cluster.model import Alive, Node
from cni.cluster.snapshot import Snapshot
from cni.cluster.store import Change, Listing
from cni.errors import TryAgainLater
from cni.member import absences
from cni.member.absences import Absences
from cni.state import Store

A, B, C = (
    Node(name, f"machine-{name}", f"192.0.2.{number}", f"0a:00:00:00:00:0{number}")
    for number, name in enumerate("abc", 1)
)


class Scene:
    """What host a hears, minute by minute from 14:01 on."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.minute, self.revision = folder, 0, 1
        self.snapshot = Snapshot("a")
        self.again()
        monkeypatch.setattr(
            absences.time, "gmtime", lambda: time.struct_time((2026, 11, 29, 14, self.minute, 0, 0, 0, 0))
        )

    def again(self) -> None:
        """Another member, to whom everything is new."""
        self.absences = Absences("a", self.folder)

    def hear(self, news: Listing | Change) -> dict[str, str]:
        self.minute += 1
        self.snapshot.apply(news)
        self.absences.see(self.snapshot)
        with closing(Store.open(self.folder)) as state:
            return {node: since[11:16] for node, since in state.away().items()}

    def change(self, *put: Alive, gone: str = "") -> Change:
        self.revision += 1
        return Change(self.revision, put, ((Alive.room, gone),) if gone else ())


@pytest.fixture
def scene(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(folder, monkeypatch)


ALIVE = {node.name: Alive(node.name, "life") for node in (A, B, C)}


def test_who_goes_is_away_from_then_on_until_it_is_heard_of(scene: Scene):
    assert scene.hear(Listing(1, (A, B, C, ALIVE["b"]))) == {"c": ""}, "host a itself has not joined, and is here"
    assert scene.hear(scene.change(gone="b")) == {"b": "14:02", "c": ""}
    assert scene.hear(scene.change(ALIVE["c"])) == {"b": "14:02"}
    assert scene.hear(scene.change(gone="c")) == {"b": "14:02", "c": "14:04"}
    scene.again()
    assert scene.hear(scene.change()) == {"b": "14:02", "c": "14:04"}
    assert scene.hear(scene.change(ALIVE["b"], ALIVE["c"])) == {}


def test_what_could_not_be_kept_is_kept_with_the_next_news(scene: Scene, monkeypatch: pytest.MonkeyPatch):
    def busy(folder: Path) -> Store:
        raise TryAgainLater("the state is in use")

    scene.hear(Listing(1, (A, B, ALIVE["b"])))
    with monkeypatch.context() as patched:
        patched.setattr(absences.Store, "open", busy)
        scene.snapshot.apply(scene.change(gone="b"))
        scene.absences.see(scene.snapshot)
    assert scene.hear(scene.change()) == {"b": "14:02"}
