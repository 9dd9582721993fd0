"""Where sightings are kept: lines in segments of one folder, of which the oldest goes when all together would be too much.

A line is written once and never changed. Who is killed while he writes leaves half of one, after which the next begins a line of its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from cni import log
from cni.errors import Unavailable
from cni.kernel.files import private_folder, strange

#: Where it is unless somebody says otherwise, and how much of the disk it may have, in bytes.
FOLDER, SIZE = log.FOLDER / "flows", 64 << 20
#: Of so many segments one goes at a time.
_SEGMENTS = 16
_END, _DIGITS = ".jsonl", 12
_WRITING = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_READING = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_PAGE, _LOOKED_AFTER = 1 << 20, 0.2


class Ring:
    """The folder, to be written to by one process. Raises Unavailable where it is not ours alone."""

    def __init__(self, folder: Path = FOLDER, size: int = SIZE) -> None:
        try:
            self._folder, self._most = private_folder(folder), size // _SEGMENTS
        except OSError as error:
            raise Unavailable(f"the folder of flows {folder} cannot be used: {error.strerror}") from None
        self._number = max(_numbers(folder), default=0)
        self._fd, self._size, self._is_torn = self._opened(self._number)

    def append(self, lines: Iterable[bytes]) -> None:
        """Write lines. Raises OSError where they, or some, could not be written."""
        some: list[bytes] = []
        size = self._size
        for line in lines:
            if size and size + len(line) > self._most:
                self._write(b"".join(some))
                some, size = [], 0
                self._go_on()
            some.append(line)
            size += len(line)
        self._write(b"".join(some))

    def close(self) -> None:
        """Write no more."""
        os.close(self._fd)

    def _write(self, lines: bytes) -> None:
        data = b"\n" + lines if self._is_torn else lines
        while data:
            self._is_torn = True
            written = os.write(self._fd, data)
            self._size += written
            data = data[written:]
        self._is_torn = False

    def _go_on(self) -> None:
        """Write to the next segment, once there is one: what is closed may be another file by the next line."""
        before = self._fd
        self._fd, self._size, self._is_torn = self._opened(self._number + 1)
        self._number += 1
        os.close(before)

    def _opened(self, number: int) -> tuple[int, int, bool]:
        """A segment to write to, its size, and whether its last line is torn; of the others as many stay as there is room for besides a
        whole one.
        """
        left = (_SEGMENTS - 1) * self._most
        for other in sorted(_numbers(self._folder) - {number}, reverse=True):
            file = _segment(self._folder, other)
            left -= file.stat().st_size
            if left < 0:
                file.unlink()
        file = _segment(self._folder, number)
        fd = os.open(file, _WRITING, 0o600)
        status = os.fstat(fd)
        if why := strange(status):
            os.close(fd)
            raise Unavailable(f"{file} {why}")
        return fd, status.st_size, bool(status.st_size) and os.pread(fd, 1, status.st_size - 1) != b"\n"


def lines(folder: Path) -> Iterator[bytes]:
    """Every line there is, the oldest first; nothing where there is no ring. Raises Unavailable."""
    for number in sorted(_numbers(folder)):
        yield from _Segment(folder, number).lines()


def followed(folder: Path, ends: float | None = None) -> Iterator[bytes | None]:
    """Each line that is written from now on, and None whenever there is nothing new, until a time that may be given (time.monotonic)."""
    number = max(_numbers(folder), default=0)
    segment = _Segment(folder, number, whole=False)
    while ends is None or time.monotonic() < ends:
        later = sorted(item for item in _numbers(folder) if item > number)
        yield from segment.lines()
        if later:
            number = later[0]
            segment = _Segment(folder, number)
            continue
        yield None
        time.sleep(_LOOKED_AFTER)


class _Segment:
    """A segment as far as it was read."""

    def __init__(self, folder: Path, number: int, *, whole: bool = True) -> None:
        self._file = _segment(folder, number)
        self._at, self._begun = 0, b""
        if not whole:
            with suppress(FileNotFoundError):
                self._at = self._file.stat().st_size

    def lines(self) -> Iterator[bytes]:
        """The whole lines that are there now and were not read yet; none of one that is gone."""
        try:
            fd = os.open(self._file, _READING)
        except FileNotFoundError:
            return
        except OSError as error:
            raise Unavailable(f"{self._file} cannot be read: {error.strerror}") from None
        try:
            while data := os.pread(fd, _PAGE, self._at):
                self._at += len(data)
                *found, self._begun = (self._begun + data).split(b"\n")
                yield from filter(None, found)
        finally:
            os.close(fd)


def _segment(folder: Path, number: int) -> Path:
    return folder / f"{number:0{_DIGITS}}{_END}"


def _numbers(folder: Path) -> set[int]:
    try:
        names = [file.name.removesuffix(_END) for file in folder.iterdir() if file.name.endswith(_END)]
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except OSError as error:
        raise Unavailable(f"the folder of flows {folder} cannot be read: {error.strerror}") from None
    return {int(name) for name in names if name.isascii() and name.isdecimal()}
