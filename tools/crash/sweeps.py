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

_ALL = {
    "each object repaired": ("cold", "netns-tests/command/test_repair.py"),
    "each object missed": ("cold", "netns-tests/verbs/test_taken_away.py"),
    "with the node agent": ("warm", "netns-tests"),
}


def stories() -> list[str]:
    return list(_ALL)


def tell(story: str, seed: str) -> Told:
    mode, *chosen = _ALL[story]
    with tempfile.NamedTemporaryFile(suffix=".xml") as told:
        words = ["-m", "pytest", "--numprocesses", "4", "--dist", "worksteal", f"--junitxml={told.name}", *chosen]
        subprocess.run([sys.executable, *words], cwd=ROOT, env=os.environ | {"STEP": "1", "WHOLE": "1", "AGENT_CNI_MODE": mode}, check=False)  # fmt: skip
        cases = list(ET.parse(told.name).getroot().iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    return Told(
        {"tests": len(cases) - len(skipped)},
        [f"{case.get('classname')}::{case.get('name')} ({mode})" for case in failed],
    )
