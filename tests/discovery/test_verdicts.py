"""What is said of a pod by its probes: in its file, once, and no matter how often."""

from __future__ import annotations

from pathlib import Path

import pytest

from cni.discovery import verdicts
from cni.kernel import hostsdir
from cni.kernel.hostsdir import Entry
from cni.naming import Attachment
from cni.state import uses
from cni.values import replace

WELL = Entry(Attachment("net", "container-web", "eth0"), ("10.1.0.2",), ("web",), health='{"tcp": 80}')
ILL = replace(WELL, unhealthy="2026-01-01 00:00:00 UTC: not probed yet")
OTHER = replace(WELL, names=("db",))


@pytest.fixture(autouse=True)
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostsdir, "FOLDER", tmp_path / "names")
    monkeypatch.setattr(verdicts, "DEFAULT_FOLDER", tmp_path / "state")
    monkeypatch.setattr(uses, "DEFAULT_FOLDER", tmp_path)
    hostsdir.put(ILL.path, ILL.text)


def said() -> Entry | None:
    return Entry.read("net", hostsdir.read(WELL.path))


def test_what_a_call_has_changed_is_not_written_over():
    hostsdir.put(OTHER.path, OTHER.text)
    assert not verdicts.say(ILL, WELL)
    assert said() == OTHER


def test_what_was_said_and_not_known_to_be_is_said_again():
    assert verdicts.say(ILL, WELL)
    assert verdicts.say(ILL, WELL), "who was told of an error asks again"
    assert said() == WELL


def test_what_was_not_known_to_be_said_is_no_other_ones():
    """It was told to be well, with an error, and fell ill meanwhile."""
    since = replace(WELL, unhealthy="2026-01-01 00:00:09 UTC: 503")
    assert verdicts.say(ILL, WELL)
    assert verdicts.say(ILL, since)
    assert said() == since
    hostsdir.put(ILL.path, ILL.text)
    assert not verdicts.say(since, WELL), "a call has said that it is not probed yet"
    assert said() == ILL
