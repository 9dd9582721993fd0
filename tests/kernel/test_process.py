"""What is asked about other processes."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cni.errors import ToolFailed, TryAgainLater
from cni.kernel import process, signals
from cni.kernel.locks import LockFile
from cni.kernel.process import capabilities, run_apart

#: A program that leaves another running, and says who that is.
LEAVES = "sleep 60 & echo $! >&2; exit 3"


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


def test_what_is_apart_is_in_no_group_of_ours_and_hears_every_signal():
    with signals.uninterrupted():
        done = run_apart(["/bin/sh", "-c", LEAVES], 20)
    left = int(done.stderr)
    assert done.returncode == 3
    try:
        assert os.getsid(left) != os.getsid(0)
        masks = re.findall(r"^Sig(?:Blk|Ign):\s*(\w+)$", Path(f"/proc/{left}/status").read_text(), re.MULTILINE)
        assert not int(masks[0], 16) & 1 << (signal.SIGTERM - 1)
        assert "/dev/null" in {str(Path(f"/proc/{left}/fd/{number}").readlink()) for number in (0, 1)}
    finally:
        os.kill(left, signal.SIGTERM)


def test_what_does_not_end_is_ended():
    with pytest.raises(TryAgainLater, match=r"^/bin/sleep did not end within 0.05 s$"):
        run_apart(["/bin/sleep", "60"], 0.05)
    with pytest.raises(ToolFailed, match=r"^/nonexistent cannot be run: No such file or directory$"):
        run_apart(["/nonexistent"], 1)


def test_of_a_program_only_who_was_started_with_the_word_is_ended(tmp_path: Path):
    program = tmp_path / "serves-a-device"
    shutil.copy2(shutil.which("sleep") or "", program)
    ours, other = (subprocess.Popen([program, seconds]) for seconds in ("3000", "4000"))
    elsewhere = subprocess.Popen(["unshare", "--user", "--net", program, "3000"])
    try:
        deadline = time.monotonic() + 10
        while b"serves-a-device" not in Path(f"/proc/{elsewhere.pid}/cmdline").read_bytes().split(b"\0")[0]:
            assert time.monotonic() < deadline
        assert process.kill("serves-a-device", "3000")
        assert ours.wait(10) == -signal.SIGKILL
        assert (other.poll(), elsewhere.poll()) == (None, None)
        assert not process.kill("serves-a-device", "3000")
        assert not process.kill("serves", "4000")
        assert other.poll() is None
    finally:
        for one in (ours, other, elsewhere):
            one.kill()
            one.wait(10)


def test_memory_that_is_let_go_is_the_systems_again():
    """Left to itself the C library keeps what lies below something small, once something larger was let go."""
    script = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from cni.kernel import process
def held():
    return next(int(line.split()[1]) for line in Path("/proc/self/smaps_rollup").read_text().splitlines() if line.startswith("Anonymous:"))
process.keep_little_memory()
large = bytearray(16 << 20)
del large
before = held()
tables = [(bytearray(b"x" * (200 << 10)), bytearray(b"x" * 600)) for _ in range(50)]
small = [pair[1] for pair in tables]
there = held()
del tables
print(there - before, held() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(Path(__file__).parents[2])], capture_output=True, text=True, check=True
    )
    there, left = map(int, done.stdout.split())
    assert there > 9000  # KiB
    assert left < 1000


def test_a_program_that_goes_on_is_heard_and_ended():
    program = process.start(["/bin/sh", "-c", "echo began; exec sleep 60"])
    assert select.select([program.says], [], [], 60)[0]
    assert (os.read(program.says, 100), process.has_ended(program)) == (b"began\n", False)
    assert process.end(program, 60) == -signal.SIGTERM
    assert not Path(f"/proc/{program.pid}").exists()


def test_a_program_that_does_not_wish_to_end_is_ended_and_one_that_has_says_how():
    deaf = process.start(["/bin/sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.1; done"])
    assert select.select([deaf.says], [], [], 60)[0]
    assert process.end(deaf, 0.1) == -signal.SIGKILL
    done = process.start(["/bin/sh", "-c", "exit 3"])
    assert select.select([done.ends], [], [], 60)[0]
    assert process.has_ended(done)
    assert process.end(done, 60) == 3


def test_a_program_hears_signals_that_are_held_back_here():
    with signals.uninterrupted():
        program = process.start(["/bin/sleep", "60"])
    assert process.end(program, 60) == -signal.SIGTERM


def test_a_program_that_is_not_there_is_named_and_leaves_no_descriptor():
    before = len([*Path("/proc/self/fd").iterdir()])
    with pytest.raises(ToolFailed, match="/no/program cannot be run: No such file"):
        process.start(["/no/program"])
    assert len([*Path("/proc/self/fd").iterdir()]) == before


KILLED = """
import sys
from pathlib import Path
from cni.kernel import process
from cni.kernel.locks import LockFile
def run(): process.run(["/bin/sh", "-c", "kill -KILL $PPID; sleep 1; echo done > $0", sys.argv[2]])
with LockFile(Path(sys.argv[1])).exclusive("a" * 15, "it"):
    process.together([run]) if sys.argv[3:] else run()
"""


@pytest.mark.parametrize("thread", [(), ("thread",)])
def test_a_program_whose_caller_is_killed_holds_what_he_held_until_its_end(tmp_path: Path, thread: tuple[str, ...]):
    lock, done = tmp_path / "lock", tmp_path / "done"
    killed = subprocess.run([sys.executable, "-c", KILLED, lock, done, *thread], check=False)
    assert killed.returncode == -signal.SIGKILL
    with LockFile(lock).exclusive("a" * 15, "it", patience=20):
        assert done.exists()
