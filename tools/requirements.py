"""What the suite is built with and what it needs, from pyproject.toml, as pip takes it: tools/requirements.py."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent

if __name__ == "__main__":
    said = tomllib.loads((ROOT / "pyproject.toml").read_text())
    print(*said["build-system"]["requires"], *said["project"]["dependencies"])
