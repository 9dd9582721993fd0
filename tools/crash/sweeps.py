"""The tests that enumerate, all of what they can: make test takes some of it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree as ET

from crash.story import Told

ROOT = Path(__file__).resolve().parents[2]
WHAT = "each object of an ADD taken away, then CHECK and repair; each test in namespaces, with the node agent"
FIXED = ()

_ROOMS = sorted({file.parent.name for file in (ROOT / "netns-tests").glob("*/test_*.py")} - {"reliability"})
_SWEPT = [
    room
    for room in _ROOMS
    if any("mark.sweep" in file.read_text() for file in (ROOT / "netns-tests" / room).glob("*.py"))
]
_WITHOUT, _WITH = "all of what enumerates in {}", "all of {} with the node agent"


def stories() -> list[str]:
    return [*map(_WITHOUT.format, _SWEPT), *map(_WITH.format, _ROOMS)]


def tell(story: str, seed: str) -> Told:
    room = next(room for room in _ROOMS if story in {_WITHOUT.format(room), _WITH.format(room)})
    mode, chosen = ("cold", ("-m", "sweep")) if story == _WITHOUT.format(room) else ("warm", ())
    return ran(mode, *chosen, f"netns-tests/{room}")


def ran(mode: str, *chosen: str) -> Told:
    """What comes of tests, with the node agent (`warm`) or without it (`cold`)."""
    with tempfile.NamedTemporaryFile(suffix=".xml") as told:
        words = [
            "-m",
            "pytest",
            "--numprocesses",
            "4",
            "--dist",
            "worksteal",
            f"--junitxml={told.name}",
            *chosen,
        ]
        subprocess.run([sys.executable, *words], cwd=ROOT, env=os.environ | {"WHOLE": "1", "AGENT_CNI_MODE": mode}, check=False)  # fmt: skip
        cases = list(ET.parse(told.name).getroot().iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    return Told(
        {"tests": len(cases) - len(skipped)},
        [f"{case.get('classname')}::{case.get('name')} ({mode})" for case in failed],
    )
