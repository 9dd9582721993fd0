"""When the reconciler looks at the state."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from cni.cluster.model import Node
from cni.member import reconciler
from cni.member.reconciler import Reconciler
from cni.member.shares import NOTHING, Shares


def test_a_bell_too_soon_after_another_is_owed_a_look(no_node: Path, monkeypatch: pytest.MonkeyPatch):
    no_node.mkdir()
    hand = Reconciler(Node("node-a", "machine-a", "192.0.2.1", "0a:00:00:00:00:01"), no_node)
    hand.snapshot.revision = 1
    clock, looks = SimpleNamespace(now=100.0), []

    def shares(*_: object) -> Shares:
        looks.append(clock.now)
        return NOTHING

    monkeypatch.setattr(reconciler, "shares", shares)
    monkeypatch.setattr(reconciler, "time", SimpleNamespace(monotonic=lambda: clock.now))
    owed = []
    for now in (100.0, 100.05, 100.15, 100.25, 100.5):
        clock.now = now
        hand.look()
        owed.append(hand.owed)
    assert looks == [100.0, 100.25, 100.5]
    assert owed == [math.inf, pytest.approx(0.15), pytest.approx(0.05), math.inf, math.inf]
    clock.now = 100.6
    hand.look()
    clock.now = 101.0
    assert hand.owed == 0
