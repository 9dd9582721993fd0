"""Who reaches whom, asked of all pairs at once: one process has the sockets of all namespaces, for a socket belongs to the
namespace it was made in.

TCP connects and UDP is echoed. SCTP has no sockets on every kernel: the first packet of an association (INIT, RFC 9260, 3.3.2)
is written and looked for by hand, one way.
"""

from __future__ import annotations

import ctypes
import itertools
import select
import socket
import struct
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from answers import CLONE_NEWNET
from cases import Probe
from lab import Namespace

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
SCTP = 132
#: How long what is expected may take on a busy machine, and after how long a datagram is sent again, in seconds.
PATIENCE, AGAIN = 5.0, 0.5
#: How long what nobody expects is looked for after all that is expected has come, in seconds. All of it is sent before.
LINGER = 0.04


@dataclass
class Prober:
    """Parties that serve TCP, UDP and SCTP on some ports, and ask. Use it with `with`."""

    ports: Collection[int]
    _inside: dict[str, ThreadPoolExecutor] = field(default_factory=dict)
    _served: dict[str, list[socket.socket]] = field(default_factory=dict)
    _raw: dict[tuple[str, int], socket.socket] = field(default_factory=dict)
    _kept: dict[tuple[str, int], socket.socket] = field(default_factory=dict)
    _whats: dict[int, tuple[Callable[..., None], Any]] = field(default_factory=dict)
    _numbers: Any = field(default_factory=lambda: itertools.count(1))

    def __enter__(self) -> Self:
        self._epoll = select.epoll()
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._inside):
            self.forget(name)
        self._epoll.close()

    def join(self, name: str, where: Namespace) -> None:
        """Have a namespace serve and ask under a name."""
        self._inside[name] = ThreadPoolExecutor(1, initializer=_enter, initargs=(where.path,))
        made = self._inside[name].submit(lambda: list(self._serve(name))).result()
        self._served[name] = [one for _, one in made]
        for what, one in made:
            self._watch(one, what, one)

    def forget(self, name: str) -> None:
        """Have it do so no more: its namespace is in use until then."""
        for one in self._served.pop(name):
            self._drop(one)
        for family in FAMILIES:
            self._raw.pop((name, family))
            self._kept.pop((name, family))
        self._inside.pop(name).shutdown()

    def heard(self, probes: Collection[Probe], expected: Collection[Probe]) -> set[Probe]:
        """Those of `probes` that arrive. All are sent; then the expected ones are waited for, and the others shortly."""
        self._begin()
        awaited = set(expected)
        by_source = _by_source(sorted(probes, key=lambda probe: probe in awaited))
        for source, asked in by_source.items():
            self._send(source, asked)
        deadline, again = time.monotonic() + PATIENCE, time.monotonic() + AGAIN
        while not awaited <= self._heard.keys() and time.monotonic() < deadline:
            self._turn(0.05)
            if time.monotonic() > again:
                again += AGAIN
                for source, asked in by_source.items():
                    missing = [it for it in asked if it in awaited and it not in self._heard and it.protocol != "TCP"]
                    self._send(source, missing)
        end = time.monotonic() + LINGER
        while (left := end - time.monotonic()) > 0:
            self._turn(left)
        for one in self._clients:
            self._drop(one)
        return set(self._heard)

    def flood(
        self, expected: Collection[Probe], others: Collection[Probe], going: Callable[[], bool]
    ) -> tuple[Counter[Probe], Counter[Probe]]:
        """Ask by UDP again and again, all at a time, as long as it goes on: how often each was sent, and how often it arrived."""
        self._begin()
        by_source, sent = _by_source([*others, *expected]), Counter[Probe]()
        while going():
            for source, asked in by_source.items():
                self._send(source, asked)
            self._turn(0.005)
            sent.update([*others, *expected])
        deadline = time.monotonic() + PATIENCE
        while any(self._heard[it] < sent[it] for it in expected) and time.monotonic() < deadline:
            self._turn(0.05)
        self._turn(LINGER)
        return sent, self._heard

    # --- asking

    def _begin(self) -> None:
        self._found: dict[bytes, Probe] = {}
        self._heard = Counter[Probe]()
        self._clients: list[socket.socket] = []

    def _send(self, source: str, asked: Iterable[Probe]) -> None:
        for one, probe in self._inside[source].submit(lambda: list(self._ask(source, asked))).result():
            self._clients.append(one)
            self._watch(one, *((self._connected, (one, probe)) if probe else (self._told, one)))

    def _ask(self, source: str, asked: Iterable[Probe]) -> Iterable[tuple[socket.socket, Probe | None]]:
        """In the source's namespace: the sockets that will hear of it."""
        udp: dict[int, socket.socket] = {}
        for probe in asked:
            if probe.protocol == "TCP":
                one = _socket(probe.family, socket.SOCK_STREAM)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.connect_ex((probe.address, probe.port))
                yield one, probe
                continue
            mark = struct.pack("!L", next(self._numbers))
            self._found[mark] = probe
            one = self._raw[source, probe.family]
            if probe.kept:
                one = self._kept[source, probe.family]
            elif probe.protocol == "UDP":
                if probe.family not in udp:
                    udp[probe.family] = _socket(probe.family, socket.SOCK_DGRAM)
                    yield udp[probe.family], None
                one = udp[probe.family]
            said, port = (mark, probe.port) if probe.protocol == "UDP" else (initiation(mark, probe.port), 0)
            with suppress(OSError):  # refused before it left: then it does not arrive
                one.sendto(said, (probe.address, port))

    def _connected(self, made: tuple[socket.socket, Probe]) -> None:
        """Refused is reached: rules drop."""
        one, probe = made
        self._epoll.unregister(one)
        self._whats.pop(one.fileno())
        if one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in (0, 111):
            self._heard[probe] += 1

    def _told(self, one: socket.socket) -> None:
        with suppress(OSError):
            while True:
                self._hear(one.recv(64))

    def _hear(self, mark: bytes) -> None:
        if probe := self._found.get(mark):
            self._heard[probe] += 1

    # --- serving

    def _serve(self, name: str) -> Iterable[tuple[Callable[..., None], socket.socket]]:
        for family in FAMILIES:
            for port in self.ports:
                for kind, what in ((socket.SOCK_STREAM, self._accept), (socket.SOCK_DGRAM, self._echo)):
                    one = _socket(family, kind)
                    one.bind(("::" if family == 6 else "0.0.0.0", port))
                    if kind == socket.SOCK_STREAM:
                        one.listen(1000)
                    yield what, one
            self._raw[name, family] = _socket(family, socket.SOCK_RAW, SCTP)
            self._kept[name, family] = _socket(family, socket.SOCK_DGRAM)
            self._kept[name, family].bind(("", 0))
            yield self._told, self._kept[name, family]
            yield (self._initiated4 if family == 4 else self._initiated), self._raw[name, family]

    def _accept(self, one: socket.socket) -> None:
        with suppress(OSError):
            while True:
                one.accept()[0].close()

    def _echo(self, one: socket.socket) -> None:
        with suppress(OSError):
            while True:
                mark, sender = one.recvfrom(64)
                one.sendto(mark, sender)

    def _initiated4(self, one: socket.socket) -> None:
        """A raw socket of IPv4 is given the IP header too (raw(7))."""
        self._initiated(one, 20)

    def _initiated(self, one: socket.socket, header: int = 0) -> None:
        with suppress(OSError):
            while True:
                self._hear(one.recv(256)[header + 16 : header + 20])

    # --- the loop

    def _watch(self, one: socket.socket, what: Callable[..., None], given: Any) -> None:
        self._whats[one.fileno()] = what, given
        events = select.EPOLLOUT if what == self._connected else select.EPOLLIN
        self._epoll.register(one, events)

    def _drop(self, one: socket.socket) -> None:
        if self._whats.pop(one.fileno(), None):
            self._epoll.unregister(one)
        one.close()

    def _turn(self, seconds: float) -> None:
        for number, _ in self._epoll.poll(seconds, 1000):
            what, given = self._whats[number]
            what(given)


