"""What is known of who listens, and never waited for without bound."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cni.agent import listener
from cni.agent.listener import is_listened_on, listening, takes_calls
from cni.command.main import main
from cni.errors import Conflict


@contextmanager
def somebody(path: Path, queue: int = 8) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as made:
        made.bind(str(path))
        made.listen(queue)
        yield made


@contextmanager
def full(path: Path) -> Iterator[None]:
    """Who listens and takes nobody, until no more may wait."""
    waiting = []
    with somebody(path, 0):
        try:
            while True:
                waiting.append(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK))
                waiting[-1].connect(str(path))
        except BlockingIOError:
            yield
        finally:
            for one in waiting:
                one.close()


def in_time(asked: Callable[[Path], bool], path: Path) -> bool:
    began = time.monotonic()
    answer = asked(path)
    assert time.monotonic() - began < 30
    return answer


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "_PATIENCE_SECONDS", 0.2)


def test_nobody_listens_where_there_is_nothing_or_a_dead_socket(tmp_path: Path):
    path = tmp_path / "sock"
    assert not is_listened_on(path)
    with somebody(path):
        assert is_listened_on(path)
    assert not is_listened_on(path)


def test_who_takes_nobody_is_not_waited_for(tmp_path: Path):
    path = tmp_path / "sock"
    with full(path):
        assert in_time(is_listened_on, path)
        assert not in_time(takes_calls, path)
        with pytest.raises(Conflict, match="listens on"), listening(path):
            pytest.fail("it listens")
    path.unlink()
    with somebody(path):
        assert in_time(is_listened_on, path)
        assert not in_time(takes_calls, path)


@pytest.mark.parametrize("reads", [True, False], ids=["reads", "resets"])
def test_who_hangs_up_takes_calls(tmp_path: Path, reads: bool):
    path = tmp_path / "sock"
    with somebody(path) as made:

        def serve() -> None:
            with made.accept()[0] as connection:
                if reads:
                    connection.recv(9)
                time.sleep(0.05)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        assert takes_calls(path)
        thread.join()


def test_nobody_listens_where_nothing_is_however_long_the_way(tmp_path: Path):
    assert not is_listened_on(tmp_path / ("x" * 200) / "agent.sock")


def test_a_probe_says_whether_an_agent_takes_calls(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "sock"
    asked = ["serve", "--socket", str(path), "--probe"]
    assert main(asked) == 1
    assert capsys.readouterr().err == f"agent-cni: no agent takes calls at {path}\n"
    with full(path):
        assert main(asked) == 1
    path.unlink()
    with somebody(path) as made:

        def serve() -> None:
            for _ in range(2):  # who only looks whether somebody listens, and who is a caller
                made.accept()[0].close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        assert main(asked) == 0
        thread.join()


def test_a_socket_that_another_has_put_there_meanwhile_stays(tmp_path: Path):
    path = tmp_path / "sock"
    with listening(path):
        path.unlink()
        with listening(path):
            pass
        assert not path.exists()
        path.touch()
    assert path.exists()


#: An agent that becomes the next installation's, which ends; `argv` says whether its socket was passed to it.
_BECOMING = """
import os, sys
from pathlib import Path
from cni.agent.listener import listening, pass_on
path, times = Path(sys.argv[1]), int(sys.argv[2])
with listening(path) as listener:
    if times:
        pass_on(listener)
        os.execv(sys.executable, [sys.executable, "-c", os.environ["SELF"], str(path), str(times - 1)])
"""


def test_what_an_agent_becomes_takes_the_socket_away_that_was_its_own(tmp_path: Path):
    path = tmp_path / "sock"
    subprocess.run([sys.executable, "-c", _BECOMING, path, "2"], env={"SELF": _BECOMING}, check=True)
    assert not path.exists()


def test_what_an_agent_becomes_leaves_the_socket_that_systemd_made(tmp_path: Path):
    path = tmp_path / "sock"
    passing = "import os; os.dup2(int(os.environ['AT']), 3); os.environ['LISTEN_PID'] = str(os.getpid()); exec(os.environ['SELF'])"
    with somebody(path) as made:
        environ = {"SELF": _BECOMING, "AT": str(made.fileno()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "agent-cni.socket"}
        subprocess.run([sys.executable, "-c", passing, path, "2"], env=environ, pass_fds=[made.fileno()], check=True)
        assert is_listened_on(path)
