"""What the suite is built with and what it needs, from pyproject.toml, as pip takes it: tools/requirements.py [EXTRA...]."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent

if __name__ == "__main__":
    said = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = (said["project"]["optional-dependencies"][name] for name in sys.argv[1:])
    print(
        *said["build-system"]["requires"],
        *said["project"]["dependencies"],
        *(item for extra in extras for item in extra),
    )