def _by_source(probes: Iterable[Probe]) -> dict[str, list[Probe]]:
    found: dict[str, list[Probe]] = defaultdict(list)
    for probe in probes:
        found[probe.source].append(probe)
    return found


def _enter(netns: str) -> None:
    with Path(netns).open("rb") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {netns}")


def _socket(family: int, kind: int, protocol: int = 0) -> socket.socket:
    made = socket.socket(FAMILIES[family], kind | socket.SOCK_NONBLOCK, protocol)
    if kind != socket.SOCK_RAW:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == 6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    return made


def initiation(tag: bytes, port: int) -> bytes:
    """An INIT from a port nobody has, with its initiate tag; its checksum is CRC32c (RFC 9260, appendix A)."""
    head, chunk = struct.pack("!HHL", 40000, port, 0), struct.pack("!BBH4sLHHL", 1, 0, 20, tag, 1 << 16, 1, 1, 1)
    return head + struct.pack("<L", _crc(head + bytes(4) + chunk)) + chunk


def _crc(data: bytes) -> int:
    found = 0xFFFFFFFF
    for byte in data:
        found = _TABLE[(found ^ byte) & 0xFF] ^ (found >> 8)
    return found ^ 0xFFFFFFFF


def _entry(number: int) -> int:
    for _ in range(8):
        number = (number >> 1) ^ (0x82F63B78 * (number & 1))
    return number


_TABLE = [_entry(number) for number in range(256)]
