"""Attachments that have their rules in their pods, and a node agent that is asked to hold them, played by a socket."""

from __future__ import annotations

import json
import math
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cni.kernel.errand import MARK, Errand
from cni.member import backoff, inside
from cni.member.inside import Inside
from cni.naming import Attachment
from cni.state.fed import Fed


def fed(name: str) -> Fed:
    return Fed(
        "cluster", Attachment("net", f"c-{name}", "eth0"), "macvlan", f"shop/{name}", Path("/run/x"), f"id:{name}"
    )


WEB, DB = fed("web"), fed("db")


class Agent:
    """What is asked of it, and answered when it is told to."""

    def __init__(self, path: Path) -> None:
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(str(path))
        self.listener.listen()
        self.listener.settimeout(10)
        self.asked: list[socket.socket] = []

    def names(self) -> list[str]:
        """The pods it is asked about next."""
        connection, _ = self.listener.accept()
        self.asked.append(connection)
        packet = connection.recv(1 << 16)
        assert packet.startswith(MARK)
        return [pod for _, _, _, pod, _, _ in json.loads(packet.removeprefix(MARK))]

    def answer(self, *said: Any) -> None:
        with self.asked.pop() as connection:
            if said:
                connection.send(json.dumps(said).encode())


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    monkeypatch.setattr(inside, "Errand", partial(Errand, path=tmp_path / "agent.sock"))
    made = Agent(tmp_path / "agent.sock")
    yield made
    made.listener.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1e6]
    monkeypatch.setattr(backoff.time, "monotonic", lambda: now[0])
    return now


def test_the_agent_is_asked_and_nobody_waits_for_it(agent: Agent):
    room = Inside()
    assert (room.look(), room.owed) == ((0, []), math.inf)
    room.add([WEB])
    assert room.look() == (0, [])
    assert agent.names() == ["shop/web"]
    room.add([DB])
    assert (room.look(), room.owed < 1) == ((0, []), True)
    agent.answer([0], [], {})
    assert room.look() == (1, [])
    assert agent.names() == ["shop/db"]
    agent.answer([], [], {})
    assert (room.look(), room.owed, room.known) == ((0, []), math.inf, {WEB, DB})


def test_who_a_call_is_at_comes_again_and_who_failed_after_a_while(agent: Agent, clock: list[float]):
    room = Inside()
    room.add([WEB, DB])
    room.look()
    assert agent.names() == ["shop/web", "shop/db"]
    agent.answer([], [0], {"1": "no room"})
    done, (error,) = room.look()
    assert (done, error.msg) == (0, "no room")
    assert agent.names() == ["shop/web"]
    agent.answer([0], [], {})
    assert room.look() == (1, [])
    assert 0 < room.owed <= 1
    clock[0] += 1
    assert room.look() == (0, [])
    assert agent.names() == ["shop/db"]
    agent.answer([0], [], {})
    assert (room.look(), room.owed) == ((1, []), math.inf)


def test_an_agent_that_hangs_up_is_asked_again(agent: Agent, clock: list[float]):
    room = Inside()
    room.add([WEB])
    room.look()
    assert agent.names() == ["shop/web"]
    agent.answer()
    done, (error,) = room.look()
    assert (done, "did not answer" in error.msg) == (0, True)
    clock[0] += 1
    room.look()
    assert agent.names() == ["shop/web"]


def test_without_an_agent_it_is_said_and_tried_again(agent: Agent, clock: list[float]):
    agent.listener.close()
    room = Inside()
    room.add([WEB])
    _, (error,) = room.look()
    assert "agent.sock" in error.msg
    assert 0 < room.owed <= 1
    assert room.look() == (0, [])
    assert len(room.look(all_of_it=True)[1]) == 1, "whenever it would be tried"
