from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cni import log
from cni.cluster.store import Change, Listing, Sparing
from cni.errors import Compacted, Forbidden, Replaced, Unreachable
from cni.member import watcher
from cni.member.watcher import Watcher


class Enough(Exception):
    """The test has seen it."""


class Played:
    """A store whose watches go as they are told."""

    def __init__(self, *watches: list[Any]) -> None:
        self.watches = list(watches)

    def changes(self, sparing: Sparing | None = None) -> Iterator[Listing | Change]:
        if not self.watches:
            raise Enough
        for item in self.watches.pop(0):
            if isinstance(item, Exception):
                raise item
            yield item


def watched(
    monkeypatch: pytest.MonkeyPatch, *watches: list[Any], known: bool = False, away: float = 0
) -> tuple[list[Any], list[str]]:
    heard: list[Any] = []
    told: list[str] = []
    monkeypatch.setattr(log, "warning", lambda _, msg, **__: told.append(msg))
    monkeypatch.setattr(watcher.time, "sleep", lambda seconds: None)
    store: Any = Played(*watches)
    made = Watcher(store, heard.append, lambda: known)
    made._heard_at -= away
    with pytest.raises(Enough):
        made.run()
    return heard, told


LISTING, CHANGE, BEAT = (
    Listing(5, (), ("blocks/x in the store: it is no JSON object",)),
    Change(6, (), (("alive", "a"),)),
    Change(6, (), ()),
)


def test_what_is_said_is_heard_in_its_order_over_all_that_ends_a_watch(monkeypatch: pytest.MonkeyPatch):
    heard, told = watched(
        monkeypatch, [LISTING, BEAT, Compacted("old")], [LISTING, CHANGE, Unreachable("away")], [LISTING]
    )
    assert heard == [LISTING, BEAT, LISTING, CHANGE, LISTING]
    assert told == list(LISTING.refused) * 3


def test_the_listing_of_another_store_says_so(monkeypatch: pytest.MonkeyPatch):
    heard, _ = watched(monkeypatch, [LISTING, Replaced("older")], [LISTING, Compacted("old")], [LISTING])
    assert [news.replaced for news in heard] == [False, True, False]


@pytest.mark.parametrize(("known", "away", "lines"), [(False, 60, 2), (True, 60, 0), (False, 0, 0)])
def test_a_watch_that_fails_alone_is_told_once(known: bool, away: float, lines: int, monkeypatch: pytest.MonkeyPatch):
    failing = [[Unreachable(f"https://192.0.2.{number}:2379")] for number in range(9)]
    _, told = watched(monkeypatch, *failing, [BEAT], known=known, away=away)
    assert len(told) == lines


def test_what_is_forbidden_is_asked_for_less_often_each_time(monkeypatch: pytest.MonkeyPatch):
    slept = list[float]()
    store: Any = Played(*[[Forbidden("no")]] * 7, [Unreachable("away")], [Forbidden("no")])
    monkeypatch.setattr(watcher.time, "sleep", slept.append)
    with pytest.raises(Enough):
        Watcher(store, lambda _: None, lambda: True).run()
    assert slept == [2, 4, 8, 16, 30, 30, 30, 1, 2]


def test_what_is_no_failure_of_a_store_ends_the_thread(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match="a bug"):
        watched(monkeypatch, [LISTING, ValueError("a bug")])
