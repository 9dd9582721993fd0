"""The ring: bounded, whole lines, whoever dies, and those who read it while it goes on."""

from __future__ import annotations

import os
import time
from itertools import islice
from pathlib import Path

import pytest

from cni.errors import Unavailable
from cni.flows.ring import Ring, followed, lines

SIZE = 16 * 100


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "flows"


def line(number: int) -> bytes:
    return b"%019d\n" % number


def numbers(folder: Path) -> list[int]:
    return [int(item) for item in lines(folder)]


def test_what_is_written_is_read_in_order(folder: Path):
    ring = Ring(folder, SIZE)
    ring.append([line(1), line(2)])
    ring.append([line(3)])
    assert numbers(folder) == [1, 2, 3]
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [file.stat().st_mode & 0o777 for file in folder.iterdir()] == [0o600]


def test_where_there_is_no_ring_there_are_no_lines(folder: Path):
    assert list(lines(folder)) == []
    assert next(followed(folder)) is None


@pytest.mark.parametrize("at_once", [1, 3, 1000])
def test_it_takes_no_more_than_it_may_and_keeps_the_youngest(folder: Path, at_once: int):
    ring = Ring(folder, SIZE)
    for first in range(0, 1000, at_once):
        ring.append(line(number) for number in range(first, min(first + at_once, 1000)))
        assert sum(file.stat().st_size for file in folder.iterdir()) <= SIZE
    kept = numbers(folder)
    assert kept == list(range(kept[0], 1000))
    assert len(kept) * 20 > SIZE * 0.9


def test_a_ring_that_may_be_smaller_now_becomes_so(folder: Path):
    Ring(folder, 10 * SIZE).append(map(line, range(600)))
    Ring(folder, SIZE).append([line(600)])
    assert sum(file.stat().st_size for file in folder.iterdir()) <= SIZE + 1000  # but for the one it was writing to
    assert numbers(folder)[-1] == 600


def test_who_comes_after_one_that_was_killed_begins_a_line(folder: Path):
    Ring(folder, SIZE).append([line(1)])
    (segment,) = folder.iterdir()
    with segment.open("ab") as file:
        file.write(b"torn")
    Ring(folder, SIZE).append([line(2)])
    assert list(lines(folder)) == [line(1).strip(), b"torn", line(2).strip()]


def test_a_write_that_fails_tears_one_line_and_no_other(folder: Path, monkeypatch: pytest.MonkeyPatch):
    ring, write = Ring(folder, SIZE), os.write
    answers = iter([5])

    def full(fd: int, data: bytes) -> int:
        if (most := next(answers, None)) is None:
            raise OSError(28, "No space left on device")
        return write(fd, data[:most])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        ring.append([line(1)])
    monkeypatch.setattr(os, "write", write)
    ring.append([line(2)])
    assert list(lines(folder)) == [b"00000", line(2).strip()]


def test_who_follows_reads_what_comes_over_segments(folder: Path):
    ring = Ring(folder, SIZE)
    ring.append([line(0)])
    following = followed(folder, ends=time.monotonic() + 60)
    assert next(following) is None
    ring.append(map(line, range(1, 40)))
    assert [int(item) for item in islice(filter(None, following), 39)] == list(range(1, 40))


def test_half_a_line_is_waited_for(folder: Path):
    ring = Ring(folder, SIZE)
    ring.append([line(0)])
    following = followed(folder, ends=time.monotonic() + 60)
    assert next(following) is None
    (segment,) = folder.iterdir()
    with segment.open("ab", buffering=0) as file:
        file.write(b"half")
        assert next(following) is None
        file.write(b" a line\n")
        assert next(filter(None, following)) == b"half a line"


def test_a_link_is_not_written_through(folder: Path, tmp_path: Path):
    folder.mkdir(mode=0o700)
    (tmp_path / "elsewhere").touch()
    (folder / "000000000003.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises((Unavailable, OSError)):
        Ring(folder, SIZE)


def test_a_folder_others_may_write_into_is_refused(folder: Path):
    folder.mkdir()
    (folder / "strange").touch()
    folder.chmod(0o777)
    with pytest.raises(Unavailable):
        Ring(folder, SIZE)


def test_where_no_segment_can_be_made_nothing_is_written_to_another_file(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    ring = Ring(folder, 16 * 100)
    ring.append([b"x" * 80 + b"\n"])
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", full)
        with pytest.raises(OSError, match="No space"):
            ring.append([b"y" * 80 + b"\n"])
    other = (folder.parent / "other").open("wb", buffering=0)  # it would have the number of what is closed
    ring.append([b"z" * 80 + b"\n"])
    assert (folder.parent / "other").read_bytes() == b""
    assert [line[:1] for line in lines(folder)] == [b"x", b"z"]
    other.close()
    ring.close()
