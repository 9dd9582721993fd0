"""What is told of folders, and of those that come and go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cni.kernel.inotify import Folders, Noticed


@pytest.fixture
def folders() -> Iterator[Folders]:
    with closing(Folders()) as made:
        yield made


def test_what_happens_to_files_is_told_once(folders: Folders, tmp_path: Path):
    assert folders.watch([tmp_path]) == [tmp_path]
    assert folders.watch([tmp_path]) == []
    assert folders.wait(0) == []
    (tmp_path / "a").write_text("1")
    assert folders.wait(5) == [Noticed(tmp_path, "a")]
    (tmp_path / "a").rename(tmp_path / "b")
    assert folders.wait(5) == [Noticed(tmp_path, "a"), Noticed(tmp_path, "b")]
    (tmp_path / "b").chmod(0o600)
    assert folders.wait(5) == [Noticed(tmp_path, "b")]
    (tmp_path / "b").unlink()
    assert folders.wait(5) == [Noticed(tmp_path, "b")]
    assert folders.wait(0) == []


def test_a_file_is_told_of_when_it_is_whole_and_a_link_at_once(folders: Folders, tmp_path: Path):
    folders.watch([tmp_path])
    with (tmp_path / "a").open("w") as file:
        file.write("1")
        file.flush()
        assert folders.wait(0) == []
    assert folders.wait(5) == [Noticed(tmp_path, "a")]
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "c").hardlink_to(tmp_path / "a")
    assert {Noticed(tmp_path, "b"), Noticed(tmp_path, "c")} <= set(folders.wait(5))


def test_one_that_is_linked_and_loses_its_first_name_is_told_of_when_it_was_at_rest(folders: Folders, tmp_path: Path):
    """As a manager publishes a file that must not replace another: nobody closes it under its new name."""
    place, apart = tmp_path / "feed", tmp_path / "a"
    place.mkdir()
    folders.watch([place])
    apart.write_text("1")
    (place / "a").hardlink_to(apart)
    apart.unlink()
    assert Noticed(place, "a") in [item for _ in range(8) for item in folders.wait(0.5)]
    assert folders.wait(0) == []


def test_one_that_is_being_written_is_not_taken_to_be_at_rest(folders: Folders, tmp_path: Path):
    folders.watch([tmp_path])
    with (tmp_path / "a").open("w") as file:
        for _ in range(6):
            assert folders.wait(0.3) == []
        for _ in range(6):
            file.write("1")
            file.flush()
            assert folders.wait(0.3) == []
    assert folders.wait(5) == [Noticed(tmp_path, "a")]
    assert [item for _ in range(4) for item in folders.wait(0.4)] == [], "and no more than that"


def test_a_folder_that_goes_is_watched_when_it_is_there_again(folders: Folders, tmp_path: Path):
    place = tmp_path / "feed"
    assert folders.watch([place]) == []
    place.mkdir()
    assert folders.watch([place]) == [place]
    place.rmdir()
    assert Noticed(place) in folders.wait(5)
    place.mkdir()
    assert folders.watch([place]) == [place]
    place.rename(tmp_path / "away")
    assert Noticed(place) in folders.wait(5)
    (tmp_path / "away" / "a").write_text("")
    place.mkdir()
    assert folders.watch([place]) == [place]
    (place / "b").write_text("")
    assert Noticed(place, "b") in folders.wait(5)


def test_another_folder_at_its_path_is_watched_in_its_place(folders: Folders, tmp_path: Path):
    """By a link that leads elsewhere, by a folder above that is renamed, or by a mount, none of which the kernel tells."""
    for name in ("above/feed", "other/feed"):
        (tmp_path / name).mkdir(parents=True)
    link, below = tmp_path / "link", tmp_path / "above" / "feed"
    link.symlink_to(tmp_path / "above")
    assert folders.watch([link, below]) == [below, link]
    (tmp_path / "next").symlink_to(tmp_path / "other")
    (tmp_path / "next").rename(link)
    assert folders.watch([link, below]) == [link]
    (tmp_path / "other" / "a").write_text("")
    assert Noticed(link, "a") in folders.wait(5)
    (tmp_path / "above").rename(tmp_path / "away")
    assert folders.watch([link, below]) == []
    below.mkdir(parents=True)
    assert folders.watch([link, below]) == [below]
    (below / "b").write_text("")
    assert Noticed(below, "b") in folders.wait(5)


def test_one_that_is_no_longer_wanted_is_not_told_of(folders: Folders, tmp_path: Path):
    (one := tmp_path / "one").mkdir()
    (two := tmp_path / "two").mkdir()
    folders.watch([one, two])
    folders.watch([two])
    (one / "a").write_text("")
    (two / "b").write_text("")
    assert folders.wait(5) == [Noticed(two, "b")]


def test_more_than_can_be_told_is_told_of_every_folder(folders: Folders, tmp_path: Path):
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    folders.watch([tmp_path])
    for at in range(most // 2 + 10):
        (tmp_path / f"{at % 7}").touch()
        (tmp_path / f"{at % 7}").unlink()
    assert Noticed(tmp_path) in folders.wait(5)
