"""What a worker takes down of a call, and that nobody waits for who reads it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from cni import log
from cni.agent import spans
from cni.agent.spans import Spans
from cni.errors import RangeExhausted
from cni.main import Stdout
from cni.protocol.trace import parent_of

TRACE, ABOVE = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{ABOVE}-01"
ADD = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0"}


class Thing:
    """A resource, as far as a step says of it."""

    kind = "Thing"

    def describe(self) -> str:
        return "a thing"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    out, into = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (out, into):
        end.setblocking(False)
    with out, into:
        yield out, into


def taken(out: socket.socket) -> dict[str, Any]:
    return json.loads(out.recv(1 << 20))


def nothing(out: socket.socket) -> bool:
    with pytest.raises(BlockingIOError):
        out.recv(1)
    return True


@pytest.mark.parametrize("parent", [PARENT, "", "nonsense"])
def test_within_a_call_others_are_told_of_its_span(pair: Any, parent: str):
    out, into = pair
    environ = ADD | {"TRACEPARENT": parent, "TRACESTATE": "v=1", "BAGGAGE": "a=1"}
    taking = Spans(into, steps=False)
    with taking.of(environ, "/opt/cni/bin/macvlan", Stdout(lambda *_: None)):
        within = parent_of(environ)
    assert nothing(out), "before it is answered"
    taking.hand_over()
    said = taken(out)
    (span,) = said["spans"]
    assert within
    assert (within.trace, within.span, within.flags) == (said["trace"], span["own"], 1)
    assert (span["name"], span["error"], span["began"] <= span["ended"]) == ("ADD macvlan", "", True)
    whole = {"traceparent": PARENT, "tracestate": "v=1", "baggage": "a=1"}
    assert said["carried"] == (whole if parent == PARENT else {"baggage": "a=1"})
    assert (said["trace"] == TRACE, span["parent"]) == ((True, ABOVE) if parent == PARENT else (False, ""))
    taking.hand_over()
    assert nothing(out), "nothing twice"


@pytest.mark.parametrize(
    "environ",
    [{"TRACEPARENT": PARENT[:-1] + "0"}, {"CNI_COMMAND": "VERSION"}, {"CNI_COMMAND": "X"}, {"CNI_COMMAND": "STATUS"}],
    ids=["that its caller does not keep", "of a constant", "of nonsense", "that is asked every few seconds"],
)
def test_no_span_is_made_of_a_call(pair: Any, environ: dict[str, str]):
    out, into = pair
    before = ADD | environ
    environ = dict(before)
    taking = Spans(into, steps=True)
    with taking.of(environ, "macvlan", Stdout(lambda *_: None)):
        if before["CNI_COMMAND"] != "STATUS":
            assert environ == before
    taking.hand_over()
    assert nothing(out)


def test_steps_are_within_each_other(pair: Any):
    out, into = pair
    environ = ADD | {"TRACEPARENT": PARENT}
    taking = Spans(into, steps=True)
    with suppress(RangeExhausted), taking.of(environ, "macvlan", Stdout(lambda *_: None)):
        log.event("bridge-vxlan", "ADD", network="pods")
        with log.step("ensure", [Thing(), Thing()]), log.step("ADD", ["host-local"]):
            inner = environ["TRACEPARENT"]
            raise RangeExhausted("no address is left")
    assert log.listener is None
    assert log.step("ensure", []) is not log.step("ensure", []), "and nobody takes down what comes after it"
    taking.hand_over()
    call, ensured, asked = taken(out)["spans"]
    assert [span["name"] for span in (call, ensured, asked)] == ["ADD bridge-vxlan", "ensure Thing", "ADD host-local"]
    assert (ensured["parent"], asked["parent"]) == (call["own"], ensured["own"])
    assert inner == f"00-{TRACE}-{asked['own']}-01"
    assert ensured["attributes"] == {"cni.resources": ["a thing", "a thing"], "cni.resources.count": 2}
    assert [ensured["error"], asked["error"]] == ["no address is left"] * 2
    assert call["attributes"]["cni.network"] == "pods"


def test_of_many_steps_the_first_are_told_and_the_rest_counted(pair: Any, monkeypatch: pytest.MonkeyPatch):
    out, into = pair
    monkeypatch.setattr(spans, "_MOST", 4)
    taking = Spans(into, steps=True)
    with taking.of(dict(ADD), "macvlan", Stdout(lambda *_: None)):
        for _ in range(10):
            with log.step("remove", [Thing()]):
                pass
    taking.hand_over()
    call, *steps = taken(out)["spans"]
    assert (len(steps), call["attributes"]["cni.steps.left_out"]) == (3, 7)


def test_where_who_reads_is_behind_they_are_lost_and_counted(pair: Any):
    out, into = pair
    taking = Spans(into, steps=False)
    handed = 0
    while not taking._lost:
        with taking.of(dict(ADD), "macvlan", Stdout(lambda *_: None)):
            pass
        taking.hand_over()
        handed += 1
        assert handed < 100_000
    read = 0
    with suppress(BlockingIOError):
        while taken(out)["lost"] == 0:
            read += 1
    assert read == handed - 1
    with taking.of(dict(ADD), "macvlan", Stdout(lambda *_: None)):
        pass
    taking.hand_over()
    assert taken(out)["lost"] == 1
    assert taking._lost == 0


def test_a_failure_is_the_documents(pair: Any):
    out, into = pair
    stdout, taking = Stdout(lambda *_: None), Spans(into, steps=False)
    with taking.of(ADD | {"CNI_COMMAND": "STATUS"}, "macvlan", stdout):
        stdout.fail(RangeExhausted("no address is left"))
    taking.hand_over()
    (span,) = taken(out)["spans"]
    assert (span["error"], span["attributes"]["error.type"]) == ("no address is left", str(RangeExhausted.code))
