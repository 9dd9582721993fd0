"""What is pinned, in constraints.txt and as what builds the suite, and what of it is installed in this checkout."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
#: Python's own, which it puts into each venv; nothing of ours asks for them.
BUNDLED = {"pip", "setuptools"}


def pins() -> dict[NormalizedName, str]:
    """The version of each package that is pinned."""
    builds = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    return pinned([*(ROOT / "constraints.txt").read_text().splitlines(), *builds])


def pinned(lines: Iterable[str]) -> dict[NormalizedName, str]:
    """The same of lines that pip takes as constraints."""
    wanted = [Requirement(line) for line in lines if not line.startswith("#")]
    return {canonicalize_name(item.name): str(item.specifier).removeprefix("==") for item in wanted}


def installed() -> Iterator[Distribution]:
    """Every package of the installation, of what develops it and of what builds it, but for the suite itself."""
    yield from (found for found in distributions(path=sys.path) if found.name != "agent-cni")
    built_in = (str(folder) for folder in (ROOT / ".cache/build/lib").glob("python3*/site-packages"))
    yield from (found for found in distributions(path=[*built_in]) if found.name not in BUNDLED | {"agent-cni"})
