"""What is pinned in constraints.txt, and what of it is installed in this checkout."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
CONSTRAINTS = ROOT / "constraints.txt"
#: Python's own, which it puts into each venv; nothing of ours asks for them.
BUNDLED = {"pip", "setuptools"}


def pinned(text: str) -> dict[NormalizedName, str]:
    """The version of each package of a list that pip takes as constraints."""
    wanted = [Requirement(line) for line in text.splitlines() if line and not line.startswith("#")]
    return {canonicalize_name(item.name): str(item.specifier).removeprefix("==") for item in wanted}


def installed() -> Iterator[Distribution]:
    """Every package of the installation, of what develops it and of what builds it, but for the suite itself."""
    yield from (found for found in distributions(path=sys.path) if found.name != "agent-cni")
    built_in = (str(folder) for folder in (ROOT / ".cache/build/lib").glob("python3*/site-packages"))
    yield from (found for found in distributions(path=[*built_in]) if found.name not in BUNDLED | {"agent-cni"})
