"""Kernel settings under /proc/sys, by their dotted names; `%` stands for a dot in a link's name."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from cni.errors import KernelRefused
from cni.kernel.procfs import Procfs

_Done = TypeVar("_Done")
_MOST_BYTES = 4096
_PROC = Procfs()


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


def _at(key: str, how: int, act: Callable[[int], _Done]) -> _Done:
    """Do something with a setting's file: calls read five, and Python's file objects double what the kernel takes."""
    root = _PROC.root()
    place = "/".join(("/proc/sys" if root is None else "sys", *(part.replace("%", ".") for part in key.split("."))))
    fd = os.open(place, how | os.O_CLOEXEC, dir_fd=root)
    try:
        return act(fd)
    finally:
        os.close(fd)
