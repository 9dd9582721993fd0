"""The part of `make crash-test` that is told each time: of each of its parts some stories, always the same."""

from __future__ import annotations

import subprocess
import sys

import pytest
from lab import ROOT

sys.path.append(str(ROOT / "tools"))

import crash_test

PARTS = crash_test.parts()


@pytest.mark.sweep
@pytest.mark.parametrize(("part", "story"), [(name, story) for name, part in PARTS.items() for story in part.FIXED])
def test_what_can_go_wrong_leaves_nothing_and_loses_nothing(part: str, story: str):
    told = crash_test.told_apart(part, story, "1")
    assert told.faults == []
    assert sum(told.counts.values()) > 0


def test_a_story_that_is_unknown_or_raises_is_a_fault():
    told = crash_test.told_apart(next(iter(PARTS)), "no such story", "1")
    assert len(told.faults) == 1


def test_stories_have_names_of_their_own():
    done = subprocess.run([sys.executable, crash_test.__file__, "--list"], capture_output=True, text=True, check=True)
    names = done.stdout.splitlines()
    assert len(names) == len(set(names)) > 0
    assert {f"{name}: {story}" for name, part in PARTS.items() for story in part.FIXED} <= set(names)
