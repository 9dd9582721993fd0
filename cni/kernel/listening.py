"""Who listens in the namespace this thread is in (proc_net_tcp(5)), and what becomes of a packet that is really sent there."""

from __future__ import annotations

import errno
import ipaddress
import os
import select
import socket
import struct
import sys
import time
from contextlib import suppress
from pathlib import Path

_FOLDER = Path("/proc/thread-self/net")
_LISTENS = {"tcp": ("0A",), "udp": ("07", "01")}
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
#: ICMP's and ICMPv6's echo: protocol, request, reply, and where a raw socket has the type.
_ECHO = {4: (socket.IPPROTO_ICMP, 8, 0, 20), 6: (socket.IPPROTO_ICMPV6, 128, 129, 0)}
#: IP_RECVERR and IPV6_RECVERR: an error is told to who sent.
_ERRORS = {4: (socket.IPPROTO_IP, 11), 6: (socket.IPPROTO_IPV6, 25)}
_NO_LINGER = struct.pack("ii", 1, 0)

#: What becomes of a packet: there is an answer; a refusal, so it arrived; silence; or the kernel says why it cannot be sent.
ANSWERED, REFUSED, SILENT = "answered", "refused", "silent"


def listens(protocol: str, port: int, address: str) -> bool:
    """Whether a socket takes what comes for an address and port. One of IPv6 for any address takes IPv4's too, but for IPV6_V6ONLY,
    which is not said here.
    """
    wanted = ipaddress.ip_address(address)
    for name in (protocol, f"{protocol}6"):
        for local, state in _sockets(name):
            at, _, number = local.rpartition(":")
            if int(number, 16) == port and state in _LISTENS[protocol] and _takes(at, wanted):
                return True
    return False


def _sockets(name: str) -> list[tuple[str, str]]:
    with suppress(FileNotFoundError):
        lines = (line.split() for line in (_FOLDER / name).read_text().splitlines()[1:])
        return [(words[1], words[3]) for words in lines]
    return []


def _takes(held: str, wanted: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    words = [bytes.fromhex(held[at : at + 8]) for at in range(0, len(held), 8)]
    packed = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    if not any(packed):
        return len(packed) == 16 or wanted.version == 4
    if len(packed) == 16 and packed[:12] == bytes(10) + b"\xff\xff":
        packed = packed[12:]
    return packed == wanted.packed


def tried(protocol: str, target: str, port: int, seconds: float) -> str:
    """What becomes of a packet sent from the namespace this thread is in: ANSWERED, REFUSED, SILENT, or an error's name."""
    family = 6 if ":" in target else 4
    try:
        with _socket(protocol, family) as made:
            made.setblocking(False)
            return {"tcp": _connected, "udp": _told, "icmp": _echoed}[protocol](made, family, target, port, seconds)
    except OSError as error:
        return _name(error)


def _socket(protocol: str, family: int) -> socket.socket:
    kinds = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM, "icmp": socket.SOCK_RAW}
    return socket.socket(_FAMILIES[family], kinds[protocol], _ECHO[family][0] if protocol == "icmp" else 0)


def _connected(made: socket.socket, _: int, target: str, port: int, seconds: float) -> str:
    """A connection that is reset once it is there: whoever listens reads nothing."""
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    failed = made.connect_ex((target, port))
    if failed == errno.EINPROGRESS:
        if not select.select([], [made], [], seconds)[1]:
            return SILENT
        failed = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return _name(OSError(failed, "")) if failed else ANSWERED


def _told(made: socket.socket, family: int, target: str, port: int, seconds: float) -> str:
    """A datagram without content."""
    made.setsockopt(*_ERRORS[family], 1)
    made.connect((target, port))
    made.send(b"")
    return _heard(made, seconds)


def _heard(made: socket.socket, seconds: float) -> str:
    if not select.select([made], [], [], seconds)[0]:
        return SILENT
    made.recv(1)
    return ANSWERED


def _echoed(made: socket.socket, family: int, target: str, _: int, seconds: float) -> str:
    _, request, reply, type_at = _ECHO[family]
    made.setsockopt(*_ERRORS[family], 1)
    made.connect((target, 0))
    mark = os.urandom(4)
    head = struct.pack("!BBH", request, 0, 0) + mark
    made.send(struct.pack("!BBH", request, 0, _checksum(head)) + mark)
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0 and select.select([made], [], [], left)[0]:
        said = made.recv(128)[type_at:]
        if said[:1] == bytes([reply]) and said[4:8] == mark:
            return ANSWERED
    return SILENT


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


def _name(error: OSError) -> str:
    if error.errno == errno.ECONNREFUSED:
        return REFUSED
    return errno.errorcode.get(error.errno or 0, str(error.errno)) if error.errno else str(error)
