"""The options of `agent-cni repair`."""

from __future__ import annotations

import argparse
from pathlib import Path

from cni.command.arguments import file
from cni.command.libcni import CACHE


def add(command: argparse.ArgumentParser) -> None:
    """Have a command take them."""
    command.add_argument("target", nargs="?", default="", metavar="POD", help="namespace/name, or a container's id")
    command.add_argument("--all", action="store_true", help="every attachment of this node, and what they share")
    command.add_argument("--dry-run", action="store_true", help="say what would be done, and touch nothing")
    command.add_argument("--conf", type=file, metavar="FILE", help="this configuration before those of the folder")
    command.add_argument("--cache-dir", type=Path, default=CACHE, help="libcni's, default %(default)s")
