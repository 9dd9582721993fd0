"""What a worker makes of one call, its launcher played by the other end of a socket pair."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from cni import __version__, together
from cni.agent import peer, worker
from cni.agent.caller import Caller
from cni.agent.request import PROTOCOL
from cni.agent.scoreboard import Scoreboard
from cni.agent.worker import Terms, Worker
from cni.kernel import netns
from cni.kernel.errand import MARK
from cni.kernel.signals import ENDING


class Launcher:
    """The other end, which answers as launcher.c does; `stops` is when it passes a signal on."""

    def __init__(
        self, end: socket.socket, environ: dict[str, str], stdin: str = "", stops: str = "never", more: str = ""
    ) -> None:
        self.end, self.stdin, self.stops, self.more = end, stdin, stops, more
        self.packets: list[bytes] = []
        texts = [PROTOCOL, __version__, sys.prefix, "/opt/cni/bin/macvlan", *(f"{k}={v}" for k, v in environ.items())]
        end.send("".join(f"{text}\0" for text in texts).encode())
        self._thread = threading.Thread(target=self._act, daemon=True)
        self._thread.start()

    def _act(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # what a worker holds back must not come to another thread
        with suppress(ConnectionError):
            if self.end.recv(1) == b"A":
                self._call()

    def _call(self) -> None:
        out, into = os.pipe()
        os.write(into, self.stdin.encode())
        os.close(into)
        socket.send_fds(self.end, [b"G02" + self.more.encode()], [out, 2, *([out] * len(self.more))])
        os.close(out)
        if self.stops == "after GO":
            self.end.send(b"S")
        while packet := self.end.recv(1 << 18):
            self.packets.append(packet)
            if len(packet) > 2:
                if self.stops == "before it printed":
                    self.end.send(b"S")
                self.end.send(b"P\0")

    def said(self) -> list[bytes]:
        """Everything it was told, once the connection is closed."""
        self._thread.join(60)
        return self.packets


def served(environ: dict[str, str], **how: str) -> tuple[bool, list[bytes]]:
    """Whether the worker is as before, and what it said."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    serving = Worker(ours, ours, Scoreboard(1).claim(), lambda: True, Terms(60))
    launcher = Launcher(its, environ, **how)
    with ours:
        fit = serving._converse(Caller(ours))
    said = launcher.said()
    its.close()
    return fit, said


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir("/")
    before = {number: signal.getsignal(number) for number in ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def document(packet: bytes) -> dict[str, Any]:
    assert packet[:1] == b"X"
    return json.loads(packet[2:])


def test_a_document_and_its_code_are_one_packet():
    fit, (answer, end) = served({"CNI_COMMAND": "NONSENSE"})
    assert fit
    assert (answer[1], document(answer)["code"]) == (1, 4)
    assert end == b"X\x01"


def in_place() -> list[object]:
    """What a worker has of its own: its streams, its folder, no namespace of a caller's, and how many descriptors."""
    streams = [(os.fstat(number).st_dev, os.fstat(number).st_ino) for number in (0, 2)]
    return [streams, os.getcwd(), dict(netns.handed_over), worker._next_descriptor()]  # noqa: PTH109


def test_a_folder_nobody_can_be_in_is_told_and_everything_is_taken_back():
    before = in_place()
    fit, (answer, end) = served({"CNI_COMMAND": "NONSENSE"}, more="d")
    assert not fit
    assert (answer[1], document(answer)["code"]) == (1, 11)
    assert document(answer)["msg"] == "the call could not begin: Not a directory"
    assert end == b"X\x01"
    assert in_place() == before


def test_a_namespace_for_which_there_is_no_path_is_nobodys():
    before = in_place()
    fit, (answer, _) = served({"CNI_COMMAND": "NONSENSE"}, more="p")
    assert fit
    assert document(answer)["code"] == 4
    assert in_place() == before


def test_a_signal_in_the_moment_after_go_is_one_document_that_asks_to_try_again(monkeypatch: pytest.MonkeyPatch):
    in_place = worker._in_place_of
    monkeypatch.setattr(worker, "_in_place_of", lambda request: (time.sleep(0.2), in_place(request))[1])
    fit, (answer, end) = served({"CNI_COMMAND": "DEL"}, stdin="{}", stops="after GO")
    assert not fit
    assert (answer[1], document(answer)["code"], document(answer)["cniVersion"]) == (1, 11, "1.1.0")
    assert "before it began" in document(answer)["msg"]
    assert end == b"X\x01"


def test_a_signal_that_crosses_the_document_leaves_one_document():
    fit, said = served({"CNI_COMMAND": "ADD"}, stops="before it printed")
    assert not fit
    assert [document(packet)["code"] for packet in said if len(packet) > 2] == [4]


@pytest.mark.parametrize("room", ["little", "none"])
def test_a_call_that_could_have_too_few_descriptors_is_not_taken(monkeypatch: pytest.MonkeyPatch, room: str):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = worker._next_descriptor() + (20 if room == "little" else 8)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, hard))
    assert served({"CNI_COMMAND": "NONSENSE"}) == (True, [])


def test_a_table_without_a_free_descriptor_is_no_room():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = worker._next_descriptor()
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken, before[1]))
    try:
        assert worker._room() <= 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert worker._room() > 0


def errand(question: bytes) -> tuple[bool, bytes]:
    """Whether the worker is as before after somebody asked it, and what it answered."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    serving = Worker(ours, ours, Scoreboard(1).claim(), lambda: True, Terms(60))
    its.send(MARK + question)
    with ours:
        fit = serving._converse(Caller(ours))
    with its, suppress(ConnectionError):
        return fit, its.recv(1 << 10)
    return fit, b""


def test_who_may_do_less_has_rules_held_in_pods(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(peer, "_own_capabilities", lambda: -1)  # more than anybody's
    monkeypatch.setattr(together, "answer", lambda asked: b"about " + asked)
    assert errand(b"web") == (True, b"about web")
    assert served({"CNI_COMMAND": "NONSENSE"})[1] == [], "and has no call made"


def test_another_user_is_told_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setattr(together, "answer", lambda asked: pytest.fail("was asked"))
    assert errand(b"web") == (True, b"")
