"""What is asked about other processes."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from cni.kernel.process import capabilities


def effective(pid: int) -> int:
    found = re.search(r"^CapEff:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1], 16)


def test_capabilities_are_the_effective_ones_of_that_process():
    assert capabilities(os.getpid()) == effective(os.getpid()) != 0
    lesser = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "cat"]
    with subprocess.Popen(lesser, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin
        assert child.stdout
        child.stdin.write(b"x")
        child.stdin.flush()
        child.stdout.read(1)
        assert capabilities(child.pid) == effective(child.pid) == 0
        child.stdin.close()


@pytest.mark.parametrize("pid", [0, -1, 2**22 + 1])
def test_nobody_has_no_capabilities_rather_than_ours(pid: int):
    with pytest.raises(ProcessLookupError):
        capabilities(pid)
