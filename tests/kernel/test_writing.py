"""Files that are put down whole: by whom, and what is left of who was killed at it."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cni.kernel.writing import put_whole, take_whole, unfinished


def names(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


def killed_at(path: Path, text: str) -> None:
    """A process that ends before it gives a file its name."""
    pid = os.fork()
    if pid == 0:
        Path.rename = lambda *_: os._exit(9)  # type: ignore[assignment, method-assign, misc]
        put_whole(path, text, 0o600)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9


def test_what_somebody_was_killed_at_is_written_over(tmp_path: Path):
    file = tmp_path / "10-net.conflist"
    put_whole(file, "first", 0o644)
    for number in range(3):
        killed_at(file, f"much longer {number}")
        assert (file.read_text(), len(names(tmp_path))) == ("first", 2)
    assert unfinished(file).suffix not in (".conf", ".conflist", ".json")
    put_whole(file, "second", 0o644)
    assert (file.read_text(), file.stat().st_mode & 0o777, names(tmp_path)) == ("second", 0o644, [file.name])


def test_several_at_one_file_each_put_all_of_theirs(tmp_path: Path):
    file, texts = tmp_path / "file", [str(number) * (1 + 5000 * number) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: put_whole(file, text, 0o600), texts * 10))
    assert file.read_text() in texts
    assert names(tmp_path) == ["file"]


def test_what_is_taken_is_taken_with_what_somebody_was_killed_at(tmp_path: Path):
    file = tmp_path / "file"
    killed_at(file, "text")
    assert not take_whole(file)
    killed_at(file, "text")
    put_whole(file, "text", 0o600)
    killed_at(file, "text")
    assert take_whole(file)
    assert names(tmp_path) == []


def test_what_has_no_room_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        put_whole(tmp_path / "file", "text", 0o600)
    assert names(tmp_path) == []


@pytest.mark.parametrize("what", ["a link", "a pipe", "a file"])
def test_what_a_stranger_has_put_there_is_not_written_to(tmp_path: Path, what: str):
    file, theirs = tmp_path / "file", tmp_path / "theirs"
    theirs.write_text("theirs")
    there = unfinished(file)
    if what == "a link":
        there.symlink_to(theirs)
    elif what == "a pipe":
        os.mkfifo(there)
    else:
        os.link(theirs, there)
    put_whole(file, "ours", 0o600)
    assert (file.read_text(), theirs.read_text(), sorted(names(tmp_path))) == ("ours", "theirs", ["file", "theirs"])
