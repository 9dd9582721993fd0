"""Which rules are made again by what the kernel told, and how soon where somebody takes them away again and again."""

from __future__ import annotations

import math

import pytest

from cni import vigil
from cni.kernel.rule_events import ANYTHING, Changed
from cni.resources import Gate, NftMasquerade, PodPolicy, PolicyTable
from cni.vigil import PutBack, Vigil, is_about

TABLE = PolicyTable(edition=2)
POD = PodPolicy(("10.1.0.2",), ("in-abc drop", "out-abc return"), closed=False, pod="pods/a", token="abc")
GATE = Gate("veth1", "ingress", "abc", ("drop",), bucket="a")
HIDDEN = NftMasquerade("nftables", 4, "10.1.0.2", "10.1.0.0/24", "pods/a")
EVERY = {"table": TABLE, "pod": POD, "gate": GATE, "hidden": HIDDEN}


@pytest.mark.parametrize(
    ("name", "about"),
    [
        ("table inet agent_cni_policy", {"table", "pod"}),
        ("chain inet agent_cni_policy forward", {"table"}),
        ("chain inet agent_cni_policy in-abc", {"pod"}),
        ("set inet agent_cni_policy in4", {"pod"}),
        ("chain inet agent_cni_policy in-other", set()),
        ("table netdev agent_cni-a", {"gate"}),
        ("chain netdev agent_cni-a from-abc", {"gate"}),
        ("table netdev agent_cni-b", set()),
        ("set ip agent_cni pods", {"hidden"}),
        ("table ip agent_cni", {"hidden"}),
        ("table ip6 agent_cni", set()),
        (ANYTHING, set(EVERY)),
    ],
)
def test_only_what_was_touched_is_made_again(name: str, about: set[str]):
    assert {key for key, rules in EVERY.items() if is_about(rules, frozenset((name,)))} == about


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(vigil.time, "monotonic", lambda: now[0])
    return now


def changed() -> list[Changed]:
    return [Changed(frozenset(("table inet agent_cni_policy",)), "nft", 7)]


def test_it_is_put_back_at_once_and_waited_for_where_that_is_undone(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
):
    told: list[str] = []
    monkeypatch.setattr(vigil, "put_back", lambda names: PutBack(["pods/a"]))
    monkeypatch.setattr(vigil.log, "warning", lambda plugin, msg, **facts: told.append(msg))
    watch, waits = Vigil(), []
    assert watch.owed == math.inf
    for _ in range(8):
        watch.heard(changed())
        waits.append(watch.owed)
        clock[0] += watch.owed
        watch.act()
        assert watch.owed == math.inf
    assert waits == [0, 0, 0, 0, 0, 1, 2, 4]
    assert "by nft (process 7), and were put back" in told[0]
    assert "again and again: not within the next 8 s" in told[-1]
    clock[0] += 1000
    watch.heard(changed())
    watch.act()
    watch.heard(changed())
    assert watch.owed == 0


def test_whom_a_call_is_at_comes_again_soon(clock: list[float], monkeypatch: pytest.MonkeyPatch):
    asked: list[frozenset[str]] = []

    def busy(names: frozenset[str]) -> PutBack:
        asked.append(names)
        return PutBack(busy=["pods/a"] if len(asked) == 1 else [])

    monkeypatch.setattr(vigil, "put_back", busy)
    watch = Vigil()
    watch.heard(changed())
    watch.act()
    assert 0 < watch.owed < 1
    clock[0] += 1
    watch.act()
    assert watch.owed == math.inf
    assert len(set(asked)) == 1
