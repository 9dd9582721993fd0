"""What the words of a command line may be; argparse tells what is wrong with one."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from cni.naming import IPAddress, interface_of

_MOST = 10_000


def some(text: str) -> str:
    """A text that is not empty."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty")
    return text


def count(text: str) -> int:
    """A number from 1 on."""
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < _MOST):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {_MOST - 1}")
    return int(text)


def number(text: str) -> int:
    """A number."""
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is no number")
    return int(text)


def file_or_none(text: str) -> str:
    """The absolute path of a file, for a file others read; nothing is nothing."""
    return str(Path.cwd() / text) if text else ""


def file(text: str) -> Path:
    """A path."""
    return Path(some(text))


def address(text: str) -> IPAddress:
    """An address, with or without its prefix: `show` prints both."""
    try:
        return interface_of(text).ip
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no IP address") from None


def absolute(text: str) -> Path:
    """An absolute path, without detours."""
    path = Path(os.path.normpath(text))
    if not path.is_absolute():
        raise argparse.ArgumentTypeError(f"{text!r} is no absolute path")
    return path


def of_interpreters(text: str) -> Path:
    """A folder with the interpreter of executables: the kernel takes its path up to the first space (execve(2))."""
    if text.split() != [text]:
        raise argparse.ArgumentTypeError(f"{text!r} has a space in it, where an executable's interpreter would end")
    return absolute(text)
