"""How large a packet may be that comes to other hosts whole: echoes that nobody may fragment (RFC 792, RFC 4443, ip(7))."""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Mapping
from contextlib import closing, suppress

#: Seconds that an answer may take; in the first round a neighbour may have to be found, too.
_ANSWER, _FIRST = 0.4, 1.5
#: The smallest packet anybody must take (RFC 791, RFC 8200), and its ICMP type of request and reply, the header before it, and where a raw
#: socket has the ICMP header.
_FAMILIES = {
    socket.AF_INET: (socket.IPPROTO_ICMP, 576, 8, 0, 20, 20),
    socket.AF_INET6: (socket.IPPROTO_ICMPV6, 1280, 128, 129, 40, 0),
}
#: IP_MTU_DISCOVER and IPV6_MTU_DISCOVER, by which a packet has its size whatever the kernel knows of the way (linux/in.h, in6.h).
_DISCOVER = {socket.AF_INET: (socket.IPPROTO_IP, 10), socket.AF_INET6: (socket.IPPROTO_IPV6, 23)}
_PROBE = 3
_ECHO = struct.Struct("!BBHHH")


def largest(wanted: Mapping[str, int]) -> dict[str, int]:
    """Of each address the largest packet up to what is wanted that is answered, in bytes with its IP header; 0 for one that answers none.

    All are asked at the same time; it takes some five seconds where packets are lost. Raises OSError where raw sockets are refused.
    """
    found: dict[str, int] = {}
    for family in _FAMILIES:
        of_family = {
            address: size for address, size in wanted.items() if (":" in address) == (family == socket.AF_INET6)
        }
        if of_family:
            found |= _searched(family, of_family)
    return found


def _searched(family: socket.AddressFamily, wanted: Mapping[str, int]) -> dict[str, int]:
    """By halves between what everybody takes and what is wanted."""
    protocol, least, *_ = _FAMILIES[family]
    with closing(socket.socket(family, socket.SOCK_RAW, protocol)) as line:
        line.setsockopt(*_DISCOVER[family], _PROBE)
        line.setblocking(False)
        small = _answering(line, dict.fromkeys(wanted, least), _FIRST)
        whole = _answering(line, {address: wanted[address] for address in small}, _ANSWER)
        found = {
            address: wanted[address] if address in whole else least if address in small else 0 for address in wanted
        }
        open_ = {address: (least, wanted[address]) for address in small - whole}
        while open_:
            asked = {address: (low + high) // 2 for address, (low, high) in open_.items()}
            there = _answering(line, asked, _ANSWER)
            for address, size in asked.items():
                low, high = (size, open_[address][1]) if address in there else (open_[address][0], size)
                found[address], open_[address] = low, (low, high)
            open_ = {address: span for address, span in open_.items() if span[1] - span[0] > 1}
        return found


def _answering(line: socket.socket, sizes: Mapping[str, int], seconds: float) -> set[str]:
    """Who answers a packet of a size within some time; each is sent two, for one may be lost."""
    mark = os.urandom(4)
    for address, size in sizes.items():
        for _ in range(2):
            with suppress(OSError):  # too large for the first link, or no way there
                line.sendto(_packet(line.family, size, mark), (address, 0))
    there: set[str] = set()
    deadline = time.monotonic() + seconds
    while there < sizes.keys() and (left := deadline - time.monotonic()) > 0:
        if select.select([line], [], [], left)[0]:
            with suppress(OSError):
                data, (address, *_) = line.recvfrom(1 << 16)
                if _answers(line.family, data, mark):
                    there.add(address.partition("%")[0])
    return there & sizes.keys()


def _answers(family: socket.AddressFamily | int, data: bytes, mark: bytes) -> bool:
    _, _, _, reply, _, at = _FAMILIES[socket.AddressFamily(family)]
    return data[at : at + 1] == bytes([reply]) and data[at + 4 : at + 8] == mark


def _packet(family: socket.AddressFamily | int, size: int, mark: bytes) -> bytes:
    """An echo request that is `size` with its IP header; `mark` is its identifier and number. Of ICMPv6 the kernel has the checksum."""
    _, _, request, _, header, _ = _FAMILIES[socket.AddressFamily(family)]
    identity, number = struct.unpack("!HH", mark)
    total = (request << 8) + identity + number
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return _ECHO.pack(request, 0, ~total & 0xFFFF, identity, number) + bytes(max(0, size - header - _ECHO.size))
