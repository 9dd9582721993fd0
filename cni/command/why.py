"""Why a connection passes, or does not: the word of each end, with the document, rule and tier that decide."""

from __future__ import annotations

import argparse
import ipaddress
import re
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any, NamedTuple

from cni.command.held import NOTHING, Held, books_of, held_of, resolved
from cni.command.output import print_json, say
from cni.errors import InvalidConfig
from cni.kernel.gatedir import Entry
from cni.kernel.netlink import Rtnl
from cni.policy.book import Book
from cni.policy.domains import pattern
from cni.policy.judgement import Judgement, Other, judged
from cni.policy.model import Policy
from cni.policy.objects import Pod
from cni.resources import AskingPod

_VERBS = {True: "allowed", False: "denied"}
_WAYS = {"egress": "out of", "ingress": "into"}
_QUESTIONS = {"asked": "let through", "refused": "refused", "nowhere": "answered that there is no such name"}
_BY_THE_NODE = Judgement(True, "node", ("the configuration",), "$.policy.hostAccess")
_TO = re.compile(
    r"(?P<end>\[[0-9A-Fa-f:.]+\]|[^:\[\]]+?)(:(?P<port>[^:/]+))?(/(?P<protocol>tcp|udp|sctp|icmp))?", re.IGNORECASE
)


class _End(NamedTuple):
    """An end that somebody asks about: `said`, its addresses, whose it is as far as that is known, and how it is held if it is of this
    node. The `name` of a domain has whichever address it is resolved to, and none here.
    """

    said: str
    addresses: tuple[str, ...]
    pod: Pod | None = None
    book: Book = NOTHING
    held: Held | None = None
    name: str = ""

    @property
    def here(self) -> bool:
        """Whether it is of this node."""
        return self.held is not None

    @property
    def section(self) -> Policy | None:
        """What its network's configuration says."""
        return self.held.section if self.held else None

    def __str__(self) -> str:
        return f"{self.said} ({self.addresses[0]})" if self.pod else self.said

    @property
    def address(self) -> str:
        """The one it is asked about by; empty of a name."""
        return self.addresses[0] if self.addresses else ""

    def narrowed(self, said: str) -> _End:
        """This end by one address, if that was said."""
        return self._replace(addresses=(said,)) if said in self.addresses else self

    def by_address(self) -> Iterator[_End]:
        """The same by each of its addresses."""
        return (self._replace(addresses=(address,)) for address in self.addresses)


class _Connection(NamedTuple):
    """What is asked: two ends, each by one of its addresses, and the port of the second."""

    source: _End
    target: _End
    protocol: str
    port: int

    def __str__(self) -> str:
        return f"{self.source} to {self.target}, {self.protocol}{f' {self.port}' if self.port else ''}"


def why(options: argparse.Namespace) -> int:
    """Print which document lets a connection through, or does not, at either end.

    An end is namespace/name or an address, IPv6 in brackets before a port; TO may be the name of a domain. A port is a number, or its
    name in the pod. Of what is not TCP it says TO:PORT/udp, TO:PORT/sctp or TO/icmp.
    """
    held, _ = held_of(options)
    said = _TO.fullmatch(options.to)
    to, port_said, protocol = (
        (said["end"], said["port"], (said["protocol"] or "tcp").lower()) if said else ("", None, "")
    )
    if (port_said is None) is not (protocol == "icmp"):
        options.refuse(f"{options.to!r} is none of TO:PORT, TO:PORT/udp, TO:PORT/sctp, TO/icmp")
    source, target = (_end(text.strip("[]"), held) for text in (options.source, to))
    port = _port(port_said, protocol, target) if port_said else 0
    if source.name:
        raise InvalidConfig(f"{source.said!r} is no address, and no pod that this node or a feed knows of")
    found = list(_connections(source, target, protocol, port))
    if not found:
        unknown = [end.said for end in (source, target) if not end.addresses]
        if unknown:
            raise InvalidConfig(
                f"no address of {' and '.join(unknown)} is known: no pod of this node by that name, and neither an endpoint of the cluster nor its Pod object (status.podIPs) says one"
            )
        raise InvalidConfig(f"{source.said} and {target.said} have no addresses of one family")
    answers = [_answer(item) for item in found]
    if options.json:
        print_json(answers)
    else:
        for item, answer in zip(found, answers, strict=True):
            say(f"{item}: {_VERBS[answer['allowed']]}", *(f"  {end['says']}" for end in answer["ends"]))
            if answer["question"]:
                say(f"  its question for {item.target.name}: {_QUESTIONS[answer['question']]}")
    return 0 if all(answer["allowed"] for answer in answers) else 1


