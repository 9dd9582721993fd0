"""Kernel settings under /proc/sys, by their dotted names; `%` stands for a dot in a link's name."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import TypeVar

from cni.errors import KernelRefused
from cni.kernel.procfs import Procfs

_Done = TypeVar("_Done")
_MOST_BYTES = 4096
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
_PROC = Procfs()


def of_link(version: int, link: str, setting: str) -> str:
    """The key of a link's setting of an IP version (4 or 6)."""
    return f"net.ipv{version}.conf.{link.replace('.', '%')}.{setting}"


def read(key: str) -> str | None:
    """A setting's value, or None where this kernel or namespace lacks it. Raises KernelRefused naming the key."""
    try:
        return _at(key, os.O_RDONLY, lambda fd: os.read(fd, _MOST_BYTES)).decode().strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KernelRefused(f"sysctl {key}: {error.strerror}", error.errno or 0) from None


def write(key: str, value: str) -> None:
    """Set a value. Raises KernelRefused naming the key."""
    try:
        _at(key, os.O_WRONLY, lambda fd: os.write(fd, value.encode()))
    except OSError as error:
        raise KernelRefused(f"sysctl {key}={value}: {error.strerror}", error.errno or 0) from None


def prefers(key: str, value: str) -> str:
    """Set a value if it is another and this process may; where /proc/sys is read-only, the line that says so."""
    if read(key) in (None, value):
        return ""
    try:
        write(key, value)
    except KernelRefused as error:
        if error.errno not in _READ_ONLY:
            raise
        return error.msg
    return ""


def is_writable(key: str) -> bool:
    """Whether this process may set it."""
    try:
        _at(key, os.O_WRONLY, lambda _: None)
    except OSError:
        return False
    return True


def _at(key: str, how: int, act: Callable[[int], _Done]) -> _Done:
    """Do something with a setting's file: calls read five, and Python's file objects double what the kernel takes.

    A mount of our own may be shut where /proc is open: what a security module refuses goes by the mount.
    """
    root = _PROC.root()
    try:
        return _in(root, key, how, act)
    except OSError as error:
        if root is None or error.errno not in _READ_ONLY:
            raise
        return _in(None, key, how, act)


def _in(root: int | None, key: str, how: int, act: Callable[[int], _Done]) -> _Done:
    place = "/".join(("/proc/sys" if root is None else "sys", *(part.replace("%", ".") for part in key.split("."))))
    fd = os.open(place, how | os.O_CLOEXEC, dir_fd=root)
    try:
        return act(fd)
    finally:
        os.close(fd)
