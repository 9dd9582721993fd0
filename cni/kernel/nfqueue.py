"""Packets that rules have wait until somebody says what becomes of each (linux/netfilter/nfnetlink_queue.h).

While nobody listens to a queue the kernel drops what is for it.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from cni.errors import Conflict, KernelRefused
from cni.kernel import nfnetlink
from cni.kernel.netlink.channel import NETFILTER
from cni.kernel.netlink.wire import ACK, HEADER, attribute, attributes, messages, understood

_QUEUE, _PACKET, _VERDICT, _CONFIG = 3 << 8, 0, 1, 2
_COMMAND, _PARAMETERS, _LONGEST = 1, 2, 3
_BIND, _COPY_PACKET = 1, 2
_PACKET_HEADER, _VERDICT_HEADER, _HARDWARE_ADDRESS, _PAYLOAD = 1, 2, 9, 10
_BODY_AT = HEADER.size + 4
_DROP, _ACCEPT = 0, 1
_SO_RCVBUFFORCE = 33
#: A line for each queue somebody listens to: its number, who, how many wait, how they are copied, and how many were dropped: by the
#: queue, and by the socket (seq_show in net/netfilter/nfnetlink_queue.c).
_TABLE = Path("/proc/thread-self/net/netfilter/nfnetlink_queue")

#: How many packets may wait, what the socket holds of them, and how many are read before what becomes of them is said.
_MOST, _ROOM, _AT_ONCE, _BUFFER = 4096, 8 << 20, 64, 1 << 17


class Held(NamedTuple):
    """A packet that waits, from its IP header on. `hook` is netfilter's number of where, `mac` its sender's, if it came by a wire.
    What is several segments or datagrams until it is on a wire (udp(7), UDP_SEGMENT) waits as those, for nobody asks for it whole
    (NFQA_CFG_F_GSO).
    """

    number: int
    hook: int
    packet: bytes
    mac: bytes


class Verdict(NamedTuple):
    """What becomes of a packet by its number: it goes on, as it is or as another packet, or not."""

    number: int
    goes_on: bool
    instead: bytes = b""


class Listening(NamedTuple):
    """Somebody listens to a queue: how many packets wait, and how many were dropped since, which he had no room for."""

    waiting: int
    dropped: int


def listening(number: int) -> Listening | None:
    """How a queue of the namespace this thread is in is; None where nobody listens to it, or there are none."""
    with suppress(OSError):
        for line in _TABLE.read_text().splitlines():
            queue, _, waiting, _, _, no_room, not_taken, *_ = map(int, line.split())
            if queue == number:
                return Listening(waiting, no_room + not_taken)
    return None


class Queue:
    """A socket of the namespace this thread is in when it is opened. Raises Conflict where somebody else listens, and KernelRefused."""

    def __init__(self, number: int) -> None:
        self._number = number
        #: How often packets were lost because they were not read soon enough.
        self.lost = 0
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER)
            with suppress(PermissionError):
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
            self._socket.bind((0, 0))
            self._configure(attribute(_COMMAND, struct.pack(">BxH", _BIND, 0)))
            self._configure(attribute(_PARAMETERS, struct.pack(">IB", 0xFFFF, _COPY_PACKET)))
            self._configure(attribute(_LONGEST, struct.pack(">I", _MOST)))
        except OSError as error:
            if error.errno in (errno.EBUSY, errno.EPERM):
                raise Conflict(f"netfilter queue {number}: somebody else listens to it, or nobody may") from None
            raise KernelRefused(f"netfilter queue {number}: {error.strerror}", error.errno or 0) from None

    def fileno(self) -> int:
        """What can be read when a packet waits."""
        return self._socket.fileno()

    def close(self) -> None:
        """Listen no more: what waits is dropped."""
        self._socket.close()

    def held(self) -> list[Held]:
        """What waits now, in order, so many at a time. Raises KernelRefused."""
        found: list[Held] = []
        while len(found) < _AT_ONCE:
            try:
                received = self._socket.recv(_BUFFER, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise KernelRefused(f"netfilter queue: {error.strerror}", error.errno or 0) from None
                self.lost += 1
                continue
            found += (
                _read(item) for item in messages(received) if struct.unpack_from("=H", item, 4)[0] == _QUEUE | _PACKET
            )
        return found

    def decide(self, verdicts: Iterable[Verdict]) -> None:
        """Say what becomes of packets; of one that is gone nothing is said. Raises KernelRefused."""
        said = [
            nfnetlink.message(
                _QUEUE | _VERDICT, 0, 0, self._number,
                attribute(_VERDICT_HEADER, struct.pack(">II", _ACCEPT if goes_on else _DROP, number))
                + (attribute(_PAYLOAD, instead) if instead else b""),
            )
            for number, goes_on, instead in verdicts
        ]  # fmt: skip
        if said:
            try:
                self._socket.send(b"".join(said))
            except OSError as error:
                raise KernelRefused(f"netfilter queue: {error.strerror}", error.errno or 0) from None

    def _configure(self, body: bytes) -> None:
        self._socket.send(nfnetlink.message(_QUEUE | _CONFIG, ACK, 0, self._number, body))
        for message in messages(self._socket.recv(_BUFFER)):
            (code,) = struct.unpack_from("=i", message, HEADER.size)
            if code:
                raise OSError(-code, os.strerror(-code))


@understood
def _read(message: bytes) -> Held:
    found = attributes(message, _BODY_AT)
    number, _, hook = struct.unpack(">IHB", found[_PACKET_HEADER])
    length, address = struct.unpack_from(">H2x8s", found[_HARDWARE_ADDRESS]) if _HARDWARE_ADDRESS in found else (0, b"")
    return Held(number, hook, found.get(_PAYLOAD, b""), address[:length])
