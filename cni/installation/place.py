"""Where a node, or the image of one, has the suite."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cni.conflist.placed import BIN_DIR, CONF_DIR
from cni.errors import Conflict, Unavailable
from cni.values import dataclass

#: The interpreter this one was started from, outside any virtual environment.
PYTHON = Path(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True)
class Place:
    """Folders as the node will know them, and `root`, where the node's / is now."""

    root: Path = Path("/")
    prefix: Path = Path("/opt/agent-cni")
    bin_dir: Path = BIN_DIR
    conf_dir: Path = CONF_DIR
    command: Path = Path("/usr/local/bin/agent-cni")
    python: Path = PYTHON

    def now(self, path: Path) -> Path:
        """Where a path of the node is now. Raises Conflict where a link would lead out of the root."""
        found = self.root / path.relative_to("/")
        if not Path(os.path.realpath(found)).is_relative_to(self.root.resolve()):
            raise Conflict(f"{found} leads out of {self.root}, to {os.path.realpath(found)}")
        return found

    def refuse_without_python(self) -> None:
        """Raise Unavailable where the node lacks the interpreter, or its library, that the copy is made for.

        A root without an os-release(5) is no node but a folder where a package is put together.
        """
        if not (self._has(Path("/etc/os-release")) or self._has(Path("/usr/lib/os-release"))):
            return
        library = self.python.parent.parent / f"lib/python{VERSION}"
        if not self._has(self.python):
            raise Unavailable(
                f"{self.root} has no {self.python}: install Python {VERSION} there, or name it by --python"
            )
        if not self._has(library / "sqlite3/__init__.py"):
            raise Unavailable(f"{self.root} has no {library}/sqlite3: {self.python} is not a whole Python {VERSION}")

    def _has(self, path: Path) -> bool:
        return (self.root / path.relative_to("/")).exists()
