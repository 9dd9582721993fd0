from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from cni.errors import IoFailure
from cni.kernel.bell import NAME, Bell, ring
from cni.kernel.notify import notify, watched


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path fits into a socket's address."""
    with TemporaryDirectory(prefix="bell") as path:
        yield Path(path)


def test_a_bell_is_heard_once_however_often_it_was_rung(short: Path):
    with closing(Bell(short)) as bell:
        assert not bell.wait(0)
        for _ in range(30):
            ring(short)
        bell.ring()
        assert bell.wait(5)
        assert not bell.wait(0)


def test_who_waits_is_woken_from_outside_and_from_inside(short: Path):
    with closing(Bell(short)) as bell:
        for waking in (lambda: ring(short), bell.ring):
            later = threading.Timer(0.05, waking)
            later.start()
            assert bell.wait(30)
            later.join()


def test_ringing_waits_for_nobody(short: Path):
    with closing(Bell(short)):
        for _ in range(5000):  # more than a queue takes
            ring(short)
    ring(short)  # taken down
    ring(short / "missing")
    ring(Path("/" + "x" * 200))


def test_a_bell_that_was_left_hanging_is_replaced(short: Path):
    left = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    left.bind(str(short / NAME))
    left.close()
    with closing(Bell(short)) as bell:
        ring(short)
        assert bell.wait(5)
    assert not (short / NAME).exists()


def test_a_bell_that_somebody_took_down_is_hung_again(short: Path):
    with closing(Bell(short)) as bell:
        for take_down in ((short / NAME).unlink, lambda: Bell(short).close()):
            take_down()
            assert not bell.wait(0)
            ring(short)
            assert bell.wait(5)
    assert not (short / NAME).exists()


def test_where_no_bell_can_hang_the_path_is_named(short: Path):
    with pytest.raises(IoFailure, match=r"missing/member\.sock"):
        Bell(short / "missing")


@pytest.mark.parametrize("abstract", [False, True])
def test_a_service_says_how_it_is(short: Path, abstract: bool, monkeypatch: pytest.MonkeyPatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        name = f"@{short.name}" if abstract else str(short / "notify")
        listener.bind(name.replace("@", "\0") if abstract else name)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        assert notify("READY=1", "STATUS=well")
        assert listener.recv(100) == b"READY=1\nSTATUS=well"
        began = time.monotonic()
        while notify("WATCHDOG=1"):  # nobody reads any more
            assert time.monotonic() - began < 30
    assert not notify("READY=1")  # who asked is gone
    monkeypatch.delenv("NOTIFY_SOCKET")
    assert notify("READY=1")


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [({}, None), ({"WATCHDOG_USEC": "3000000"}, 3.0), ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
     ({"WATCHDOG_USEC": "soon"}, None)],
)  # fmt: skip
def test_a_service_knows_whether_it_is_watched(
    environ: dict[str, str], seconds: float | None, monkeypatch: pytest.MonkeyPatch
):
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert watched() == seconds
