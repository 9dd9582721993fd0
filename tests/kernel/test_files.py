from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from cni.errors import TryAgainLater, Unavailable
from cni.kernel.files import LockFile, private_folder
from cni.kernel.writing import put_asked

ONE, OTHER = "0" * 14 + "1f", "0" * 14 + "2f"
ROOT = Path(__file__).parent.parent.parent

HOLDER = """
import sys
from pathlib import Path
from cni.kernel.files import LockFile
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


def test_a_private_folder_is_made_with_its_parents(tmp_path: Path):
    made = private_folder(tmp_path / "a" / "b")
    assert made.stat().st_mode & 0o777 == 0o700
    assert private_folder(made) == made


@pytest.mark.parametrize("name", ["state.db-wal", "wireguard.key"])
def test_a_folder_of_ours_alone_is_closed(tmp_path: Path, name: str):
    (tmp_path / name).touch()
    tmp_path.chmod(0o755)
    assert private_folder(tmp_path).stat().st_mode & 0o777 == 0o700


def test_a_folder_with_anything_else_keeps_its_mode(tmp_path: Path):
    (tmp_path / "bin").mkdir()
    tmp_path.chmod(0o755)
    assert private_folder(tmp_path).stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775])
def test_a_folder_others_write_into_is_refused(tmp_path: Path, mode: int):
    (tmp_path / "theirs").touch()
    tmp_path.chmod(mode)
    with pytest.raises(Unavailable, match="others may write into it"):
        private_folder(tmp_path)
    assert tmp_path.stat().st_mode & 0o7777 == mode


@pytest.mark.threat
@pytest.mark.parametrize(
    "there", ["nothing", "his file", "another name", "a link", "a link to nothing", "a pipe", "a folder"]
)
def test_a_file_that_is_asked_for_is_a_new_one_whatever_somebody_put_there(tmp_path: Path, there: str):
    victim, path = tmp_path / "victim", tmp_path / "asked"
    victim.write_text("as it was")
    opened = None
    match there:
        case "his file":
            path.write_text("")
            opened = path.open()  # who could read it before reads what was there
        case "another name":
            path.hardlink_to(victim)
        case "a link":
            path.symlink_to(victim)
        case "a link to nothing":
            path.symlink_to(tmp_path / "nothing")
        case "a pipe":
            os.mkfifo(path)
        case "a folder":
            path.mkdir()
    before = sorted(tmp_path.iterdir())
    if there in ("nothing", "his file", "another name"):
        put_asked(path, b"ours", 0o600)
        assert (path.read_text(), path.stat().st_mode & 0o777, path.stat().st_nlink) == ("ours", 0o600, 1)
    else:
        with pytest.raises(OSError, match="no plain file"):
            put_asked(path, b"ours", 0o600)
        assert sorted(tmp_path.iterdir()) == before
    assert victim.read_text() == "as it was"
    assert not opened or opened.read() == ""
