"""What must be so of a history of several nodes (docs/histories.md). It reads nothing else: no kernel, no store, and no module of what is judged."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from math import inf
from typing import Any

#: How long after the last fault all is well again, and how long a call takes at most, in seconds.
CONVERGES, BOUND = 120.0, 120.0
#: How long others may go by what an address was before.
LAGS = 60.0
TRY_AGAIN, TAKEN = 11, 103

Line = dict[str, Any]


@dataclass
class Life:
    """A pod on a network: it surely lives from ADD's answer to DEL's beginning, and perhaps from ADD's beginning to DEL's answer."""

    container: str
    node: str
    network: str
    app: str
    perhaps_from: float
    addresses: set[str] = field(default_factory=set)
    since: float = inf
    until: float = inf
    perhaps_until: float = inf
    is_astray: bool = False

    def lives(self, began: float, ended: float) -> bool:
        """Whether it surely lived all the while."""
        return self.since <= began and ended <= self.until

    def may_live(self, began: float, ended: float) -> bool:
        """Whether it perhaps lived at a moment of it."""
        return self.perhaps_from <= ended and began <= self.perhaps_until


class History:
    """The lines, and the lives they tell of."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines: list[Line] = [json.loads(line) for line in lines]
        self.lives: dict[str, Life] = {}
        self._calls: dict[int, Line] = {}
        for line in self.lines:
            getattr(self, f"_{line['is']}", lambda _: None)(line)

    def of(self, kind: str) -> Iterator[Line]:
        """The lines of a kind."""
        return (line for line in self.lines if line["is"] == kind)

    def calls(self) -> Iterator[tuple[Line, Line | None]]:
        """Every call, and its answer."""
        answers = {line["call"]: line for line in self.of("answer")}
        return ((line, answers.get(line["call"])) for line in self.of("call"))

    def rests(self) -> Iterator[tuple[float, float, list[Line]]]:
        """From when to when nothing befell, and what was seen then."""
        began, seen = inf, list[Line]()
        for line in self.lines:
            if line["is"] == "rest":
                began, seen = line["at"], []
            elif line["is"] == "awake":
                yield began, line["at"], seen
                began = inf
            elif began < inf:
                seen.append(line)

    def _call(self, line: Line) -> None:
        self._calls[line["call"]] = line
        if line["verb"] == "ADD":
            self.lives[line["container"]] = Life(
                line["container"], line["node"], line["network"], line["app"], line["at"]
            )
        elif line["verb"] == "DEL" and (life := self.lives.get(line["container"])):
            life.until = min(life.until, line["at"])

    def _answer(self, line: Line) -> None:
        call = self._calls[line["call"]]
        life = self.lives.get(call["container"])
        if not life:
            return
        if call["verb"] == "ADD" and line["code"] == 0:
            life.addresses, life.since = set(line["addresses"]), line["at"]
        elif (call["verb"] == "ADD" and line["code"]) or (call["verb"] == "DEL" and line["code"] == 0):
            life.perhaps_until = min(life.perhaps_until, line["at"])

    def _gone(self, line: Line) -> None:
        life = self.lives[line["container"]]
        life.until, life.perhaps_until = min(life.until, line["began"]), min(life.perhaps_until, line["at"])

    def _astray(self, line: Line) -> None:
        lost = max((it["at"] for it in self.of("fault") if it.get("loses") and it["at"] <= line["at"]), default=inf)
        for life in map(self.lives.__getitem__, line["containers"]):
            life.until, life.perhaps_until, life.is_astray = (
                min(life.until, lost),
                min(life.perhaps_until, line["at"]),
                True,
            )


def faults(history: History, *, is_over: bool = True) -> list[str]:
    """All that is not as it must be; of a history that broke off, without what is so in the end only."""
    return [
        f"{rule.__name__.replace('_', ' ')}: {line}"
        for rule in RULES[: None if is_over else -AT_THE_END]
        for line in rule(history)
    ]


def two_have_one_address(history: History) -> Iterator[str]:
    """No two living pods have one."""
    by_address: dict[str, list[Life]] = {}
    for life in history.lives.values():
        for address in life.addresses:
            by_address.setdefault(address, []).append(life)
    for address, lives in by_address.items():
        lives.sort(key=lambda life: life.since)
        for number, one in enumerate(lives):
            for other in lives[number + 1 :]:
                if other.since < min(one.until, other.until):
                    yield f"{address}: {one.container} on {one.node} and {other.container} on {other.node}, at {other.since:.2f}"


def another_answers(history: History) -> Iterator[str]:
    """Nobody receives what is not theirs, whatever befalls the cluster."""
    for line in history.of("probe"):
        for address, answer in line["answers"].items():
            if answer is None or answer == line["from"]:
                continue
            life = history.lives.get(answer)
            theirs = (
                life and (address in life.addresses or life.since == inf) and life.may_live(line["began"], line["at"])
            )
            if not theirs:
                yield f"{answer} answers {line['from']}, who asked {address}, at {line['at']:.2f}"


def a_policy_lets_through(history: History) -> Iterator[str]:
    """Whom it denies gets no answer, by an address that nobody has had of late whom it lets in."""
    for policy in history.of("policy"):
        since = min((line["at"] for line in history.of("awake") if line["at"] > policy["at"]), default=inf)
        friends = [life for life in history.lives.values() if life.app in policy["from"]]
        for line in history.of("probe"):
            asker = history.lives.get(line["from"])
            if line["began"] < since or asker is None or asker.app in policy["from"]:
                continue
            if any(it.addresses & asker.addresses and it.may_live(line["began"] - LAGS, line["at"]) for it in friends):
                continue
            for address, answer in line["answers"].items():
                if answer and answer != line["from"] and history.lives[answer].app == policy["held"]:
                    yield f"{line['from']} ({asker.app}) hears {answer} ({policy['held']}) at {address}, at {line['at']:.2f}"


