"""An Rtnl whose channel keeps what is asked for and answers what it is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

from cni.kernel.netlink import handle
from cni.kernel.netlink.reachability import Asking


class Line:
    """In place of a Channel: every change is made, every question has the next of the answers."""

    at_rest = True

    def __init__(self, *answers: bytes) -> None:
        self.requests: list[bytes] = []
        self._answers = list(answers)

    def refusals(self, requests: list[bytes]) -> list[None]:
        self.requests += requests
        return [None for _ in requests]

    def question(self, request: bytes) -> bytes:
        self.requests.append(request)
        return self._answers.pop(0)

    def ask(self, request: bytes) -> list[bytes]:
        self.requests.append(request)
        return self._answers


def speaking(line: Line) -> Asking:
    with mock.patch.object(handle, "Channel", return_value=line):
        return Asking()


def requests_of(speak: Callable[[Asking], Any], *answers: bytes) -> list[bytes]:
    """What is asked of the kernel meanwhile, in order."""
    line = Line(*answers)
    speak(speaking(line))
    return line.requests


def request_of(speak: Callable[[Asking], Any], *answers: bytes) -> bytes:
    """The only thing that is asked meanwhile."""
    (request,) = requests_of(speak, *answers)
    return request
