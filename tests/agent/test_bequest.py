"""Children of the release before, whose agent became another one's."""

from __future__ import annotations

import subprocess
import sys

BEFORE = """
import os, subprocess, sys
child = subprocess.Popen(["sleep", "60"]).pid
os.execv(sys.executable, [sys.executable, "-c", sys.argv[1], str(child)])
"""
AFTER = """
import os, sys, time
from pathlib import Path
from cni.agent.serve import Bequest
bequest, child = Bequest(), Path("/proc", sys.argv[1])
bequest.look()
print(child.exists())
os.kill(int(sys.argv[1]), 9)
while "zombie" not in (child / "status").read_text():
    time.sleep(0.01)
bequest.look()
print(child.exists())
bequest.look()
"""


def test_nobody_stays_a_zombie():
    done = subprocess.run([sys.executable, "-c", BEFORE, AFTER], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]