def _connections(source: _End, target: _End, protocol: str, port: int) -> Iterator[_Connection]:
    """What is asked by each pair of addresses; to a name once."""
    for one in source.by_address():
        if target.name:
            yield _Connection(one, target, protocol, port)
            return
        for other in target.by_address():
            if (":" in one.address) is (":" in other.address):
                yield _Connection(one, other, protocol, port)


def _end(text: str, held: list[Held]) -> _End:
    """A pod of this node, one that a feed knows, or an address of whomever."""
    for item in held:
        if text in (item.name, *item.pod.addresses):
            return _End(item.name, item.pod.addresses, item.pod, item.book, item).narrowed(text)
    for book in books_of(held):
        for pod in (*book.pods(), *book.unknown_pods()):
            if text in (name := f"{pod.namespace}/{pod.name}", *pod.addresses):
                return _End(name, pod.addresses, pod, book).narrowed(text)
    with suppress(ValueError):
        return _End(text, (str(ipaddress.ip_address(text)),))
    if "." in text and not set("/*") & set(text):
        return _End(text, (), name=pattern(text, "TO"))
    raise InvalidConfig(f"{text!r} is no address, no domain's name, and no pod that this node or a feed knows of")


def _port(text: str, protocol: str, target: _End) -> int:
    if text.isascii() and text.isdecimal() and 0 < int(text) < 1 << 16:
        return int(text)
    ports = target.pod.ports if target.pod else ()
    numbers = [number for port, number in ports if (port.protocol, port.name) == (protocol, text)]
    if not numbers:
        raise InvalidConfig(f"{target.said} has no {protocol} port {text!r}")
    return numbers[0]


def _is_node(address: str) -> bool:
    """Whether it is an address of this node itself, whose pods no document keeps it from."""
    with closing(Rtnl()) as rtnl:
        return bool(rtnl.holding(ipaddress.ip_address(address)))


def _answer(asked: _Connection) -> dict[str, Any]:
    ends = [
        _word(*item, asked)
        for item in ((asked.source, "egress", asked.target), (asked.target, "ingress", asked.source))
        if item[0].pod
    ]
    return {
        "from": {"name": asked.source.said, "address": asked.source.addresses[0]},
        "to": {"name": asked.target.said, "address": asked.target.address},
        "protocol": asked.protocol,
        "port": asked.port,
        "allowed": all(end["allowed"] for end in ends),
        "ends": ends,
        "question": _question(asked.source.held, asked.target.name),
    }


def _question(held: Held | None, name: str) -> str:
    """What becomes of a pod's question for a name; nothing where nobody judges its questions."""
    told = [item for item in held.record.resources if isinstance(item, AskingPod)] if held and name else []
    if not told:
        return ""
    from cni.dnsgate.guest import Guest, labels_of  # which reads DNS, and few ask that

    return Guest(Entry(**vars(told[0]))).ruling(labels_of(name)).value


def _word(end: _End, direction: str, far: _End, asked: _Connection) -> dict[str, Any]:
    """What one end says."""
    assert end.pod
    of_names = resolved(end.held, far.address) if end.held and far.address else frozenset()
    other = Other(far.address, far.pod, asked.protocol, asked.port, far.name, of_names)
    let_in = direction == "ingress" and end.here and (end.section is None or end.section.host_access)
    if let_in and far.pod is None and _is_node(far.addresses[0]):
        found = _BY_THE_NODE
    else:
        found = judged(end.book, end.pod, direction, other, end.section)
    elsewhere = "" if end.here else " (on another node, by the documents)"
    return {
        "pod": end.said,
        "direction": direction,
        "allowed": found.allowed,
        "tier": found.tier,
        "documents": list(found.documents),
        "rule": found.rule,
        "here": end.here,
        "says": f"{_WAYS[direction]} {end.said}{elsewhere}: {found}",
    }
