"""The judge of histories: a right one holds, and each that is wrong in one way is refused for it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from crash.history import RULES, History, faults
from crash.second import Second

Line = dict[str, Any]
A, B, C = "10.10.0.2", "10.10.0.3", "10.10.0.4"


class Told:
    """A history, a second a line."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.calls = 0

    def say(self, what: str, /, **said: Any) -> None:
        self.lines.append({"at": float(len(self.lines)), "is": what} | said)

    def begin(self, verb: str, container: str, node: str = "n1", app: str = "plain") -> int:
        self.calls += 1
        self.say("call", call=self.calls, node=node, verb=verb, network="net", container=container, app=app)
        return self.calls

    def end(self, call: int, code: int | None = 0, *addresses: str) -> None:
        self.say("answer", call=call, code=code, addresses=list(addresses), said="so")

    def add(self, container: str, address: str, node: str = "n1", app: str = "plain") -> None:
        self.end(self.begin("ADD", container, node, app), 0, address)

    def delete(self, container: str, node: str = "n1") -> None:
        self.end(self.begin("DEL", container, node))

    def probe(self, asker: str, **answers: str | None) -> None:
        said = {{"a": A, "b": B, "c": C}[name]: answer for name, answer in answers.items()}
        self.say("probe", **{"from": asker, "began": len(self.lines) - 0.5, "answers": said})

    def kernel(self, node: str, blocks: dict[str, str] | None = None, **far: str) -> None:
        self.say(
            "kernel",
            node=node,
            own=[f"v{node}"],
            far={{"a": A, "b": B, "c": C}[name]: way for name, way in far.items()},
            blocks=blocks or {},
            holds=["net 4"],
        )


def right() -> Told:
    """Two pods on two nodes, one of which only a friend hears."""
    told = Told()
    told.say("history", networks=[{"name": "net", "scarce": True}])
    told.say("policy", held="held", **{"from": ["friend"]})
    told.say("filled", network="net", addresses=[A, B, C])
    told.add("x", A, "n1", "held")
    told.add("y", B, "n2", "friend")
    told.add("z", C, "n2")
    told.say("fault", fault=1, what="something", loses=False)
    told.say("mended", fault=1)
    told.say("rest")
    told.probe("y", a=None, b="y", c="z")
    told.probe("y", a="x", b="y", c="z")
    told.probe("x", a="x", b="y", c="z")
    told.probe("z", a=None, b="y", c="z")
    told.probe("n1", a="x", b="y", c="z")
    told.kernel("n1", b="vn2", c="vn2")
    told.kernel("n2", a="vn1")
    told.say("awake")
    return told


def over(told: Told, *containers: str) -> list[str]:
    """What is wrong of it once the pods are gone and everybody left."""
    for container, node in (("x", "n1"), ("y", "n2"), ("z", "n2")):
        told.delete(container, node)
    for container in containers:
        told.delete(container)
    told.say("filled", network="net", addresses=[A, B, C])
    told.say("left", what=[])
    return judged(told)


def judged(told: Told) -> list[str]:
    """What both judges say, who find fault by the same rules."""
    lines = [json.dumps(line) for line in told.lines]
    found = faults(History(lines))
    numbers = {rule.__name__.replace("_", " "): number for number, rule in enumerate(RULES, 1)}
    assert {number for number, _ in Second(lines).opinion()} == {numbers[line.split(":")[0]] for line in found}, found
    return found


def test_a_right_one_holds():
    assert over(right()) == []


def test_an_address_may_be_given_again_when_its_del_has_begun():
    told = right()
    told.add("v", "10.10.0.9")
    going = told.begin("DEL", "v")
    told.add("w", "10.10.0.9")
    told.end(going)
    assert over(told, "w") == []


@pytest.mark.parametrize("end", [None, 11])
def test_a_killed_add_may_have_had_any_address_and_a_refused_one_none(end: int | None):
    told = right()
    told.end(told.begin("ADD", "w"), end)
    told.probe("y", c="w")
    found = over(told, "w")
    assert len(found) == (0 if end is None else 1), found


def again(told: Told) -> None:
    told.add("w", A, "n2")


def anothers_answer(told: Told) -> None:
    told.probe("y", c="x")


def unknown_answer(told: Told) -> None:
    told.probe("y", c="nobody")


