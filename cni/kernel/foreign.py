"""Code of others that may end the process (exit(3)), or never return: it runs in a thread that takes nobody along.

What exit(3) does first is what was registered last (atexit(3)). Here these are two functions of the C library, on two semaphores: one says
that somebody ends the process, the other has him wait for ever. Nothing of Python's runs in between, and no memory is needed. Who waited for
him goes on without him; at an end of ours he is let through, because it is nobody's but ours. An assertion that fails (abort(3)) ends in the
same way, by a handler of its signal.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import time
from _thread import allocate_lock, get_ident, start_new_thread
from collections.abc import Callable
from functools import cache, partial
from typing import Any, TypeVar

from cni.errors import REFUSALS, Lacking, Unfinished
from cni.kernel.signals import uninterrupted

T = TypeVar("T")

#: As for the kernel's own answers (netlink/channel.py), in seconds; and between two looks whether there will be one.
PATIENCE, _STEP = 30.0, 0.02
_SEMAPHORE_BYTES = 32  # sem_t of every C library on 64 bits
_Handler = ctypes.CFUNCTYPE(None, ctypes.c_int)


def called(call: Callable[[], T], what: str, patience: float = PATIENCE) -> T:
    """What a call of somebody else's code returns; a signal waits for it. Raises Lacking where it ended the process, and Unfinished where it
    does not return in time: nobody may use then what it had, and `leave` is how this process ends.
    """
    found: list[T] = []
    failed: list[BaseException] = []
    over = allocate_lock()
    over.acquire()

    trap, until = _trap(), time.monotonic() + patience

    def run() -> None:
        trap.inside.add(get_ident())
        try:
            found.append(call())
        except REFUSALS as error:
            failed.append(error)
        finally:
            trap.inside.discard(get_ident())
            over.release()

    with uninterrupted():
        try:
            start_new_thread(run, ())
        except RuntimeError as error:
            raise Lacking(f"clone: {error}") from None
        while not over.acquire(timeout=_STEP):
            if trap.is_shut():
                _trap.cache_clear()
                trap.keep()
                raise Lacking(f"{what} ended, for want of a socket or memory, or of an answer it knows")
            if time.monotonic() > until:
                trap.keep()
                raise Unfinished(f"{what}: no answer within {patience:g} s")
    if failed:
        raise failed[0]
    return found[0]


def leave(code: int) -> int:
    """The exit code of this process, which ends here and now where somebody waits in it for ever: exit(3) may have to wait for him."""
    if _kept:
        os._exit(code)
    return code


class _Trap:
    """Stands in exit(3)'s way, once."""

    def __init__(self) -> None:
        self._said, self._never = (_semaphore() for _ in range(2))
        _at_exit("sem_wait", self._never)
        _at_exit("sem_post", self._said)
        self._open = partial(_libc().sem_post, self._never)
        atexit.register(self._open)
        #: The threads that may not end the process.
        self.inside: set[int] = set()
        self._handler = _Handler(self._aborted)
        _libc().signal(signal.SIGABRT, self._handler)

    def _aborted(self, _: int) -> None:
        """Who returns from here ends the process, whether he called abort(3) or was sent the signal."""
        if get_ident() in self.inside:
            _libc().sem_post(self._said)
            _libc().sem_wait(self._never)
        _libc().signal(signal.SIGABRT, None)
        os.kill(os.getpid(), signal.SIGABRT)

    def is_shut(self) -> bool:
        """Whether somebody is in it."""
        there = ctypes.c_int()
        _libc().sem_getvalue(self._said, ctypes.byref(there))
        return there.value > 0

    def keep(self) -> None:
        """Let nobody out of it."""
        atexit.unregister(self._open)
        _kept.append(self)


#: Those somebody may be in.
_kept: list[_Trap] = []


@cache
def _trap() -> _Trap:
    """The one that whoever ends this process runs into."""
    return _Trap()


def _semaphore() -> ctypes.c_void_p:
    """One in memory that nobody ever frees: exit(3) looks at it when Python has given all of its own back."""
    allocate = _libc()["calloc"]
    allocate.restype = ctypes.c_void_p
    if not (address := allocate(1, _SEMAPHORE_BYTES)):
        raise MemoryError
    made = ctypes.c_void_p(address)
    _libc().sem_init(made, 0, 0)
    return made


def _at_exit(name: str, semaphore: Any) -> None:
    """Have exit(3) call a function with an argument, as the destructors of C++ are called (Itanium C++ ABI, 3.3.6.3)."""
    _libc()["__cxa_atexit"](ctypes.cast(_libc()[name], ctypes.c_void_p), semaphore, None)


@cache
def _libc() -> Any:
    return ctypes.CDLL(None)
