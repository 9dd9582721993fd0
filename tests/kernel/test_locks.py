"""Locks of calls: who holds one, who waits for it and in which order, and what is left of who waits no more."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from cni.errors import TryAgainLater
from cni.kernel.locks import LockFile

ONE, OTHER = "0" * 14 + "1f", "0" * 14 + "2f"
ROOT = Path(__file__).parent.parent.parent

HOLDER = """
import sys
from pathlib import Path
from cni.kernel.locks import LockFile
lock = LockFile(Path(sys.argv[1]))
{how}
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "lock"


@pytest.fixture
def lock(file: Path) -> Iterator[LockFile]:
    opened = LockFile(file)
    yield opened
    opened.close()


@pytest.fixture
def second(file: Path) -> Iterator[LockFile]:
    opened = LockFile(file)
    yield opened
    opened.close()


def is_free(lock: LockFile, digest: str) -> bool:
    try:
        with lock.exclusive(digest, "it", 0):
            return True
    except TryAgainLater:
        return False


@contextmanager
def another_process(file: Path, how: str) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-c", HOLDER.format(how=how), str(file)]
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.stdin.close()


def test_an_attachment_is_held_by_one_call(lock: LockFile, second: LockFile):
    with lock.exclusive(ONE, "pods/c1/eth0"):
        assert not is_free(second, ONE)
        assert is_free(second, OTHER)
    assert is_free(second, ONE)


def test_a_wait_that_is_over_names_what_was_waited_for(lock: LockFile, second: LockFile):
    with (
        lock.exclusive(ONE, "pods/c1/eth0"),
        pytest.raises(TryAgainLater, match=r"^another call holds pods/c1/eth0 for more than 0 s$"),
        second.exclusive(ONE, "pods/c1/eth0", 0),
    ):
        pass


def test_who_waits_for_a_byte_does_not_take_it(lock: LockFile, second: LockFile):
    with lock.exclusive(ONE, "it"):
        with pytest.raises(TryAgainLater, match="another call holds it for more than 0 s"):
            second.wait_for(ONE, "it", 0)
        lock.wait_for(ONE, "its own", 0)
    second.wait_for(ONE, "it", 0)
    assert is_free(lock, ONE)


def test_who_waits_for_a_byte_goes_on_when_it_is_free(lock: LockFile, second: LockFile):
    with ThreadPoolExecutor(1) as other_thread:
        with lock.exclusive(ONE, "it"):
            waiting = other_thread.submit(second.wait_for, ONE, "it")
            time.sleep(0.05)
            assert not waiting.done()
        waiting.result(timeout=5)


def test_a_failed_call_gives_its_attachment_back(lock: LockFile, second: LockFile):
    with pytest.raises(KeyError), lock.exclusive(ONE, "it"):
        raise KeyError
    assert is_free(second, ONE)


def test_threads_of_one_process_exclude_each_other(lock: LockFile, second: LockFile):
    with ThreadPoolExecutor(1) as other_thread:
        with lock.exclusive(ONE, "it"):
            assert not other_thread.submit(is_free, second, ONE).result()
        assert other_thread.submit(is_free, second, ONE).result()


def test_processes_exclude_each_other(file: Path, lock: LockFile):
    with another_process(file, f"held = lock.exclusive({ONE!r}, 'it'); held.__enter__()"):
        assert not is_free(lock, ONE)
    assert is_free(lock, ONE)


def test_a_killed_process_leaves_nothing_locked(file: Path, lock: LockFile):
    with another_process(file, "lock.share_node()") as process:
        assert not lock.alone()
        process.kill()
        process.wait()
        assert lock.alone()


def test_calls_share_the_node_and_none_is_alone_then(file: Path, lock: LockFile):
    lock.share_node()
    other = LockFile(file)
    other.share_node()
    assert not lock.alone()
    other.close()
    assert lock.alone()


def test_no_call_begins_while_another_is_alone(lock: LockFile, second: LockFile):
    assert lock.alone()
    with pytest.raises(TryAgainLater, match="holds the node"):
        second.share_node(patience=0)


def test_attachments_do_not_hold_the_node(lock: LockFile, second: LockFile):
    with lock.exclusive("0" * 64, "it"):
        assert second.alone()


def test_the_longest_digest_is_an_offset_the_kernel_takes(lock: LockFile):
    assert is_free(lock, "f" * 64)


def test_the_lock_file_is_private_and_stays_empty(file: Path, lock: LockFile):
    with lock.exclusive(ONE, "it"):
        assert (file.stat().st_mode & 0o777, file.stat().st_size) == (0o600, 0)


def test_who_waits_longest_is_next_however_many_come_later(file: Path, lock: LockFile):
    had: list[int] = []

    def wait(number: int) -> None:
        with closing(LockFile(file)) as own, own.exclusive(ONE, "it"):
            had.append(number)

    with ThreadPoolExecutor(20) as calls:
        with lock.exclusive(ONE, "it"):
            waiting = []
            for number in range(20):
                waiting.append(calls.submit(wait, number))
                while line_of(file) <= number:
                    time.sleep(0.001)
        for one in waiting:
            one.result(timeout=10)
    assert had == sorted(had)


def test_who_waits_no_more_holds_nobody_up_and_leaves_nothing(file: Path, lock: LockFile, second: LockFile):
    before = descriptors()
    with lock.exclusive(ONE, "it"):
        with closing(LockFile(file)) as third, third.exclusive(OTHER, "another"):
            for waiting in (second, third):
                with pytest.raises(TryAgainLater), waiting.exclusive(ONE, "it", 0.01):
                    pass
        assert is_free(lock, OTHER), "what he held besides is free when he is gone"
    with second.exclusive(ONE, "it", 5):
        pass
    deadline = time.monotonic() + 5
    while descriptors() != before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert descriptors() == before


def line_of(file: Path) -> int:
    """How many stand in the kernel's line for a byte of a file (proc_locks(5))."""
    inode = f":{file.stat().st_ino} "
    return sum(" -> " in line and inode in line for line in Path("/proc/locks").read_text().splitlines())


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_signal_ends_a_wait(file: Path):
    script = WAITER.format(one=ONE)
    with (
        closing(LockFile(file)) as lock,
        lock.exclusive(ONE, "it"),
        subprocess.Popen(
            [sys.executable, "-c", script, str(file)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as waiter,
    ):
        assert waiter.stdout
        assert waiter.stdout.readline() == "waits\n"
        time.sleep(0.1)
        waiter.terminate()
        assert waiter.wait(10) == 3


WAITER = """
import sys
from pathlib import Path
from cni.kernel import signals
from cni.kernel.locks import LockFile
signals.handle()
print("waits", flush=True)
try:
    with LockFile(Path(sys.argv[1])).exclusive({one!r}, "it"):
        pass
except KeyboardInterrupt:
    sys.exit(3)
"""
