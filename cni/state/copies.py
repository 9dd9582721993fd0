"""Whether a state is what this boot's calls have left, or an older copy of it that somebody has put in its place: of pods that came
since it knows nothing, and they live.

An ADD that gives an address of the cluster's counts in the file, in its own transaction, and then in a witness beside it. An older
copy has counted less; and a witness that was put back with it is not the file it says it is.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from cni.errors import Unavailable
from cni.state.file import StateFile

_FILE = "witness"
_ROW = struct.Struct("=QQQ")


class _Seen(NamedTuple):
    """What a witness says: which file it is (stat(2)), and how far was counted."""

    device: int
    inode: int
    given: int


class Copies(StateFile):
    """What is asked of and done to it. Who counts is alone at that on the node."""

    _counted = False

    def is_older(self) -> bool:
        """Whether addresses may have been given that this file does not know of."""
        seen, count = _seen(self._witness), self._count()
        return seen.given > count if seen else count > 0

    def count_given(self) -> None:
        """Count one more ADD, in a transaction of the caller's that ends with `testify`. Who found a copy counts on from the witness."""
        seen = _seen(self._witness)
        count = max(self._count(), seen.given if seen else 0) + 1
        self._db.execute(
            f"PRAGMA application_id = {count}"
        )  # the file's own number, of which SQLite makes nothing (pragma.html)
        self._counted = True

    def testify(self) -> None:
        """Have the witness know how far was counted, if it was, before that is committed: an ADD that is killed between the two has
        this file doubted, and not trusted. Raises Unavailable.
        """
        if not self._counted:
            return
        self._counted = False
        try:
            fd = os.open(self._witness, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                status = os.fstat(fd)
                os.pwrite(fd, _ROW.pack(status.st_dev, status.st_ino, self._count()), 0)
            finally:
                os.close(fd)
        except OSError as error:
            raise Unavailable(f"{self._witness}: {error.strerror}") from None

    def _count(self) -> int:
        return int(self._rows("PRAGMA application_id")[0][0])

    @property
    def _witness(self) -> Path:
        return self.path.parent / _FILE


def _seen(path: Path) -> _Seen | None:
    """What the witness says; None where there is none that is itself."""
    with suppress(OSError, struct.error):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            seen, status = _Seen(*_ROW.unpack(os.pread(fd, _ROW.size, 0))), os.fstat(fd)
        finally:
            os.close(fd)
        if (seen.device, seen.inode) == (status.st_dev, status.st_ino):
            return seen
    return None
