from __future__ import annotations

import pytest

from cni.discovery.health import Health, Probe


@pytest.mark.parametrize(
    ("text", "probe"),
    [
        ('{"tcp": 80}', Probe(80)),
        ('{"tcp": 80, "interval": 0.5}', Probe(80, "", 0.5, 0.5)),
        ('{"http": "/a?b=c", "port": 81, "interval": 2, "timeout": 1.5, "failures": 1, "passes": 4}', Probe(81, "/a?b=c", 2.0, 1.5, 1, 4)),
    ],
)  # fmt: skip
def test_what_an_entry_says(text: str, probe: Probe):
    assert Probe.read(text) == probe


@pytest.mark.parametrize(
    "text",
    ["", "[]", "7", '"tcp"', "{}", '{"tcp": 0}', '{"tcp": "80"}', '{"http": "/"}', '{"http": "x", "port": 1}', '{"http": "/a b", "port": 1}',
     '{"http": "/a\\r\\nHost: b", "port": 1}', '{"tcp": 80, "interval": 0}', '{"tcp": 80, "failures": -1}'],
)  # fmt: skip
def test_what_cannot_be_probed(text: str):
    with pytest.raises(ValueError, match=r"\w"):
        Probe.read(text)


def told(health: Health, said: str) -> str:
    """How it is after each probe: `+` passed or well, `-` failed or not."""
    found = ""
    for mark in said:
        health.heard("" if mark == "+" else "refused")
        found += "+" if health.healthy else "-"
    return found


@pytest.mark.parametrize(
    ("begun", "healthy", "said", "is_"),
    [
        (False, False, "---+---", "---+++-"),  # the first pass makes it well
        (True, False, "+-++", "---+"),  # a second life takes two in a row
        (True, True, "--+---", "+++++-"),  # failures that a pass comes between do not add up
        (True, True, "---++", "++--+"),
        (False, False, "+---+", "+++--"),
    ],
)  # fmt: skip
def test_some_in_a_row_make_it_another(begun: bool, healthy: bool, said: str, is_: str):
    assert told(Health(Probe(80), healthy=healthy, begun=begun), said) == is_


def test_one_that_never_passed_is_probed_each_second_and_is_lost_after_some():
    health = Health(Probe(80, interval=10.0), healthy=False, begun=False)
    assert told(health, "--") == "--"
    assert (health.interval, health.is_lost) == (1.0, False)
    health.heard("refused")
    assert (health.interval, health.is_lost, health.why) == (1.0, True, "refused")
    health.heard("")
    assert (health.interval, health.is_lost, health.healthy) == (10.0, False, True)
