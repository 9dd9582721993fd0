"""What a recorder of flows has counted: a few numbers in a file beside the node's locks, for who asks how it does.

One process writes them, at once and within a page; they go on where the one before it ended, and go with the boot.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from cni.errors import Unavailable
from cni.kernel.files import private_folder, strange
from cni.state import uses

_FILE = "tally-flows-1"
_CELL = struct.Struct("=6Qd")
_HOW = os.O_CLOEXEC | os.O_NOFOLLOW


class Counts(NamedTuple):
    """Connections that began and that are over, and flows that were denied, of pods of this node; `shed`: events that nobody took in time,
    whosever, `unwritten`: sightings that the disk did not take, `unsent`: that who sends them did not. `lost_at`: when one of the first two
    was counted last, seconds since the epoch.
    """

    begun: int = 0
    ended: int = 0
    denied: int = 0
    shed: int = 0
    unwritten: int = 0
    unsent: int = 0
    lost_at: float = 0.0


class Recorded:
    """The file, for who counts. Raises Unavailable where it cannot be used."""

    def __init__(self) -> None:
        try:
            self._fd = os.open(private_folder(uses.DEFAULT_FOLDER) / _FILE, os.O_RDWR | os.O_CREAT | _HOW, 0o600)
        except OSError as error:
            raise Unavailable(f"{_file()} cannot be used: {error.strerror}") from None
        self.counts = _read(self._fd)

    def put(self, counts: Counts) -> None:
        """Say them, if they are others."""
        if counts != self.counts:
            os.pwrite(self._fd, _CELL.pack(*counts), 0)
            self.counts = counts

    def close(self) -> None:
        """Count no more."""
        os.close(self._fd)


def recorded() -> Counts | None:
    """What was counted since this node's boot; None where nothing ever was. Raises Unavailable."""
    try:
        fd = os.open(_file(), os.O_RDONLY | _HOW)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unavailable(f"{_file()} cannot be read: {error.strerror}") from None
    try:
        return _read(fd)
    finally:
        os.close(fd)


def _read(fd: int) -> Counts:
    if why := strange(os.fstat(fd)):
        raise Unavailable(f"{_file()} {why}")
    with suppress(struct.error):
        return Counts(*_CELL.unpack(os.pread(fd, _CELL.size, 0)))
    return Counts()


def _file() -> Path:
    return uses.DEFAULT_FOLDER / _FILE
