"""Whether one end reaches another, where it ends if not, and by whom: the way a packet takes, walked, and then taken by one."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any, NamedTuple

from cni.command.held import NOTHING, resolved
from cni.command.output import complain, print_json, say
from cni.command.reach.ends import End, Known
from cni.errors import InvalidConfig
from cni.kernel.listening import ANSWERED, REFUSED, SILENT
from cni.kernel.netns import Netns
from cni.policy.judgement import Judgement, Other, judged
from cni.reach.packet import asked
from cni.reach.place import Map
from cni.reach.seen import Seen
from cni.reach.verdict import DENIED, LOST, REACHED, UNKNOWN, Verdict, verdict
from cni.values import replace

_TO = re.compile(r"(?P<end>\[[0-9A-Fa-f:.]+\]|[^\[\]]+?)(:(?P<port>\d+))?(/(?P<protocol>tcp|udp|icmp))?", re.IGNORECASE)
_BARE = re.compile(
    r"(?P<end>[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)(?P<port>)(/(?P<protocol>icmp))?", re.IGNORECASE
)
#: What the chains of a pod's policy begin with.
_CHAINS = {"egress": "out-", "ingress": "in-"}
#: How long a packet is waited for that is expected, and one that is not, in seconds.
_PATIENCE, _SOON = 3.5, 1.5
_CODES = {REACHED: 0, DENIED: 1, LOST: 1, UNKNOWN: 2}


class _Asked(NamedTuple):
    """What is asked: an address of the other end, and what is sent there."""

    source: End
    target: End
    address: str
    protocol: str
    port: int

    def __str__(self) -> str:
        to = self.target.name if self.target.name == self.address else f"{self.target.name} ({self.address})"
        return f"{self.source.name} to {to}, {self.protocol}{f' {self.port}' if self.port else ''}"


class _Word(NamedTuple):
    """What documents and the configuration say at one end: `direction` is egress or ingress; `by_name` what allows the name alone."""

    direction: str
    name: str
    judgement: Judgement
    here: bool
    by_name: str = ""

    def __str__(self) -> str:
        return f"{self.way}{'' if self.here else ' (on another node, by the documents)'}: {self.judgement}"

    @property
    def way(self) -> str:
        """Out of whom, or into."""
        return f"{'out of' if self.direction == 'egress' else 'into'} {self.name}"

    @property
    def denied(self) -> str:
        """The same, where the state was said before."""
        return f"{self.way} {str(self.judgement).removeprefix('denied ')}"


class _Answer(NamedTuple):
    """The verdict, what documents say, what became of a packet, and the last word of all of it."""

    asked: _Asked
    found: Verdict
    words: tuple[_Word, ...]
    packet: str
    state: str
    line: str
    notes: tuple[str, ...]


def reach(options: argparse.Namespace) -> int:
    """Say whether one end reaches another, step by step, and prove it by a packet.

    FROM is namespace/name of a pod of this node, a container's id or its beginning, or node. TO is the same, an address, or a name; IPv6 is
    in brackets before a port. Without a port it is an echo (ICMP). Exit code 0: reached; 1: not; 2: not known from here.
    """
    said = _BARE.fullmatch(options.to) or _TO.fullmatch(options.to)
    port = int(said["port"] or 0) if said else 0
    protocol = ((said["protocol"] if said else "") or ("tcp" if port else "icmp")).lower()
    if said is None or port > 65535 or bool(port) is (protocol == "icmp") or _is_no_end(said["end"]):
        options.refuse(f"{options.to!r} is none of TO, TO:PORT, TO:PORT/udp, TO/icmp")
    assert said
    known = Known(options)
    complain(*(f"agent-cni: {line}" for line in known.faults))
    source, target = known.source(options.source), known.one(said["end"].strip("[]"))
    with ExitStack() as opened:
        places = _places(opened, known, source, target)
        pairs = _pairs(source, target, protocol, port, places)
        answers = [_answered(item, places, packet=options.packet) for item in pairs]
    if options.json:
        print_json([_object(answer) for answer in answers])
    else:
        for answer in answers:
            say(*_lines(answer))
    codes = {_CODES[answer.state] for answer in answers}
    return 1 if 1 in codes else max(codes)


def _is_no_end(text: str) -> bool:
    """Whether it has a colon that is no IPv6 address's: what stands behind it was to be a port."""
    return ":" in text and _BARE.fullmatch(text.strip("[]")) is None


def _pairs(source: End, target: End, protocol: str, port: int, places: dict[str, Seen]) -> list[_Asked]:
    """Each address that the source has a family for."""
    own = [address for held in places[source.name].addresses.values() for address in held]
    families = {
        ":" in address for address in (*own, *source.addresses) if not address.startswith(("127.", "::1", "fe80:"))
    }
    found = [_Asked(source, target, it, protocol, port) for it in target.addresses if (":" in it) in families]
    if not found:
        raise InvalidConfig(f"{source.name} and {target.name} have no addresses of one family")
    return found


def _places(opened: ExitStack, known: Known, source: End, target: End) -> dict[str, Seen]:
    """The node, the two ends, and every pod of it where nobody knows whose an address is: it may be a Service's."""
    others = () if target.netns or target.is_node else known.pods()
    found = {"node": opened.enter_context(closing(Seen("node")))}
    for end in (source, target, *others):
        if end.netns and end.name not in found:
            netns = Netns.if_there(end.netns)
            if netns:
                found[end.name] = opened.enter_context(closing(Seen(end.name, netns)))
            elif end in (source, target):
                raise InvalidConfig(f"the namespace of {end.name} is gone, agent-cni gc takes what it had")
    return found


