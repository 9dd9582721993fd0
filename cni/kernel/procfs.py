"""A procfs of this process's own, where nobody else looks anything up.

The kernel chains the names that were looked up under /proc/sys/net of every network namespace: beside 1,000 pods the next lookup
takes a millisecond. Source: fsopen(2), fsmount(2); proc_sys_compare in fs/proc/proc_sysctl.c.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

from cni.kernel.kept import Kept

#: The same number on every architecture, since Linux 5.2.
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_CLOEXEC, _CREATE = 1, 6
#: It remembers the pods that were looked into, too, and is replaced after so many lookups.
_MOST_LOOKUPS = 256
_LIBC = ctypes.CDLL(None, use_errno=True)


class Procfs(Kept):
    """A mount that is replaced now and then."""

    def __init__(self) -> None:
        super().__init__()
        self._root: int | None = None
        self._left = 0

    def root(self) -> int | None:
        """A descriptor to look something up from (openat(2)), or None where this process may not mount: /proc has it, then."""
        if not self._left:
            self.close()
            self._root, self._left = _mounted(), _MOST_LOOKUPS
        self._left -= 1
        return self._root

    def close(self) -> None:
        if self._root is not None:
            os.close(self._root)
        self._root, self._left = None, 0


def _mounted() -> int | None:
    """A mount that is nowhere, and goes when it is closed."""
    try:
        context = _called(_FSOPEN, b"proc", _CLOEXEC)
        try:
            _called(_FSCONFIG, context, _CREATE, None, None, 0)
            return _called(_FSMOUNT, context, _CLOEXEC, 0)
        finally:
            os.close(context)
    except OSError:
        return None


def _called(number: int, *args: Any) -> int:
    answer: int = _LIBC.syscall(number, *args)
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer
