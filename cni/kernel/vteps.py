"""Asking other hosts' VTEPs whether they are there, and whether they know of us (packet(7), icmp(7), RFC 826, RFC 7348)."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from typing import NamedTuple

from cni.kernel.netlink.wire import packed_mac

#: Seconds that an answer may take, and those for which the kernel asks for a neighbour before it gives up.
_ANSWER, _RESOLUTION = 1.0, 3.5
#: ICMP's and ICMPv6's echo: protocol, request, reply, and where a raw socket has the type.
_ECHO = {socket.AF_INET: (socket.IPPROTO_ICMP, 8, 0, 20), socket.AF_INET6: (socket.IPPROTO_ICMPV6, 128, 129, 0)}
#: IP_RECVERR and IPV6_RECVERR: a host that does not answer is told too.
_ERRORS = {socket.AF_INET: (socket.IPPROTO_IP, 11), socket.AF_INET6: (socket.IPPROTO_IPV6, 25)}
_SAID = {
    errno.ECONNREFUSED: "nobody listens there",
    errno.EHOSTUNREACH: "the host does not answer",
    errno.ENETUNREACH: "no route leads there",
}
_ARP = struct.Struct("!6s6sHHHBBH6s4s6s4s")  # Ethernet's header, then RFC 826's packet for IPv4
_ETHERTYPE, _REQUEST, _REPLY = 0x0806, 1, 2
_EVERYTHING = 3  # ETH_P_ALL: of a bridge's port nobody else sees what comes in


class Heard(NamedTuple):
    """A MAC that a tunnel learned behind a VTEP, and the IPv4 address its owner has."""

    vtep: str
    mac: str
    address: str


def unreachable(vteps: Iterable[str], port: int) -> dict[str, str]:
    """Why what is sent to VTEPs at a UDP port is lost, as far as that is said; one that says nothing at all may be well.

    They get a datagram that is no VXLAN, and an echo request whose answer ends the waiting.
    """
    with ExitStack() as opened:
        asked = [opened.enter_context(closing(_Asked(vtep, port))) for vtep in vteps]
        deadline = time.monotonic() + _RESOLUTION
        while (waiting := [item for item in asked if item.waits]) and (left := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select([at for item in waiting for at in item.sockets], [], [], left)
            for item in waiting:
                item.hear(ready)
        return {item.vtep: item.why for item in asked if item.why}


class _Asked:
    """A VTEP that was sent a datagram and an echo request."""

    def __init__(self, vtep: str, port: int) -> None:
        self.vtep, self.why, self.waits = vtep, "", True
        family = socket.AF_INET6 if ":" in vtep else socket.AF_INET
        protocol, request, self._reply, self._type_at = _ECHO[family]
        datagram, echo = socket.socket(family, socket.SOCK_DGRAM), socket.socket(family, socket.SOCK_RAW, protocol)
        self.sockets = [datagram, echo]
        try:
            for at, target, data in ((datagram, port, bytes(8)), (echo, 0, _echo(request))):
                at.setblocking(False)
                at.setsockopt(*_ERRORS[family], 1)
                at.connect((vtep, target))
                at.send(data)
        except OSError as error:
            self._end(error)

    def close(self) -> None:
        """Close both sockets."""
        for at in self.sockets:
            at.close()

    def hear(self, ready: Sequence[socket.socket]) -> None:
        """Take in what came."""
        datagram, echo = self.sockets
        try:
            if datagram in ready:
                datagram.recv(1)
            if echo in ready:
                self.waits &= echo.recv(99)[self._type_at] != self._reply
        except OSError as error:
            self._end(error)

    def _end(self, error: OSError) -> None:
        self.waits, self.why = False, _SAID.get(error.errno or 0, str(error.strerror))


def known_to(device: str, heard: Sequence[Heard]) -> tuple[set[str], set[str]]:
    """The VTEPs whose pods answered through a tunnel, and those of them that send us what has no row of its own.

    Each MAC is asked for its address twice: once by a MAC the other host learns with the question, once in the name of
    one it never heard of, for which the answer goes to everybody the other host knows.
    """
    me, nobodies = _a_mac(), {_a_mac(): item.vtep for item in heard}
    answered: set[str] = set()
    flooding: set[str] = set()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as line:
        line.bind((device, _EVERYTHING))
        for item, nobody in zip(heard, nobodies, strict=True):
            for asker in (me, nobody):
                line.send(_question(item, me, asker))
        deadline = time.monotonic() + _ANSWER
        while len(flooding) < len(nobodies) and (left := deadline - time.monotonic()) > 0:
            if select.select([line], [], [], left)[0]:
                target, sender = _answer(line.recv(99))
                answered |= {item.vtep for item in heard if target == me and sender == item.address}
                flooding |= {nobodies[target]} if target in nobodies else set()
    return answered, flooding


def _question(item: Heard, me: bytes, asker: bytes) -> bytes:
    """Without a sender's address: who answers remembers nobody (RFC 5227, an ARP probe)."""
    mac, address = packed_mac(item.mac), socket.inet_aton(item.address)
    return _ARP.pack(mac, me, _ETHERTYPE, 1, 0x0800, 6, 4, _REQUEST, asker, bytes(4), bytes(6), address)


def _answer(frame: bytes) -> tuple[bytes, str]:
    """To whom, and of which address; nothing for what is no answer."""
    if len(frame) < _ARP.size:
        return b"", ""
    target, _, ethertype, _, _, _, _, operation, _, address, _, _ = _ARP.unpack_from(frame)
    return (target, socket.inet_ntoa(address)) if (ethertype, operation) == (_ETHERTYPE, _REPLY) else (b"", "")


def _a_mac() -> bytes:
    return b"\x06" + os.urandom(5)


def _echo(request: int) -> bytes:
    """An echo request without data; of ICMPv6 the kernel computes the checksum."""
    identity = os.getpid() & 0xFFFF
    total = (request << 8) + identity + 1
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return struct.pack("!BBHHH", request, 0, checksum, identity, 1)