def _answered(item: _Asked, places: dict[str, Seen], *, packet: bool) -> _Answer:
    source = places[item.source.name]
    target = places["node"] if item.target.is_node else places.get(item.target.name)
    found = verdict(Map(places.values()), source, target, asked("", item.address, item.protocol, item.port))
    words = tuple(_words(item, found))
    patience = _PATIENCE if found.state in (REACHED, UNKNOWN) else _SOON
    sent = source.tried(item.protocol, item.address, item.port, patience) if packet else ""
    state, line = _last(item, found, words, sent)
    return _Answer(item, found, words, sent, state, line, tuple(_notes(found, words, sent)))


def _words(item: _Asked, found: Verdict) -> Iterator[_Word]:
    """What each end's documents say, as `policy why` asks them."""
    own = found.source or next(iter(item.source.of_family(6 if ":" in item.address else 4)), "")
    if own == item.address:
        return
    ends = (("egress", item.source, item.target, item.address), ("ingress", item.target, item.source, own))
    for direction, end, far, address in ends:
        if end.pod and address:
            names = resolved(end.held, address) if end.held else frozenset()
            other = Other(address, far.pod, item.protocol, item.port, resolved=names)
            section, book = (end.held.section, end.held.book) if end.held else (None, NOTHING)
            if direction == "ingress" and far.is_node and end.held and (section is None or section.host_access):
                yield _Word(
                    direction, end.name, Judgement(True, "node", ("the configuration",), "$.policy.hostAccess"), True
                )
            else:
                judgement = judged(book, end.pod, direction, other, section)
                named = replace(other, name=far.domain)
                by_name = judged(book, end.pod, direction, named, section) if far.domain else judgement
                hint = "" if judgement.allowed or not by_name.allowed else f"{far.domain} is {by_name}"
                yield _Word(direction, end.name, judgement, bool(end.held), hint)


def _last(item: _Asked, found: Verdict, words: tuple[_Word, ...], sent: str) -> tuple[str, str]:
    """The state and its line: a packet that came back, or not, says more than what was expected."""
    state, why = found.state, found.why
    denying = [word for word in words if not word.judgement.allowed]
    if state == DENIED and denying and found.end and _is_policy(found):
        why = f"{denying[0].denied}; {why}"
    if sent in (ANSWERED, REFUSED) and not found.intercepted:
        state = REACHED
    elif sent and sent not in (SILENT, ANSWERED) and state in (REACHED, UNKNOWN):
        state, why = LOST, f"{sent} for a packet; {why}"
    elif sent == SILENT and item.protocol != "udp" and state in (REACHED, UNKNOWN) and not found.intercepted:
        state, why = LOST, f"no answer to a packet; {why}"
    mend = f"; mend: {found.mend}" if found.mend and state in (DENIED, LOST) and state == found.state else ""
    nobody = (
        ""
        if found.listens or found.listens is None or state != REACHED
        else f", nobody listens at {item.protocol} {item.port}"
    )
    return state, f"{state}{nobody}" if state == REACHED else f"{state}: {why}{mend}"


def _is_policy(found: Verdict) -> bool:
    ruling = found.end.ruling if found.end else None
    return bool(ruling and ruling.chain and "agent_cni_policy" in ruling.chain.table)


def _notes(found: Verdict, words: tuple[_Word, ...], sent: str) -> Iterator[str]:
    """Where rules are not what documents say, and where a packet fared otherwise than it was to."""
    denying = [word for word in words if not word.judgement.allowed and word.here]
    for word in denying:
        if word.by_name:
            yield f"{word.by_name}: it is let through once the pod itself has resolved that name"
    if found.state == REACHED and denying:
        yield f"documents deny it, and the kernel's rules let it through: agent-cni refresh ({denying[0]})"
    ways = [word for word in words if found.end and f"chain {_CHAINS[word.direction]}" in found.end.why]
    if _is_policy(found) and ways and all(word.judgement.allowed for word in ways):
        yield "documents allow it, and the kernel's rules do not: agent-cni refresh"
    arrived = sent in (ANSWERED, REFUSED)
    if sent and found.state != UNKNOWN and not found.intercepted:
        silent = sent == SILENT and found.listens and found.packet.protocol == "udp"
        if arrived is not (found.state == REACHED) and not silent:
            yield f"this is not what was expected ({found.state}: {found.why}): a fault of agent-cni, please report it"


def _lines(answer: _Answer) -> Iterator[str]:
    found = answer.found
    yield f"{answer.asked}"
    if answer.asked.target.found:
        yield f"  name: {answer.asked.target.found}"
    yield from (f"  {hop.where}: {hop.says}" for hop in found.hops)
    yield from (f"  policy: {word}" for word in answer.words)
    if found.back:
        yield from (f"  answer, {hop.where}: {hop.says}" for hop in found.back)
    yield from (f"  not judged: {doubt}" for doubt in dict.fromkeys(found.doubts))
    if answer.packet:
        yield f"  packet: {answer.packet}"
    yield from (f"  note: {note}" for note in answer.notes)
    yield f"{answer.line}"


def _object(answer: _Answer) -> dict[str, Any]:
    item, found = answer.asked, answer.found
    return {
        "from": item.source.name, "to": item.target.name, "address": item.address, "protocol": item.protocol,
        "port": item.port, "name": item.target.found, "state": answer.state, "says": answer.line,
        "expected": {"state": found.state, "why": found.why, "mend": found.mend, "listens": found.listens},
        "hops": [hop._asdict() for hop in found.hops], "back": [hop._asdict() for hop in found.back],
        "policies": [str(word) for word in answer.words], "not judged": list(dict.fromkeys(found.doubts)),
        "packet": answer.packet, "notes": list(answer.notes),
    }  # fmt: skip
