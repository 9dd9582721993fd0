"""The kernel's answers and news by netlink, as it would never send them: what reads them is asked for all it reads."""

from __future__ import annotations

import errno
import ipaddress
import struct
from collections.abc import Callable, Iterator
from functools import cache
from random import Random
from typing import Any
from unittest import mock

from cni.errors import CniError
from cni.kernel import connections, conntrack, events, inventory, nflog, nfnetlink, nfqueue, rule_events, ruleset
from cni.kernel.netlink import channel
from cni.kernel.netlink.channel import DumpInterrupted
from cni.kernel.netlink.lookups import Asked, Lookups
from cni.kernel.netlink.reachability import Asking
from cni.kernel.view import Link, LinkRef
from crash.doors.door import CORPUS, Door
from crash.mutation import mutated

_V4, _V6 = ipaddress.ip_address("10.9.0.5"), ipaddress.ip_address("fd00:9::5")
_BR, _VX = LinkRef(2, "br0"), LinkRef(5, "vx0")
_TABLE = "inet agent_cni_policy"
_HEADER = struct.Struct("=IHHII")


def _rtnl(question: Callable[[Any], Any]) -> Callable[[], Any]:
    def asked() -> Any:
        rtnl = type("Both", (Lookups, Asking), {})()
        try:
            return question(rtnl)
        finally:
            rtnl.close()

    return asked


def _link(rtnl: Any) -> Link:
    return Link(2, "br0", "0a:58:0a:09:00:01", 1500, True, "UP", 0, False, False, 0, False, "", "veth", False, None, "", False, False, False, (), 1)  # fmt: skip


def _drained(found: Any) -> Any:
    return list(found) if isinstance(found, Iterator) else found


QUESTIONS: dict[str, Callable[[], Any]] = {
    "links": _rtnl(lambda it: it.links()),
    "link": _rtnl(lambda it: it.link_by_name("br0")),
    "tunnel": _rtnl(lambda it: it.link_by_name("vx0")),
    "port": _rtnl(lambda it: it.link_by_name("v0")),
    "tunnels": _rtnl(lambda it: it.tunnels()),
    "ports": _rtnl(lambda it: it.ports(_BR)),
    "other_end": _rtnl(lambda it: it.other_end(it.link_by_name("p0"))),
    "addresses": _rtnl(lambda it: it.addresses(_BR)),
    "own_addresses": _rtnl(lambda it: it.own_addresses()),
    "holder": _rtnl(lambda it: (it.holding(_V4), it.link_holding(_V6))),
    "routes": _rtnl(lambda it: it.routes(_BR, 4)),
    "routes6": _rtnl(lambda it: it.routes(_BR, 6)),
    "routes_by": _rtnl(lambda it: (it.routes_by(3), it.refused_by(3))),
    "refuses": _rtnl(lambda it: it.refuses("10.66.0.0/16")),
    "route_to": _rtnl(lambda it: it.route_to(_V4)),
    "spread": _rtnl(lambda it: it.route_to(ipaddress.ip_address("10.55.0.1"))),
    "default_route": _rtnl(lambda it: it.default_route()),
    "advertised": _rtnl(lambda it: it.advertised()),
    "neighbours": _rtnl(lambda it: it.neighbours(_BR)),
    "neighbours_by": _rtnl(lambda it: it.neighbours_by(_BR, 77)),
    "fdb": _rtnl(lambda it: (it.fdb(_VX), it.strange_rows(_VX), it.given_rows(_VX), it.flood_targets(_VX))),
    "every_row": _rtnl(lambda it: it.every_row()),
    "neighbour": _rtnl(lambda it: it.neighbour(_BR, "10.9.0.5")),
    "reachability": _rtnl(lambda it: it.reachability(_BR, "10.9.0.5")),
    "labels": _rtnl(lambda it: it.labels()),
    "mark_rules": _rtnl(lambda it: it.mark_rules(4)),
    "way": _rtnl(lambda it: it.way(Asked(target="10.9.0.5"))),
    "change": _rtnl(lambda it: it.set_link(_BR, up=True)),
    "generation": inventory.generation,
    "digest": lambda: inventory.digest([f"table {_TABLE}", f"chain {_TABLE} c1", f"set {_TABLE} s4", f"element {_TABLE} s4 0a090002"]),
    "chain": lambda: inventory.digest([f"chain {_TABLE} c1"]),
    "set": lambda: inventory.digest([f"set {_TABLE} m"]),
    "sets": lambda: inventory.sets(_TABLE),
    "rules": lambda: inventory.rules(_TABLE, ["fw"]),
    "keys": lambda: ruleset.keys(f"{_TABLE} sp"),
    "has_element": lambda: ruleset.has_element(ruleset.Element(f"{_TABLE} m", b"\x0a\x09\0\2", chain="c1")),
    "is_dormant": lambda: ruleset.is_dormant(_TABLE),
    "delete_idle": lambda: ruleset.delete_idle(_TABLE, ["c1", "fw"], ["s4"]),
    "alive": lambda: connections.alive(b"\x7f\0\0\1"),
}  # fmt: skip
_EVERYBODY = type("Everybody", (), {"__contains__": lambda *_: True})()


class _Line:
    """A socket that has been sent one thing, and then hears no more."""

    def __init__(self, data: bytes, listens: bool) -> None:
        self.data: list[bytes] = [data]
        self._listens = listens
        self._sequences: list[int] = []

    def sendall(self, data: bytes) -> None:
        self._sequences += _sequences(data)

    send = sendall

    def recv(self, *_: int) -> bytes:
        if self.data:
            return self.data.pop() if self._listens else _numbered(self.data.pop(), self._sequences)
        if self._listens:
            raise BlockingIOError(errno.EAGAIN, "nothing")
        raise OSError(errno.ENOBUFS, "No buffer space available")

    def bind(self, *_: Any) -> None: ...
    def setsockopt(self, *_: Any) -> None: ...
    def close(self) -> None: ...

    def fileno(self) -> int:
        return 0


def _sequences(data: bytes) -> list[int]:
    found, at = [], 0
    while at + 16 <= len(data):
        length, _, _, number, _ = _HEADER.unpack_from(data, at)
        found.append(number)
        at += max((length + 3) & ~3, 16)
    return found


def _numbered(data: bytes, sequences: list[int]) -> bytes:
    """An answer with the number of what was asked, as far as it can be told where a message begins."""
    raw, at = bytearray(data), 0
    while at + 16 <= len(raw) and sequences:
        length = int.from_bytes(raw[at : at + 4], "little")
        raw[at + 8 : at + 12] = sequences[-1].to_bytes(4, "little")
        at += max((length + 3) & ~3, 16)
    return bytes(raw)


def _heard(line: _Line, reader: str, data: bytes) -> object:
    if reader == "conntrack":
        return list(conntrack.tracked([data], _EVERYBODY))
    kind, listen = {
        "events": (events.Events, lambda it: it.wait()), "rule_events": (rule_events.RuleEvents, lambda it: it.heard()),
        "nfqueue": (nfqueue.Queue, lambda it: it.held()), "nflog": (nflog.Listener, lambda it: list(it.waiting(4))),
    }[reader]  # fmt: skip
    listener = object.__new__(kind)
    listener.__dict__ |= {"_socket": line, "_names": {"table inet x"}, "lost": 0}
    return listen(listener)


LISTENERS = ("conntrack", "events", "rule_events", "nfqueue", "nflog")


def judged(data: bytes) -> str:
    """Have a reader be answered so."""
    name, _, answer = data.partition(b"\n")
    reader = name.decode()
    line = _Line(answer, reader in LISTENERS)
    ready: Any = lambda *_: ([line] if line.data else [], [], [])  # noqa: E731
    opened = mock.patch.object(channel, "_opened", return_value=line)
    with opened, mock.patch.object(nfnetlink, "opened", channel.Channel), mock.patch("select.select", ready):
        try:
            _heard(line, reader, answer) if reader in LISTENERS else QUESTIONS[reader]()
        except (CniError, DumpInterrupted):
            return ""
    return ""


@cache
def _seeds() -> tuple[bytes, ...]:
    return tuple(file.read_bytes() for file in sorted((CORPUS / "netlink").iterdir()))


def _made(random: Random) -> bytes:
    name, _, answer = random.choice(_seeds()).partition(b"\n")
    others = [other.partition(b"\n")[2] for other in random.sample(_seeds(), 3)]
    if random.random() < 0.1:
        name = random.choice((*QUESTIONS, *LISTENERS)).encode()
    return name + b"\n" + mutated(random, answer, others)


DOORS = (Door("netlink", _made, judged, 50_000),)
