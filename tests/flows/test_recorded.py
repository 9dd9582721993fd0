"""What a recorder counts outlives it, and is read while it counts."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from cni.errors import Unavailable
from cni.state.recorded import Counts, Recorded, recorded


def test_where_none_ran_nothing_is_counted(no_node: Path):
    assert recorded() is None


def test_the_next_goes_on_where_one_ended(no_node: Path):
    with closing(Recorded()) as first:
        assert recorded() == Counts()
        first.put(Counts(1, 2, 3, 4, 5, 6, 7.5))
        assert recorded() == Counts(1, 2, 3, 4, 5, 6, 7.5)
    with closing(Recorded()) as second:
        assert second.counts == Counts(1, 2, 3, 4, 5, 6, 7.5)


def test_a_link_in_its_place_is_not_written_through(no_node: Path, tmp_path: Path):
    no_node.mkdir(mode=0o700)
    (tmp_path / "victim").touch()
    (no_node / "tally-flows-1").symlink_to(tmp_path / "victim")
    with pytest.raises(Unavailable):
        Recorded()
    with pytest.raises(Unavailable):
        recorded()
