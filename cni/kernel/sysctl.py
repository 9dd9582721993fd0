"""Kernel settings under /proc/sys, by their dotted names; `%` stands for a dot in a link's name."""

from __future__ import annotations

from pathlib import Path

from cni.errors import KernelRefused

_ROOT = Path("/proc/sys")


def read(key: str) -> str | None:
    """A setting's value, or None where this kernel or namespace lacks it."""
    try:
        return _path(key).read_text().strip()
    except FileNotFoundError:
        return None


def write(key: str, value: str) -> None:
    """Set a value. Raises KernelRefused naming the key."""
    try:
        _path(key).write_text(value)
    except OSError as error:
        raise KernelRefused(f"sysctl {key}={value}: {error.strerror}", error.errno or 0) from None


def _path(key: str) -> Path:
    return _ROOT.joinpath(*(part.replace("%", ".") for part in key.split(".")))
