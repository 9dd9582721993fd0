"""Who is at the other end of a connection, as the kernel says and not as its packets do.

Whoever is served could do all of it without us, and means by every name what we would open under it. What is said by its
number in /proc is about the peer, because that number is its own for as long as it lives: we hold a pidfd from before the
first look, and what the peer sends after the last one bears the number that the kernel knows it by (SCM_CREDENTIALS).
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Iterable
from functools import cache

from cni.agent.request import MOST_FDS, Refused
from cni.kernel.netns import home
from cni.kernel.process import capabilities

_CREDENTIALS = struct.Struct("3i")  # struct ucred, unix(7)
_DESCRIPTOR = struct.Struct("i")
_SCM_CREDENTIALS = 2
_ANCILLARY_BYTES = socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(MOST_FDS * _DESCRIPTOR.size)


class Peer:
    """The process that connected. Every method raises OSError where it is gone, or not to be seen from here."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        self._pid, self._uid, _ = _CREDENTIALS.unpack(raw)
        self._handle = os.pidfd_open(self._pid)

    def close(self) -> None:
        """Let go of the process."""
        os.close(self._handle)

    def refuse_others(self) -> None:
        """Raise Refused for another user than ours."""
        if self._uid != os.geteuid():
            raise Refused(f"user {self._uid} may not ask")

    def refuse_lesser(self) -> None:
        """Raise Refused for whom we would give more than he has: our user, with our capabilities in our user namespace.

        The namespace is looked at last: who leaves it gains every capability in another, and cannot come back.
        """
        self.refuse_others()
        if lacking := _own_capabilities() & ~capabilities(self._pid):
            raise Refused(f"process {self._pid} lacks capabilities {lacking:#x}")
        if self._namespace("user") != _own_namespace("user"):
            raise Refused(f"process {self._pid} is in another user namespace")

    def refuse_elsewhere(self, paths: Iterable[str], netns: str) -> None:
        """Raise Refused for whom names mean other things: another network namespace or root, or, where it has mounts of its
        own, another file under one of `paths`, or another namespace under `netns` where we would find one.
        """
        if self._namespace("net") != f"net:[{home()[1]}]":
            raise Refused("the caller is in another network namespace")
        root = f"/proc/{self._pid}/root"
        if _identity(root) != _own_root():
            raise Refused("the caller has another root folder")
        if self._namespace("mnt") == _own_namespace("mnt"):
            return
        for path in paths:
            if _identity(path) != _identity(root + os.path.realpath(path)):
                raise Refused(f"{path} is another file for the caller")
        ours = _identity(netns) if netns.startswith("/") else None
        if ours and ours[0] == home()[0] and ours != _identity(root + netns):
            raise Refused(f"{netns} is another namespace for the caller")

    def refuse_untimely(self) -> None:
        """Raise Refused where something waits to be read: it was sent before this, perhaps by a process of the same number."""
        if select.select([self._connection], [], [], 0)[0]:
            raise Refused("the caller did not wait")

    def heard(self, most: int) -> tuple[bytes, list[int]]:
        """What comes next, and its descriptors; nothing, and none, where another process sent it or the peer is dead."""
        said, ancillary, _, _ = self._connection.recvmsg(most, _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC)
        fds: list[int] = []
        sender = 0
        for _, kind, content in ancillary:
            if kind == _SCM_CREDENTIALS:
                sender, _, _ = _CREDENTIALS.unpack(content)
            else:
                whole = content[: len(content) // _DESCRIPTOR.size * _DESCRIPTOR.size]
                fds += [fd for (fd,) in _DESCRIPTOR.iter_unpack(whole)]
        if sender == self._pid and not select.select([self._handle], [], [], 0)[0]:
            return said, fds
        for fd in fds:
            os.close(fd)
        return b"", []

    def _namespace(self, kind: str) -> str:
        return _namespace(f"/proc/{self._pid}/ns/{kind}")


def _namespace(path: str) -> str:
    """A namespace's kind and inode; nothing where the kernel has no such kind. Raises OSError for a process that is gone."""
    try:
        return os.readlink(path)  # noqa: PTH115 - a fifth of what a Path's stat takes, for every call
    except FileNotFoundError:
        return ""


def _identity(path: str) -> tuple[int, int] | None:
    """Device and inode; None where there is nothing."""
    try:
        found = os.stat(path)  # noqa: PTH116 - as above
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


@cache
def _own_namespace(kind: str) -> str:
    return _namespace(f"/proc/self/ns/{kind}")


@cache
def _own_root() -> tuple[int, int] | None:
    return _identity("/")


@cache
def _own_capabilities() -> int:
    return capabilities(os.getpid())