def answer_of_the_dead(told: Told) -> None:
    told.add("w", "10.10.0.9")
    told.delete("w")
    told.say("probe", **{"from": "y", "began": len(told.lines) - 0.5, "answers": {"10.10.0.9": "w"}})


def let_through(told: Told) -> None:
    told.probe("z", a="x")


def never_heard(told: Told) -> None:
    told.say("rest")
    told.probe("y", a="x", b="y", c=None)
    told.say("awake")


def heard_too_late(told: Told) -> None:
    told.say("rest")
    told.probe("y", a="x", b="y", c="z")
    told.lines.append({"at": len(told.lines) + 200.0, "is": "awake"})


def not_asked(told: Told) -> None:
    told.say("rest")
    told.probe("y", a="x", b="y")
    told.say("awake")


def stale(told: Told) -> None:
    told.add("w", "10.10.0.9")
    told.delete("w")
    told.say("rest")
    told.say("kernel", node="n2", own=["vn2"], far={"10.10.0.9": "vn1"}, blocks={}, holds=[])
    told.say("awake")


def elsewhere(told: Told) -> None:
    told.say("rest")
    told.kernel("n1", b="vn1")
    told.kernel("n2", a="vn1")
    told.say("awake")


def routed_elsewhere(told: Told) -> None:
    told.say("rest")
    told.kernel("n1", {"10.10.0.0/24": "vn2"})
    told.kernel("n2", {"10.10.0.0/24": "vn1", "10.10.0.2/31": "vn2"})
    told.say("awake")


def gone_while_another_comes(told: Told) -> None:
    told.add("w", "10.10.0.9")
    told.add("v", "10.10.0.9", "n2")
    told.say("gone", container="w", began=float(len(told.lines)))
    told.delete("w")
    told.delete("v")


def lost(told: Told) -> None:
    told.say("filled", network="net", addresses=[A, B])


def failed(told: Told) -> None:
    told.end(told.begin("ADD", "w"), 999)
    told.delete("w")


def hangs(told: Told) -> None:
    told.begin("ADD", "w")
    told.delete("w")


def slow(told: Told) -> None:
    call = told.begin("ADD", "w")
    told.lines.append(
        {"at": len(told.lines) + 200.0, "is": "answer", "call": call, "code": 11, "addresses": [], "said": ""}
    )
    told.delete("w")


def not_deleted(told: Told) -> None:
    told.add("w", "10.10.0.9")
    told.end(told.begin("DEL", "w"), 11)


def left(told: Told) -> None:
    told.say("left", what=["n1: link vxlan100"])


@pytest.mark.parametrize(
    ("breaks", "rule"),
    [
        (again, "two have one address"), (anothers_answer, "another answers"), (unknown_answer, "another answers"),
        (answer_of_the_dead, "another answers"), (let_through, "a policy lets through"), (never_heard, "all is well after"),
        (heard_too_late, "all is well after"), (not_asked, "all is well after"), (stale, "nodes send elsewhere"),
        (elsewhere, "nodes send elsewhere"), (routed_elsewhere, "nodes send elsewhere"), (gone_while_another_comes, "two have one address"), (lost, "an address is lost"), (failed, "a call is not answered"),
        (hangs, "a call is not answered"), (slow, "a call is not answered"), (not_deleted, "a call is not answered"),
        (left, "something is left"),
    ],
)  # fmt: skip
def test_one_that_is_wrong_is_refused(breaks: Callable[[Told], None], rule: str):
    told = right()
    breaks(told)
    found = over(told, *(["w"] if breaks == again else []))
    assert [line for line in found if line.startswith(f"{rule}: ")], found


def test_who_is_astray_since_the_store_forgot_holds_nothing_and_is_not_heard():
    def told(loses: bool, heard: str | None) -> list[str]:
        it = right()
        it.say("fault", fault=2, what="the store wiped", loses=loses)
        it.say("mended", fault=2)
        it.add("w", A, "n2")
        it.say("astray", containers=["x"])
        it.say("rest")
        it.probe("y", a=heard, b="y", c="z")
        it.probe("x", a=None, b=None, c=None)
        it.say("awake")
        return over(it, "w")

    assert told(True, "w") == []
    assert [line for line in told(False, "w") if "two have" in line]
    assert told(True, "x")


def test_who_did_not_look_has_not_seen_that_nothing_is_left():
    told = right()
    for container in ("x", "y", "z"):
        told.delete(container)
    assert judged(told) == ["something is left: nobody looked"]
