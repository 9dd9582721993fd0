"""Datagrams and segments in their IP packets, read and made (RFC 791, 8200, 768, 9293). Pure.

What a receiver could read otherwise than it is read here is not read at all.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

UDP, TCP = 17, 6
FIN, SYN, RST, PUSH, ACKNOWLEDGED, URGENT = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20

_ADDRESSES = {4: (12, 16, 4), 6: (8, 24, 16)}
_UDP, _TCP = struct.Struct(">HHHH"), struct.Struct(">HHIIBBHHH")
_HOPS, _WINDOW = 64, 0xFFFF
_END_OF_OPTIONS, _NO_OPTION, _MULTIPATH = 0, 1, 30


class Packet(NamedTuple):
    """A UDP datagram or TCP segment between two addresses, packed, and its data; the last four are a segment's. One with `multipath` says
    itself in which order its data is to be read (RFC 8684).
    """

    protocol: int
    source: bytes
    target: bytes
    source_port: int
    port: int
    data: bytes
    sequence: int = 0
    acknowledged: int = 0
    flags: int = 0
    multipath: bool = False


def read(packet: bytes) -> Packet | None:
    """What a whole packet from its IP header on holds; None for what is neither of both, or is not as its headers say."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        start, total, protocol = (packet[0] & 15) * 4, int.from_bytes(packet[2:4], "big"), packet[9]
        is_part = int.from_bytes(packet[6:8], "big") & 0x3FFF
    elif version == 6 and len(packet) >= 40:
        start, total, protocol, is_part = 40, 40 + int.from_bytes(packet[4:6], "big"), packet[6], 0
    else:
        return None
    if is_part or start < 20 or (total != len(packet) and not _is_larger_than_said(version, total, packet)):
        return None
    first, second, length = _ADDRESSES[version]
    ends = packet[first : first + length], packet[second : second + length]
    return (
        _datagram(packet, start, ends)
        if protocol == UDP
        else _segment(packet, start, ends)
        if protocol == TCP
        else None
    )


def _is_larger_than_said(version: int, total: int, packet: bytes) -> bool:
    """What the kernel made of several segments may have no length that fits its header (RFC 2675, section 4)."""
    return total == (0 if version == 4 else 40) and len(packet) > 0xFFFF


def _datagram(packet: bytes, start: int, ends: tuple[bytes, bytes]) -> Packet | None:
    if len(packet) < start + _UDP.size:
        return None
    source_port, port, length, _ = _UDP.unpack_from(packet, start)
    if length != len(packet) - start:
        return None
    return Packet(UDP, *ends, source_port, port, packet[start + _UDP.size :])


def _segment(packet: bytes, start: int, ends: tuple[bytes, bytes]) -> Packet | None:
    if len(packet) < start + _TCP.size:
        return None
    source_port, port, sequence, acknowledged, offset, flags, *_ = _TCP.unpack_from(packet, start)
    data_at = start + (offset >> 4) * 4
    if not start + _TCP.size <= data_at <= len(packet):
        return None
    multipath = _MULTIPATH in _options(packet[start + _TCP.size : data_at])
    return Packet(TCP, *ends, source_port, port, packet[data_at:], sequence, acknowledged, flags, multipath)


def _options(said: bytes) -> Iterator[int]:
    """The kinds of a segment's options."""
    at = 0
    while at < len(said) and said[at] != _END_OF_OPTIONS:
        yield said[at]
        at += 1 if said[at] == _NO_OPTION else max(int.from_bytes(said[at + 1 : at + 2], "big"), 1)


def made(packet: Packet) -> bytes:
    """A packet from its IP header on."""
    if packet.protocol == UDP:
        length = _UDP.size + len(packet.data)
        head = _UDP.pack(packet.source_port, packet.port, length, 0)
        at = 6
    else:
        head = _TCP.pack(
            packet.source_port, packet.port, packet.sequence, packet.acknowledged, 5 << 4, packet.flags, _WINDOW, 0, 0
        )
        at = 16
    whole = head + packet.data
    pseudo = packet.source + packet.target + struct.pack(">II", len(whole), packet.protocol)
    sum_ = _checksum(pseudo + whole) or 0xFFFF  # zero says that there is none (RFC 768)
    whole = whole[:at] + sum_.to_bytes(2, "big") + whole[at + 2 :]
    if len(packet.source) == 16:
        return struct.pack(">IHBB", 6 << 28, len(whole), packet.protocol, _HOPS) + packet.source + packet.target + whole
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(whole), 0, 0x4000, _HOPS, packet.protocol, 0)
    head += packet.source + packet.target
    return head[:10] + _checksum(head).to_bytes(2, "big") + head[12:] + whole


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    padded = data + bytes(len(data) % 2)
    total: int = sum(struct.unpack(f">{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
