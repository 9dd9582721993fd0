"""Bridges whose switch we turned on, written down beside the state: a flush of all rules does not reach that.

A file for each, called like it, which says its index: another bridge of that name has another.
"""

from __future__ import annotations

from pathlib import Path

from cni.errors import Unavailable
from cni.kernel.files import private_folder
from cni.kernel.writing import put_whole, take_whole

FOLDER = Path("/run/agent-cni/switched")


def note(bridge: str, index: int) -> None:
    """Write down that we turn a bridge's switch on. Raises Unavailable, and TryAgainLater where another is at it."""
    try:
        put_whole(private_folder(FOLDER) / bridge, f"{index}\n", 0o600)
    except OSError as error:
        raise _unavailable(bridge, error) from None


def is_noted(bridge: str, index: int) -> bool:
    """Whether we turned this bridge's switch on, since the boot. Raises Unavailable."""
    try:
        return (FOLDER / bridge).read_text().strip() == str(index)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _unavailable(bridge, error) from None


def forget(bridge: str) -> None:
    """Have nothing written down of bridges of that name. Raises Unavailable."""
    try:
        take_whole(FOLDER / bridge)
    except NotADirectoryError:
        return
    except OSError as error:
        raise _unavailable(bridge, error) from None


def _unavailable(bridge: str, error: OSError) -> Unavailable:
    return Unavailable(f"{FOLDER / bridge}: {error.strerror}")
