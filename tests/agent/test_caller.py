"""The connection to a launcher, played by the other end of a socket pair."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cni import __version__
from cni.agent import caller
from cni.agent.caller import Caller
from cni.agent.request import PROTOCOL, Refused
from cni.kernel.netns import OWN
from cni.kernel.signals import ENDING


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, Caller]]:
    before = {number: signal.getsignal(number) for number in ENDING}
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, its:
        yield its, Caller(ours)
    for number, handler in before.items():
        signal.signal(number, handler)


def ask(launcher: socket.socket, version: str = __version__, namespace: str = "") -> None:
    own = namespace or "{0.st_dev}:{0.st_ino}".format(Path(OWN).stat())
    texts = (PROTOCOL, version, sys.prefix, own, "/opt/cni/bin/macvlan", "CNI_COMMAND=VERSION")
    launcher.send("".join(f"{text}\0" for text in texts).encode())


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_request_is_taken_once_the_caller_said_go(ends: tuple[socket.socket, Caller]):
    launcher, served = ends
    ask(launcher)
    with Path(OWN).open() as file:
        socket.send_fds(launcher, [b"Gp"], [file.fileno()])
    request = served.request()
    assert request.environ == {"CNI_COMMAND": "VERSION"}
    assert os.fstat(request.fds["p"]).st_ino == Path(OWN).stat().st_ino
    assert launcher.recv(1) == b"A"
    request.close()


def test_a_caller_that_went_away_instead_gets_nothing_done(ends: tuple[socket.socket, Caller]):
    launcher, served = ends
    ask(launcher)
    launcher.close()
    before = open_files()
    with pytest.raises((Refused, OSError)):
        served.request()
    assert open_files() == before


@pytest.mark.parametrize(
    ("how", "said"),
    [({"version": "0.0.1"}, "release 0.0.1"), ({"namespace": "4:1"}, "another network namespace")],
    ids=["another release", "another namespace"],
)
def test_a_request_that_is_not_for_us_is_refused_untaken(
    ends: tuple[socket.socket, Caller], how: dict[str, str], said: str
):
    launcher, served = ends
    ask(launcher, **how)
    before = open_files()
    with pytest.raises(Refused, match=said):
        served.request()
    assert open_files() == before
    launcher.setblocking(False)
    with pytest.raises(BlockingIOError):
        launcher.recv(1)


@pytest.mark.parametrize(("uid", "caps", "said"), [(65534, -1, "user 65534"), (os.geteuid(), 0, "lacks capabilities")])
def test_a_stranger_is_refused(
    ends: tuple[socket.socket, Caller], monkeypatch: pytest.MonkeyPatch, uid: int, caps: int, said: str
):
    launcher, served = ends
    monkeypatch.setattr(caller, "_own_capabilities", lambda: 1)
    monkeypatch.setattr(caller, "capabilities", lambda pid: caps)
    monkeypatch.setattr(caller, "_CREDENTIALS", FakeCredentials(uid))
    ask(launcher)
    with pytest.raises(Refused, match=said):
        served.request()


class FakeCredentials:
    size = 12

    def __init__(self, uid: int) -> None:
        self.uid = uid

    def unpack(self, raw: bytes) -> tuple[int, int, int]:
        return os.getppid(), self.uid, 0


@pytest.mark.parametrize("end", ["goes", "asks to stop", "has no time left"])
def test_a_call_ends_when_its_caller(ends: tuple[socket.socket, Caller], end: str):
    launcher, served = ends
    act = {"goes": launcher.close, "asks to stop": lambda: launcher.send(b"S"), "has no time left": lambda: None}
    with pytest.raises(KeyboardInterrupt):
        _mind(served, act[end], 1 if end == "has no time left" else 60)
    assert served.has_ended()


def _mind(served: Caller, act: Callable[[], object], seconds: int) -> None:
    with served.minded(seconds):
        act()
        time.sleep(5)


def test_a_call_whose_caller_went_before_it_began_does_not_begin(ends: tuple[socket.socket, Caller]):
    launcher, served = ends
    launcher.close()
    with pytest.raises(KeyboardInterrupt), served.minded(60):
        pytest.fail("it began")


def test_a_wake_up_that_means_nothing_ends_nothing(ends: tuple[socket.socket, Caller]):
    _, served = ends
    with served.minded(60):
        os.kill(os.getpid(), signal.SIGIO)
    assert not served.has_ended()


def test_the_exit_code_is_said_and_nobody_needs_to_hear_it(ends: tuple[socket.socket, Caller]):
    launcher, served = ends
    served.answer(3)
    assert launcher.recv(2) == b"X\x03"
    launcher.close()
    served.answer(3)
