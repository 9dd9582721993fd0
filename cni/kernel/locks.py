"""Locks between calls, and the line in which they wait."""

from __future__ import annotations

import fcntl
import os
import struct
import time
from _thread import allocate_lock, start_new_thread
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from cni.errors import Busy, KernelRefused, Lacking, Unavailable
from cni.kernel.signals import uninterrupted

#: Bounded wait for a lock, in seconds; a runtime repeats the call after code 11.
PATIENCE = 30.0

_STEP = 0.005
_FLOCK = "hhqqi4x"
_OPENED = os.O_RDWR | os.O_CLOEXEC

#: The descriptors by which a call holds something. A program that has them holds it, too, though the call is killed, until its own end.
held: ContextVar[tuple[int, ...]] = ContextVar("held", default=())


class LockFile:
    """One file whose bytes are locks, so locking leaves nothing behind to clean up.

    Byte 0 is the node: every call that changes the kernel shares it. Every other byte is one
    attachment, or one thing that several share. The locks belong to the open file (fcntl(2), "Open file description locks"), so
    they hold between the threads of one process too, and end with the process.
    """

    def __init__(self, path: Path) -> None:
        """Open a lock file, or make it. Raises Unavailable where that cannot be."""
        self._path = path
        try:
            self._fd = os.open(path, _OPENED | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        except OSError as error:
            raise Unavailable(f"the lock file {path} cannot be opened: {error.strerror}") from None

    def close(self) -> None:
        """Give up every lock held through this object."""
        os.close(self._fd)

    @contextmanager
    def exclusive(self, digest: str, what: str, patience: float = PATIENCE) -> Iterator[None]:
        """Hold the byte of one attachment or thing. Raises Busy when the wait is over."""
        offset = _offset(digest)
        if not self._try(fcntl.F_WRLCK, offset):
            with closing(_Place(self._fd, offset)) as place:
                if patience <= 0 or not place.comes(patience):
                    raise _over(what, patience)
                with _holding(place.fd):
                    yield
            return
        try:
            with _holding(self._fd):
                yield
        finally:
            with suppress(KernelRefused):  # it ends with the file then
                self._try(fcntl.F_UNLCK, offset)

    def wait_for(self, digest: str, what: str, patience: float = PATIENCE) -> None:
        """Return when nobody holds a byte; it is not held then. Raises Busy when the wait is over."""
        offset = _offset(digest)
        waited(lambda: self._ask(fcntl.F_OFD_GETLK, fcntl.F_RDLCK, offset) == fcntl.F_UNLCK, what, patience)

    def share_node(self, patience: float = PATIENCE) -> None:
        """Hold the node's byte together with other calls, until `close`."""
        waited(lambda: self._try(fcntl.F_RDLCK, 0), "the node", patience)

    def is_shared(self) -> bool:
        """Whether a call holds the node's byte now."""
        return self._ask(fcntl.F_OFD_GETLK, fcntl.F_WRLCK, 0) != fcntl.F_UNLCK

    def alone(self) -> bool:
        """Whether no other call shares the node; if so, none can begin before `close`."""
        return self._try(fcntl.F_WRLCK, 0)

    def _try(self, kind: int, offset: int) -> bool:
        try:
            self._ask(fcntl.F_OFD_SETLK, kind, offset)
        except BlockingIOError:
            return False
        return True

    def _ask(self, command: int, kind: int, offset: int) -> int:
        """What kind of lock the kernel answers with (fcntl(2), struct flock)."""
        try:
            answer = fcntl.fcntl(self._fd, command, _request(kind, offset))
        except BlockingIOError:
            raise
        except OSError as error:
            raise KernelRefused(f"fcntl on {self._path}: {error.strerror}", error.errno or 0) from None
        return int(struct.unpack(_FLOCK, answer)[0])


class _Place:
    """A place in the kernel's line for a byte, and then the byte. Who looks again and again instead has it by luck, later the more there
    are who do, and costs its holder the processor.

    A thread stands there, because nobody is called out of that line: who goes before his turn leaves it behind, and it gives up its place
    when it comes. So the place has an open file of its own, and nothing else that its owner holds is held for longer.
    """

    def __init__(self, fd: int, offset: int) -> None:
        self._offset = offset
        try:
            self.fd = os.open(f"/proc/self/fd/{fd}", _OPENED)
        except OSError as error:
            raise _refused(error) from None
        self._word, self._turn = allocate_lock(), allocate_lock()
        self._stands = self._left = False
        self._refused: OSError | None = None

    def comes(self, seconds: float) -> bool:
        """Whether the byte is ours within so many seconds. Raises KernelRefused, and Lacking where no thread can be had."""
        self._turn.acquire()
        self._stands = True
        with uninterrupted():  # signals are for who waits
            try:
                start_new_thread(self._stand, ())
            except RuntimeError as error:
                self._stands = False
                raise Lacking(f"clone: {error}") from None
        came = self._turn.acquire(timeout=seconds)
        if self._refused:
            raise _refused(self._refused)
        return came

    def close(self) -> None:
        """Give up the byte, or the place."""
        with self._word:
            self._left = True
            if not self._stands:
                os.close(self.fd)

    def _stand(self) -> None:
        try:
            fcntl.fcntl(self.fd, fcntl.F_OFD_SETLKW, _request(fcntl.F_WRLCK, self._offset))
        except OSError as error:
            self._refused = error
        with self._word:
            self._stands = False
            if self._left:
                os.close(self.fd)
            self._turn.release()


@contextmanager
def _holding(fd: int) -> Iterator[None]:
    held.set((*held.get(), fd))
    try:
        yield
    finally:
        others = list(held.get())
        others.remove(fd)
        held.set(tuple(others))


def _request(kind: int, offset: int) -> bytes:
    return struct.pack(_FLOCK, kind, os.SEEK_SET, offset, 1, 0)


def _offset(digest: str) -> int:
    return 1 + int(digest[:15], 16)  # 60 bits: an offset has 63 (off_t); byte 0 is the node


def waited(attempt: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Try until it succeeds. Raises Busy when the wait is over."""
    deadline = time.monotonic() + patience
    while not attempt():
        if time.monotonic() >= deadline:
            raise _over(what, patience)
        time.sleep(_STEP)


def _refused(error: OSError) -> KernelRefused:
    return KernelRefused(f"the lock file: {error.strerror}", error.errno or 0)


def _over(what: str, patience: float) -> Busy:
    return Busy(f"another call holds {what} for more than {patience:g} s")
