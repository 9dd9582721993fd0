"""How calls go on this node: how many, how long they took and how they ended, of cold processes and warm workers alike.

A file of cells beside the node's locks and no table of the state: a call is counted when it is over, in whatever folder its
state is, also where that could not be opened or locked. A cell never moves, is written at once and lies within a page, so
that who is killed has counted or has not. It goes with the boot, as a counter may.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from cni.errors import CniError, Unavailable
from cni.kernel.files import strange
from cni.kernel.locks import LockFile
from cni.state import uses

#: In seconds: how long a call took is counted between two of them, or above the last.
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
#: The verb of what daemons put right unasked; its plugin is what that was.
MEND = "MEND"
#: The codes that are told apart (cni/errors.py); a delegate may have any others.
_CODES = {0, *range(1, 9), 11, 50, 51, *range(100, 110), 999}
#: Of a release with other bounds or cells, it has another name.
_FILE = "tally-1"
_CELL = struct.Struct("=120s15Qd8x")
_MOST_BYTES = 1 << 18
_PATIENCE_SECONDS = 0.05


class Calls(NamedTuple):
    """Calls that ended alike: with the CNI error `code`, 0 for none, -1 for a delegate's own. `counts` is how many took so long
    (see BOUNDS), `seconds` all together.
    """

    plugin: str
    verb: str
    code: int
    counts: tuple[int, ...]
    seconds: float


@contextmanager
def counted(plugin: str, verb: str) -> Iterator[None]:
    """Count what happens inside as one call. A node whose folder is not there yet, or cannot be used, counts nothing."""
    began, code = time.monotonic(), 0
    try:
        yield
    except BaseException as error:
        code = getattr(error, "code", 108 if isinstance(error, KeyboardInterrupt) else 999)
        raise
    finally:
        with suppress(CniError, OSError), closing(_Cells(_file())) as cells:
            cells.add(f"{plugin} {verb} {code if code in _CODES else -1}", time.monotonic() - began)


def calls() -> list[Calls]:
    """What this node's calls came to since its boot, in the order of plugins, verbs and codes."""
    if not _file().exists():
        return []
    with closing(_Cells(_file())) as cells:
        return sorted(cells.read())


class _Cells(LockFile):
    def add(self, name: str, seconds: float) -> None:
        """Count one that took so long. Raises TryAgainLater where somebody stands still while he counts."""
        wanted = name.encode().ljust(120, b"\0")
        with self.exclusive("0", "the tally", _PATIENCE_SECONDS):
            data = self._all()
            at = next((at for at in range(0, len(data), _CELL.size) if data.startswith(wanted, at)), len(data))
            _, *counts, total = _CELL.unpack_from(data.ljust(at + _CELL.size, b"\0"), at)
            counts[sum(seconds > bound for bound in BOUNDS)] += 1
            os.pwrite(self._fd, _CELL.pack(wanted, *counts, total + seconds), at)

    def read(self) -> Iterator[Calls]:
        """Every cell; what somebody else wrote over one says nothing."""
        for name, *counts, seconds in _CELL.iter_unpack(self._all()):
            with suppress(ValueError):
                plugin, verb, code = name.rstrip(b"\0").decode().split()
                yield Calls(plugin, verb, int(code), tuple(counts), seconds)

    def _all(self) -> bytes:
        """All whole cells."""
        status = os.fstat(self._fd)
        if why := strange(status):
            raise Unavailable(f"{self._path} {why}")
        size = min(status.st_size, _MOST_BYTES)
        return os.pread(self._fd, size - size % _CELL.size, 0)


def _file() -> Path:
    return uses.DEFAULT_FOLDER / _FILE
