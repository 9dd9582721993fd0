from __future__ import annotations

import socket
import struct

import pytest

from cni.dnsgate.packet import ACKNOWLEDGED, PUSH, SYN, TCP, UDP, Packet, made, read

FOUR = bytes([10, 1, 0, 2]), bytes([192, 0, 2, 53])
SIX = socket.inet_pton(socket.AF_INET6, "fd00::2"), socket.inet_pton(socket.AF_INET6, "2001:db8::53")


def sums_up(packet: bytes) -> bool:
    """The checksum of what is behind the IP header, with its pseudo header."""
    six = packet[0] >> 4 == 6
    ends, protocol, rest = (packet[8:40], packet[6], packet[40:]) if six else (packet[12:20], packet[9], packet[20:])
    whole = ends + struct.pack(">II", len(rest), protocol) + rest + bytes(len(rest) % 2)
    total = sum(struct.unpack(f">{len(whole) // 2}H", whole))
    return (total & 0xFFFF) + (total >> 16) in (0xFFFF, 0x1FFFE)


@pytest.mark.parametrize("ends", [FOUR, SIX], ids=["4", "6"])
@pytest.mark.parametrize("data", [b"", b"odd", b"even"])
def test_what_is_made_is_read_as_it_was_and_adds_up(ends: tuple[bytes, bytes], data: bytes):
    for packet in (
        Packet(UDP, *ends, 5353, 53, data),
        Packet(TCP, *ends, 40000, 53, data, 4294967290, 17, ACKNOWLEDGED | PUSH),
    ):
        wire = made(packet)
        assert read(wire) == packet
        assert sums_up(wire)


def test_a_header_of_ipv4_adds_up():
    head = made(Packet(UDP, *FOUR, 1, 53, b"x"))[:20]
    assert sum(struct.unpack(">10H", head)) % 0xFFFF == 0


UDP_4, UDP_6, TCP_4 = (made(Packet(*said)) for said in ((UDP, *FOUR, 9, 53, b"abcd"), (UDP, *SIX, 9, 53, b"abcd"), (TCP, *FOUR, 9, 53, b"abcd")))  # fmt: skip


def changed(packet: bytes, at: int, to: int) -> bytes:
    return packet[:at] + bytes([to]) + packet[at + 1 :]


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        UDP_4[:19],
        UDP_4[:27],
        changed(UDP_4, 0, 0x44),
        changed(UDP_4, 9, 1),
        changed(UDP_4, 6, 0x20),
        changed(UDP_4, 7, 1),
        changed(UDP_4, 3, len(UDP_4) - 1),
        changed(UDP_4, 25, 11),
        changed(UDP_4, 25, 13),
        UDP_4 + b"x",
        changed(UDP_6, 6, 0),
        changed(UDP_6, 6, 44),
        changed(UDP_6, 5, 3),
        UDP_6[:39],
        changed(TCP_4, 32, 4 << 4),
        changed(TCP_4, 32, 15 << 4),
    ],
)
def test_what_a_receiver_may_read_otherwise_is_not_read(packet: bytes):
    assert read(packet) is None


@pytest.mark.parametrize(("options", "multipath"), [
    ("020405b4", False), ("020405b4 0101 1e04 0081", True), ("01 1e0300", True), ("00 1e0300", False), ("0300 1e03", False), ("02", False),
])  # fmt: skip
def test_a_segment_that_is_one_way_of_several_is_known(options: str, multipath: bool):
    said = bytes.fromhex(options)
    said += bytes(-len(said) % 4)
    packet = bytearray(made(Packet(TCP, bytes([10, 1, 0, 2]), bytes([192, 0, 2, 53]), 40000, 53, said, 1, 0, SYN)))
    packet[32] = (5 + len(said) // 4) << 4
    assert read(bytes(packet)).multipath is multipath
