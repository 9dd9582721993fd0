"""How calls go on a node, counted in a file beside the locks."""

from __future__ import annotations

import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cni.errors import Delegated, Internal, InvalidConfig, RangeExhausted
from cni.kernel.locks import LockFile
from cni.state.tally import BOUNDS, calls, counted

ROOT = Path(__file__).parent.parent


@pytest.fixture
def folder(no_node: Path) -> Path:
    no_node.mkdir(mode=0o700)
    return no_node


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let the next call take so long."""
    now = 0.0
    ticks: list[float] = []
    monkeypatch.setattr("cni.state.tally.time.monotonic", lambda: ticks.pop(0) if ticks else now)
    return lambda seconds: ticks.extend((now, now + seconds))


def told() -> dict[tuple[str, str, int], int]:
    return {(item.plugin, item.verb, item.code): sum(item.counts) for item in calls()}


def test_calls_are_told_apart_by_plugin_verb_and_how_they_ended(folder: Path):
    for plugin, verb in [("macvlan", "ADD"), ("macvlan", "ADD"), ("macvlan", "DEL"), ("agent-ipam", "ADD")]:
        with counted(plugin, verb):
            pass
    for error in (RangeExhausted("none"), RangeExhausted("none"), InvalidConfig("$"), Internal("bug"), OSError("bug"), KeyboardInterrupt()):  # fmt: skip
        with pytest.raises(type(error)), counted("macvlan", "ADD"):
            raise error
    assert told() == {
        ("agent-ipam", "ADD", 0): 1,
        ("macvlan", "ADD", 0): 2,
        ("macvlan", "ADD", 7): 1,
        ("macvlan", "ADD", 103): 2,
        ("macvlan", "ADD", 108): 1,
        ("macvlan", "ADD", 999): 2,
        ("macvlan", "DEL", 0): 1,
    }


def test_a_delegates_own_codes_are_one_kind(folder: Path):
    """They may be any number: the file stays small."""
    for code in (77, 12345, -3):
        with pytest.raises(Delegated), counted("macvlan", "ADD"):
            raise Delegated(code, "theirs")
    assert told() == {("macvlan", "ADD", -1): 3}


def test_how_long_calls_took_falls_between_bounds(folder: Path, clock: Callable[[float], None]):
    for seconds in (BOUNDS[0], 0.004, 0.004, 1000.0):
        clock(seconds)
        with counted("macvlan", "ADD"):
            pass
    (found,) = calls()
    assert {number: count for number, count in enumerate(found.counts) if count} == {0: 1, 2: 2, len(BOUNDS): 1}
    assert found.seconds == pytest.approx(1000.009)


def test_nothing_is_counted_where_there_is_no_folder(no_node: Path):
    with counted("macvlan", "ADD"):
        pass
    assert calls() == []
    assert not no_node.exists()


@pytest.mark.parametrize("what", ["folder", "link", "two names", "open to all"])
def test_what_somebody_else_put_there_is_left_alone(folder: Path, what: str, tmp_path: Path):
    there, other = folder / "tally-1", tmp_path / "other"
    other.write_bytes(b"theirs")
    if what == "folder":
        there.mkdir()
    elif what == "link":
        there.symlink_to(other)
    elif what == "two names":
        there.hardlink_to(other)
    else:
        there.write_bytes(b"theirs")
        there.chmod(0o666)
    with counted("macvlan", "ADD"):
        pass
    assert other.read_bytes() == b"theirs"
    assert there.is_dir() or there.read_bytes() == b"theirs"


@pytest.mark.parametrize("damage", [b"x", b"x" * 256, b"\xff" * 300, b"\0" * 1024])
def test_what_is_damaged_says_nothing_and_counting_goes_on(folder: Path, damage: bytes):
    (folder / "tally-1").write_bytes(damage)
    (folder / "tally-1").chmod(0o600)
    for _ in range(2):
        with counted("macvlan", "ADD"):
            pass
    assert told() == {("macvlan", "ADD", 0): 2}


def test_who_stands_still_while_he_counts_keeps_nobody(folder: Path):
    with counted("macvlan", "ADD"):
        pass
    lock = LockFile(folder / "tally-1")
    with lock.exclusive("0", "the tally"):
        began = time.monotonic()
        with counted("macvlan", "ADD"):
            pass
        assert time.monotonic() - began < 1
    lock.close()
    assert told() == {("macvlan", "ADD", 0): 1}


WORK = """
import sys
from pathlib import Path
from cni.state import uses
uses.DEFAULT_FOLDER = Path(sys.argv[1])
from cni.state import tally
from cni.state.tally import counted
tally._PATIENCE_SECONDS = 30  # on a busy machine one waits for its processor too
print("ready", flush=True)
for number in range(int(sys.argv[2])):
    with counted(f"plugin{number % 3}", "ADD"): pass
"""


def workers(folder: Path, each: int, many: int = 4) -> list[subprocess.Popen[str]]:
    argv = [sys.executable, "-c", WORK, str(folder), str(each)]
    started = [subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(many)]
    for process in started:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    return started


def test_processes_that_count_at_once_lose_nothing(folder: Path):
    for process in workers(folder, 300):
        assert process.wait() == 0
        process.stdout.close()  # type: ignore[union-attr]
    assert told() == {(f"plugin{number}", "ADD", 0): 400 for number in range(3)}


def test_a_process_that_is_killed_leaves_whole_cells(folder: Path):
    for seconds in (0.005, 0.02, 0.05):
        started = workers(folder, 100_000, 2)
        time.sleep(seconds)
        for process in started:
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()  # type: ignore[union-attr]
        data = (folder / "tally-1").read_bytes()
        assert len(data) % 256 == 0
        cells = [struct.unpack_from("=120s", data, at)[0].rstrip(b"\0") for at in range(0, len(data), 256)]
        assert len(cells) == len(set(cells)) == len(calls())
    with counted("plugin0", "ADD"):
        pass
    assert (folder / "tally-1").stat().st_mode & 0o777 == 0o600
