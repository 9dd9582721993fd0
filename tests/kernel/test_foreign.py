"""Somebody else's code that ends the process, or never returns, in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
BEGIN = """
import ctypes, sys
from cni.errors import Lacking, Unfinished
from cni.kernel import foreign
libc = ctypes.CDLL(None)

def told(call, patience=30):
    try:
        return foreign.called(call, "it", patience)
    except (Lacking, Unfinished) as error:
        return error.msg
"""


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("print(told(lambda: 5))", ["5"]),
        ("print(told(lambda: libc.exit(3)))", ["it ended, for want of a socket or memory, or of an answer it knows"]),
        ("for _ in range(3): told(lambda: libc.exit(3))\nprint(told(lambda: 5))", ["5"]),
        ("for _ in range(2): told(libc.abort)\nprint(told(lambda: 5))", ["5"]),
        ("print(told(libc.pause, 0.05))", ["it: no answer within 0.05 s"]),
        (
            "told(libc.pause, 0.05)\nprint(told(lambda: libc.exit(3)))",
            ["it ended, for want of a socket or memory, or of an answer it knows"],
        ),
    ],
    ids=["returns", "ends", "ends thrice", "aborts twice", "waits", "waits and ends"],
)
@pytest.mark.parametrize("code", [0, 1])
def test_nobody_takes_the_process_along(script: str, said: list[str], code: int):
    ended = f"sys.stdout.flush()\nsys.exit(foreign.leave({code}))"
    done = subprocess.run(
        [sys.executable, "-c", f"{BEGIN}\n{script}\n{ended}"],
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (code, said, "")


def test_what_it_raises_is_raised():
    done = subprocess.run(
        [sys.executable, "-c", f"{BEGIN}\ndef no(): raise MemoryError('no')\ntry: told(no)\nexcept MemoryError as error: print(error)"],
        cwd=ROOT, text=True, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == "no\n"


def test_an_end_of_ours_is_an_end():
    """Also of a process that never went through `leave`, and of one that was forked."""
    script = "told(lambda: 5)\nimport os\npid = os.fork()\nif pid: print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\nelse: sys.exit(7)"
    done = subprocess.run(
        [sys.executable, "-c", f"{BEGIN}\n{script}"], cwd=ROOT, text=True, capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "7\n")


@pytest.mark.parametrize("how", ["libc.abort()", "libc.kill(libc.getpid(), 6)"])
def test_who_aborts_outside_of_it_ends(how: str):
    script = f"{BEGIN}\ntold(lambda: 5)\n{how}"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=60, check=False)
    assert done.returncode == -6


def test_an_end_of_ours_finds_what_it_looks_at():
    """Large enough to be unmapped where it is freed, when the interpreter is taken down before exit(3) is through."""
    script = f"{BEGIN}\nforeign._SEMAPHORE_BYTES = 1 << 20\nprint(told(lambda: 5))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "5\n")
