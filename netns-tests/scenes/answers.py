"""Who answers where: every namespace says its own name to a datagram, and is asked from every other one.

One process does it for all: a socket belongs to the namespace it was made in, wherever its thread is.
"""

from __future__ import annotations

import ctypes
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar

from lab import Namespace

PORT, CLONE_NEWNET = 7007, 0x40000000
NEWNEIGH, DELNEIGH, GETNEIGH, DUMP, HEADER, DONE, PERMANENT_OR_NOARP = 28, 29, 30, 0x301, 16, 3, 0xC0
#: How often a question that nobody answered is asked, and for how long each time, in seconds.
ASKED, WAIT = 3, 0.25
#: How many neighbours may be found out before they are forgotten: all namespaces of a machine share 1024 (gc_thresh3, arp(7)).
NEIGHBOURS = 500

T = TypeVar("T")


def within(where: Namespace, done: Callable[[], T]) -> T:
    """What a function returns that runs in a namespace, in a thread that ends there."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_in, where.path, done).result()


def _in(netns: str, done: Callable[[], T]) -> T:
    with Path(netns).open("rb") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {netns}")
    return done()


class Answers:
    """The names that are said, and the thread that says them. Use it with `with`."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._sockets: dict[str, list[socket.socket]] = {}
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._done = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done = True
        self._thread.join()
        for name in list(self._sockets):
            self.forget(name)
        self._selector.close()

    def say(self, where: Namespace) -> None:
        """Have a namespace answer with its name."""
        made = within(where, lambda: [_listening(family) for family in (socket.AF_INET, socket.AF_INET6)])
        self._sockets[where.name] = made
        for one in made:
            self._selector.register(one, selectors.EVENT_READ, where.name.encode())

    def forget(self, name: str) -> None:
        """Have it answer no more; its namespace is in use until then."""
        for one in self._sockets.pop(name, ()):
            self._selector.unregister(one)
            one.close()

    def _answer(self) -> None:
        while not self._done:
            if not self._sockets:
                time.sleep(0.02)
            for key, _ in self._selector.select(0.05):
                with suppress(OSError):
                    _, sender = key.fileobj.recvfrom(64)  # type: ignore[union-attr]
                    key.fileobj.sendto(key.data, sender)  # type: ignore[union-attr]


def heard(where: Namespace, addresses: Iterable[str], asked: int = ASKED) -> dict[str, str]:
    """Who answers each address when asked from a namespace; those nobody answers for are missing."""
    return within(where, lambda: _heard(list(addresses), asked))


def faults(asking: Collection[Namespace], expected: dict[str, str], asked: int = ASKED, most: int = 20) -> list[str]:
    """What is not as expected, asked from everywhere: a line for each address that answers with another name, or not at all."""
    found, fresh = [], 0
    for where in asking:
        fresh += 2 * len(expected)
        if fresh > NEIGHBOURS:
            for other in asking:
                within(other, _forget_neighbours)
            fresh = 2 * len(expected)
        said = heard(where, expected, asked)
        for address, name in expected.items():
            if said.get(address) != name:
                found.append(f"{where.name} asks {address} ({name}): {said.get(address, 'no answer')}")
    return found[:most]


def _forget_neighbours() -> None:
    """Have a namespace know no neighbour that it found out by itself (rtnetlink(7))."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.settimeout(5)
        for family in (socket.AF_INET, socket.AF_INET6):
            kernel.send(struct.pack("=LHHLLB11x", HEADER + 12, GETNEIGH, DUMP, 1, 0, family))
            for row in list(_dumped(kernel)):
                if not struct.unpack_from("=H", row, 8)[0] & PERMANENT_OR_NOARP:
                    kernel.send(struct.pack("=LHHLL", HEADER + len(row), DELNEIGH, 1, 2, 0) + row)


def _dumped(kernel: socket.socket) -> Iterator[bytes]:
    """What a dump has, without headers; the end of it may be in the datagram of its last part."""
    while True:
        data, at = kernel.recv(1 << 16), 0
        while at < len(data):
            size, kind = struct.unpack_from("=LH", data, at)
            if kind == DONE:
                return
            if kind == NEWNEIGH:  # and nothing that says that one was gone already
                yield data[at + HEADER : at + size]
            at += -(-size // 4) * 4


def _heard(addresses: list[str], asked: int) -> dict[str, str]:
    said: dict[str, str] = {}
    sockets: dict[int, socket.socket] = {4: _asking(socket.AF_INET), 6: _asking(socket.AF_INET6)}
    with selectors.DefaultSelector() as selector:
        for one in sockets.values():
            selector.register(one, selectors.EVENT_READ)
        for _ in range(asked):
            missing = [address for address in addresses if address not in said]
            for address in missing:
                with suppress(OSError):  # no route: nobody answers
                    sockets[6 if ":" in address else 4].sendto(b"who", (address, PORT))
            deadline = time.monotonic() + WAIT
            while len(said) < len(addresses) and (left := deadline - time.monotonic()) > 0:
                for key, _ in selector.select(left):
                    _collect(key.fileobj, said)
            if len(said) == len(addresses):
                break
    for one in sockets.values():
        one.close()
    return said


def _collect(one: Any, said: dict[str, str]) -> None:
    with suppress(OSError):
        while True:
            text, sender = one.recvfrom(256)
            said[sender[0]] = text.decode()


def _asking(family: int) -> socket.socket:
    made = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    return made


def _listening(family: int) -> socket.socket:
    made = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    made.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", PORT))
    return made
