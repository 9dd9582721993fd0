"""What stands in the log's place: a call never waits for it, writes over nothing, and says so once."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cni import log


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """Whoever waits for a pipe is ended."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits"))
    signal.alarm(5)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def file(log_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    log_folder.mkdir()
    monkeypatch.chdir(log_folder)
    return log_folder / "macvlan.log"


def read_pipe(place: Path) -> int:
    os.mkfifo(place)
    return os.open(place, os.O_RDONLY | os.O_NONBLOCK)


def listener(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(place.name)


OTHERS: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a pipe that is read": read_pipe,
    "a link": lambda place: place.symlink_to("victim"),
    "a link to nothing": lambda place: place.symlink_to("nothing"),
    "a file's other name": lambda place: place.hardlink_to("victim"),
    "a folder": Path.mkdir,
    "a socket": listener,
    "a link to a device": lambda place: place.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_file_of_ours_is_left_alone(file: Path, capfd: pytest.CaptureFixture[str], kind: str):
    victim = file.with_name("victim")
    victim.write_text("as it was")
    made = OTHERS[kind](file)
    before = len(list(Path("/proc/self/fd").iterdir()))
    log.event("macvlan", "ADD", network="pods")
    said = json.loads(capfd.readouterr().err)
    assert said["warning"].startswith(f"{log.FOLDER} is not written to: ")
    assert "macvlan.log" in said["warning"]
    assert victim.read_text() == "as it was"
    assert not file.with_name("nothing").exists()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
    if isinstance(made, int):
        assert os.read(made, 1) == b""
        os.close(made)


def test_a_folder_others_write_into_is_left_alone(file: Path, capfd: pytest.CaptureFixture[str]):
    file.parent.chmod(0o777)
    log.event("macvlan", "ADD")
    assert "others may write into it" in json.loads(capfd.readouterr().err)["warning"]
    assert not file.exists()


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o755, 0o775, 0o2770])
def test_a_folder_of_ours_is_written_to(file: Path, capfd: pytest.CaptureFixture[str], mode: int):
    file.parent.chmod(mode)
    log.event("macvlan", "ADD")
    assert json.loads(file.read_text())["verb"] == "ADD"
    assert capfd.readouterr().err == ""


def test_our_link_to_a_folder_is_followed(file: Path, monkeypatch: pytest.MonkeyPatch):
    link = file.parent.with_name("link")
    link.symlink_to(file.parent)
    monkeypatch.setattr(log, "FOLDER", link)
    log.event("macvlan", "ADD")
    assert json.loads(file.read_text())["verb"] == "ADD"


def test_texts_of_any_kind_are_one_line(file: Path):
    log.event("macvlan", "ADD", pod="a\x1b[2J\n\udcff\ud800\u2028b")
    assert file.read_bytes().count(b"\n") == 1
    assert file.read_bytes().isascii()
    assert json.loads(file.read_text())["pod"] == "a\x1b[2J\n\udcff\ud800\u2028b"


TWICE = "import os; from cni import log; log.warning('a', 'unheard'); os.dup2(1, 2); log.warning('b', 'heard')"


def test_what_a_full_stderr_does_not_take_is_nobody_elses_and_no_failure():
    """A worker has one caller's stderr after the other's in the same place."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", TWICE], stdout=subprocess.PIPE, stderr=full, text=True, check=False
        )
    assert done.returncode == 0
    assert [json.loads(line)["warning"] for line in done.stdout.splitlines()] == ["heard"]
