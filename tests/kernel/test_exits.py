"""Libraries that end the process they are called in: what it said last, its exit code, and that nothing of it is left."""

from __future__ import annotations

import subprocess
import sys

import pytest

BEGUN = """
import ctypes, os, sys
from cni.kernel import exits
def words():
    os.write(1, b"last words")
    return 1
"""


@pytest.mark.parametrize(
    ("rest", "ends"),
    [
        ("exits.say_last(words)\nwith exits.outspoken(): ctypes.CDLL(None).exit(3)", (1, b"last words")),
        ("exits.say_last(words)\nwith exits.outspoken(): pass\nctypes.CDLL(None).exit(3)", (3, b"")),
        ("exits.say_last(words)\nwith exits.outspoken(): pass\nsys.exit(2)", (2, b"")),
        ("with exits.outspoken(): ctypes.CDLL(None).exit(3)", (3, b"")),
        ("exits.say_last(words)\nfor _ in range(100):\n    with exits.outspoken(): pass\nsys.exit(0)", (0, b"")),
    ],
)
def test_last_words_are_said_where_the_process_is_ended_and_nowhere_else(rest: str, ends: tuple[int, bytes]):
    done = subprocess.run([sys.executable, "-c", BEGUN + rest], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == ends, done.stderr
