"""Calls whose effects are numbered, cold and warm (scenes/effects.py)."""

from __future__ import annotations

import shlex
from functools import cache
from pathlib import Path

from lab import BIN_DIR, ROOT, Host
from warm import Nursery

PYTHON, EFFECTS = ROOT / ".venv/bin/python3", Path(__file__).with_name("effects.py")
#: What runs the command with its doors wrapped.
COMMAND = (PYTHON, "-I", EFFECTS, "agent-cni")


@cache
def bin_dir() -> Path:
    """A folder of executables as in BIN_DIR, each a cold call with its doors wrapped."""
    folder = Path("/run/armed")
    folder.mkdir(exist_ok=True)
    for plugin in BIN_DIR.iterdir():
        run = shlex.join(map(str, (PYTHON, "-I", EFFECTS, plugin)))
        (folder / plugin.name).write_text(f"#!/bin/sh\nexec {run}\n")
        (folder / plugin.name).chmod(0o755)
    return folder


@cache
def _nursery() -> Nursery:
    return Nursery(PYTHON, seam=True)


def serve(host: Host) -> Path:
    """Give a host an agent that obeys orders; the folder of executables that ask it."""
    host.agent = _nursery().start(host.path, host.folder, host.names)
    return BIN_DIR
