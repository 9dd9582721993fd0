"""The connection to a launcher, played by the other end of a socket pair."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cni import __version__
from cni.agent import peer
from cni.agent.caller import Caller
from cni.agent.peer import Peer
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


def ask(launcher: socket.socket, version: str = __version__) -> None:
    texts = (PROTOCOL, version, sys.prefix, "/opt/cni/bin/macvlan", "CNI_COMMAND=VERSION")
    launcher.send("".join(f"{text}\0" for text in texts).encode())


def elsewhere(act: Callable[[], object]) -> int:
    """Do something in a process of its own; its number."""
    child = os.fork()
    if child == 0:
        act()
        os._exit(0)
    return child


def answering(launcher: socket.socket, *answers: bytes, heard: list[bytes]) -> threading.Thread:
    """A launcher that answers what it hears, one for one."""

    def act() -> None:
        for answer in answers:
            heard.append(launcher.recv(1 << 20))
            launcher.send(answer)

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    return thread


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_request_is_taken_once_the_caller_said_go(ends: tuple[socket.socket, Caller]):
    launcher, served = ends
    heard = list[bytes]()

    def go() -> None:
        heard.append(launcher.recv(1))
        with Path(OWN).open() as file:
            socket.send_fds(launcher, [b"Gp"], [file.fileno()])

    ask(launcher)
    threading.Thread(target=go, daemon=True).start()
    request = served.request()
    assert request.environ == {"CNI_COMMAND": "VERSION"}
    assert os.fstat(request.fds["p"]).st_ino == Path(OWN).stat().st_ino
    assert not os.get_inheritable(request.fds["p"])
    assert heard == [b"A"]
    request.close()


def test_a_go_nobody_was_asked_for_is_refused_untaken(ends: tuple[socket.socket, Caller]):
    launcher, served = ends
    ask(launcher)
    launcher.send(b"G")
    with pytest.raises(Refused, match="did not wait"):
        served.request()
    launcher.setblocking(False)
    with pytest.raises(BlockingIOError):
        launcher.recv(1)


def test_a_go_another_process_says_is_nobodys(ends: tuple[socket.socket, Caller]):
    launcher, served = ends

    def go() -> None:
        launcher.recv(1)
        with Path(OWN).open() as file:
            socket.send_fds(launcher, [b"Gp"], [file.fileno()])

    ask(launcher)
    child, before = elsewhere(go), open_files()
    with pytest.raises(Refused, match="withdrew"):
        served.request()
    assert open_files() <= before
    os.waitpid(child, 0)


def test_what_a_process_said_that_ended_since_is_nobodys(tmp_path: Path):
    def act() -> None:
        kept.connect(str(tmp_path / "sock"))
        kept.recv(1)
        with Path(OWN).open() as file:
            socket.send_fds(kept, [b"Gp"], [file.fileno()])
        kept.recv(1)

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "sock"))
        listener.listen()
        heard = []
        for ends in (False, True):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as kept:
                child = elsewhere(act)
                connection, _ = listener.accept()
            with connection, closing(Peer(connection)) as seen:
                connection.send(b"A")
                assert select.select([connection], [], [], 5)[0]
                if ends:
                    os.kill(child, signal.SIGKILL)
                    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
                said, fds = seen.heard(9)
                heard.append((said, len(fds)))
                for fd in fds:
                    os.close(fd)
            os.waitpid(child, 0)
    assert heard == [(b"Gp", 1), (b"", 0)]


@pytest.mark.parametrize("reaped", [True, False], ids=["gone", "a zombie"])
def test_a_process_that_ended_is_nobody(tmp_path: Path, reaped: bool):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "sock"))
        listener.listen()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as kept:
            child = elsewhere(lambda: (kept.connect(str(tmp_path / "sock")), ask(kept)))
            os.waitid(os.P_PID, child, os.WEXITED | (0 if reaped else os.WNOWAIT))
            with listener.accept()[0] as connection, pytest.raises((Refused, OSError)):
                Caller(connection).request()
    if not reaped:
        os.waitpid(child, 0)


def test_a_caller_that_went_away_instead_gets_nothing_done(ends: tuple[socket.socket, Caller]):
    launcher, served = ends
    ask(launcher)
    launcher.close()
    before = open_files()
    with pytest.raises((Refused, OSError)):
        served.request()
    assert open_files() <= before


@pytest.mark.parametrize(
    ("how", "said"),
    [({"version": "0.0.1"}, "release 0.0.1")],
    ids=["another release"],
)
def test_a_request_that_is_not_for_us_is_refused_untaken(
    ends: tuple[socket.socket, Caller], how: dict[str, str], said: str
):
    launcher, served = ends
    ask(launcher, **how)
    before = open_files()
    with pytest.raises(Refused, match=said):
        served.request()
    assert open_files() <= before
    launcher.setblocking(False)
    with pytest.raises(BlockingIOError):
        launcher.recv(1)


@pytest.mark.parametrize(("uid", "caps", "said"), [(65534, -1, "user 65534"), (os.geteuid(), 0, "lacks capabilities")])
def test_a_stranger_is_refused(
    ends: tuple[socket.socket, Caller], monkeypatch: pytest.MonkeyPatch, uid: int, caps: int, said: str
):
    launcher, served = ends
    monkeypatch.setattr(peer, "_own_capabilities", lambda: 1)
    monkeypatch.setattr(peer, "capabilities", lambda pid: caps)
    monkeypatch.setattr(peer, "_CREDENTIALS", FakeCredentials(uid))
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
    with served.watched(seconds):
        act()
        time.sleep(60)


def test_a_call_whose_caller_went_before_it_began_does_not_begin(ends: tuple[socket.socket, Caller]):
    launcher, served = ends
    launcher.close()
    with pytest.raises(KeyboardInterrupt), served.watched(60):
        pytest.fail("it began")


def test_a_wake_up_that_means_nothing_ends_nothing(ends: tuple[socket.socket, Caller]):
    _, served = ends
    with served.watched(60):
        os.kill(os.getpid(), signal.SIGIO)
    assert not served.has_ended()


def test_the_exit_code_is_said_and_nobody_needs_to_hear_it(ends: tuple[socket.socket, Caller]):
    launcher, served = ends
    served.end(3)
    assert launcher.recv(2) == b"X\x03"
    launcher.close()
    served.end(3)


@pytest.mark.parametrize("size", [3, 32 << 10, (32 << 10) + 1, 3 << 20])
def test_a_document_goes_whole_and_with_its_code(ends: tuple[socket.socket, Caller], size: int):
    launcher, served = ends
    got = list[bytes]()

    def launch() -> None:
        said, fds, _, _ = socket.recv_fds(launcher, 1 << 20, 1)
        for fd in fds:
            said += os.pread(fd, size + 1, 0)
            os.close(fd)
        got.append(said)
        launcher.send(b"P\0")

    thread = threading.Thread(target=launch, daemon=True)
    thread.start()
    before, document = open_files(), os.urandom(size)
    served.print(7, document)
    thread.join(60)
    assert got == [b"X\x07" + document]
    assert open_files() <= before


def test_why_a_document_is_not_printed_is_known(ends: tuple[socket.socket, Caller]):
    launcher, served = ends
    answering(launcher, b"P" + bytes([errno.ENOSPC]), heard=[])
    with pytest.raises(OSError, match="No space left") as raised:
        served.print(0, b"{}")
    assert raised.value.errno == errno.ENOSPC


@pytest.mark.parametrize("answer", [b"", b"P", b"A", b"X\0"])
def test_a_launcher_that_goes_or_answers_nonsense_has_printed_nothing(
    ends: tuple[socket.socket, Caller], answer: bytes
):
    launcher, served = ends
    if answer:
        launcher.send(answer)
    else:
        launcher.close()
    with pytest.raises(ConnectionError):
        served.print(0, b"{}")


def test_a_wish_to_stop_that_crosses_the_document_is_not_taken_for_an_answer(ends: tuple[socket.socket, Caller]):
    launcher, served = ends
    launcher.send(b"S")
    launcher.send(b"P\0")
    served.print(0, b"{}")
    assert served.has_ended(), "the worker is to be replaced"


def test_the_answer_that_a_document_was_printed_ends_no_call(ends: tuple[socket.socket, Caller]):
    launcher, served = ends
    heard = list[bytes]()
    answering(launcher, b"P\0", b"P\0", heard=heard)
    with served.watched(60):
        for _ in range(2):
            served.print(1, b"{}")
    assert heard == [b"X\x01{}"] * 2
    assert not served.has_ended()