def all_is_well_after(history: History) -> Iterator[str]:
    """So soon after the last fault everybody hears everybody, but for whom a policy denies, and who is astray; and nodes send to who is there only."""
    for began, ended, seen in history.rests():
        if ended - began > CONVERGES:
            yield f"it took {ended - began:.0f} s, from {began:.2f} on"
        living = {
            address: life
            for life in history.lives.values()
            if life.lives(began, ended) and not life.is_astray
            for address in life.addresses
        }
        last = {
            (line["from"], address): line["answers"].get(address)
            for line in seen
            if line["is"] == "probe"
            for address in line["answers"]
        }
        astray = {life.container for life in history.lives.values() if life.is_astray}
        holds = {line["node"]: line["holds"] for line in seen if line["is"] == "kernel"}
        for asker in {line["from"] for line in seen if line["is"] == "probe"} - astray:
            for address, life in living.items():
                if _denied(history, asker, life, ended) or last.get((asker, address)) == life.container:
                    continue
                if _is_wayless(history, holds, asker, life, ip_address(address).version):
                    continue
                yield f"{asker} does not hear {life.container} on {life.node} at {address}, by {ended:.2f}"


def nodes_send_elsewhere(history: History) -> Iterator[str]:
    """At rest a node sends to a pod where it is, and to nobody who is not."""
    for began, ended, seen in history.rests():
        kernels = {line["node"]: line for line in seen if line["is"] == "kernel"}
        places = {vtep: node for node, line in kernels.items() for vtep in line["own"]}
        living = {
            address: life for life in history.lives.values() if life.lives(began, ended) for address in life.addresses
        }
        astray = {address for life in history.lives.values() if life.is_astray for address in life.addresses}
        ever = {address for life in history.lives.values() for address in life.addresses}
        for node, line in kernels.items():
            for address, vtep in line["far"].items():
                there = living.get(address)
                if address in astray:  # one of several addresses may be his still
                    continue
                if address in ever and (not there or places.get(vtep) != there.node):
                    yield f"{node} sends {address} to {places.get(vtep, vtep)}, and {there.node if there else 'nobody'} has it, at {line['at']:.2f}"
            for address, there in living.items():
                vtep = _routed(line["blocks"], address) if there.node != node else None
                if vtep and places.get(vtep) != there.node:
                    yield f"{node} routes {address} to {places.get(vtep, vtep)}, and {there.node} has it, at {line['at']:.2f}"


def _is_wayless(history: History, holds: dict[str, list[str]], asker: str, life: Life, family: int) -> bool:
    """Whether the host of one of them has no address of the other one's network, and so no way there, or none back."""
    other = history.lives.get(asker)
    ends = [(other.node if other else asker, life.network), *([(life.node, other.network)] if other else [])]
    return any(node in holds and f"{network} {family}" not in holds[node] for node, network in ends)


def _routed(blocks: dict[str, str | None], address: str) -> str | None:
    """Behind which tunnel's end the longest span is that has an address; none does where its network has other rows."""
    spans = [span for span in map(ip_network, blocks) if ip_address(address) in span]
    return blocks[str(max(spans, key=lambda span: span.prefixlen))] if spans else None


def an_address_is_lost(history: History) -> Iterator[str]:
    """All that were free once are free again."""
    first: dict[str, int] = {}
    for line in history.of("filled"):
        many = first.setdefault(line["network"], len(line["addresses"]))
        if len(line["addresses"]) != many:
            yield f"{line['network']}: {len(line['addresses'])} are to be had, and {many} were, at {line['at']:.2f}"


def a_call_is_not_answered(history: History) -> Iterator[str]:
    """An ADD is done, to be tried again, or all addresses are taken; the last DEL is done; both within so many seconds."""
    deleted: dict[str, Line | None] = {}
    small = {net["name"] for line in history.of("history") for net in line["networks"] if net["scarce"]}
    for call, answer in history.calls():
        words = f"{call['verb']} of {call['container']} on {call['node']} at {call['at']:.2f}"
        if not answer:
            yield f"{words}: no answer"
        elif answer["at"] - call["at"] > BOUND:
            yield f"{words}: {answer['at'] - call['at']:.0f} s"
        elif answer["code"] not in (None, 0, TRY_AGAIN) and (answer["code"], call["network"] in small) != (TAKEN, True):
            yield f"{words}: {answer['code']}, {answer['said']}"
        if call["verb"] == "DEL":
            deleted[call["container"]] = answer
    for container in history.lives:
        if not (last := deleted.get(container)) or last["code"] != 0:
            yield f"{container} was not deleted: {last}"


def something_is_left(history: History) -> Iterator[str]:
    """In the end there is nothing."""
    told = list(history.of("left"))
    yield from () if told else ("nobody looked",)
    yield from (what for line in told for what in line["what"])


def _denied(history: History, asker: str, life: Life, by: float) -> bool:
    """Whether a policy has somebody not be heard. Nodes are not asked about: their own pods hear them, others need not."""
    app = history.lives[asker].app if asker in history.lives else ""
    return asker != life.container and any(
        line["at"] <= by and life.app == line["held"] and app not in line["from"] for line in history.of("policy")
    )


RULES: tuple[Callable[[History], Iterator[str]], ...] = (
    two_have_one_address, another_answers, a_policy_lets_through, all_is_well_after, nodes_send_elsewhere,
    an_address_is_lost, a_call_is_not_answered, something_is_left,
)  # fmt: skip
#: How many of them are so in the end only.
AT_THE_END = 3
