"""Frames byte for byte, as RFC 826, RFC 4861 and RFC 8200 lay them out."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.kernel import announce

MAC = bytes.fromhex("0a580af40105")


ARP = """
    ff ff ff ff ff ff  0a 58 0a f4 01 05  08 06
    00 01 08 00 06 04 00 01
    0a 58 0a f4 01 05  0a f4 01 05
    00 00 00 00 00 00  0a f4 01 05
"""

ADVERTISEMENT = """
    33 33 00 00 00 01  0a 58 0a f4 01 05  86 dd
    60 00 00 00 00 20 3a ff
    fd 00 02 44 00 00 00 00 00 00 00 00 00 01 00 05
    ff 02 00 00 00 00 00 00 00 00 00 00 00 00 00 01
    88 00 41 b9 20 00 00 00
    fd 00 02 44 00 00 00 00 00 00 00 00 00 01 00 05
    02 01 0a 58 0a f4 01 05
"""


def test_an_arp_announcement():
    assert announce.arp(MAC, ip_address("10.244.1.5").packed) == bytes.fromhex(ARP)


def test_an_unsolicited_neighbour_advertisement():
    assert announce.advertisement(MAC, ip_address("fd00:244::1:5").packed) == bytes.fromhex(ADVERTISEMENT)


@given(st.ip_addresses(v=6), st.binary(min_size=6, max_size=6))
def test_the_checksum_is_the_one_receivers_verify(address, mac: bytes):
    frame = announce.advertisement(mac, address.packed)
    source, target, message = frame[22:38], frame[38:54], frame[54:]
    words = source + target + struct.pack("!II", len(message), 58) + message
    total = sum(struct.unpack(f"!{len(words) // 2}H", words))
    assert (total & 0xFFFF) + (total >> 16) in (0xFFFF, 0x1FFFE)


class FakeSocket:
    """Stands for a packet socket."""

    made: list[FakeSocket]

    def __init__(self, *kind: int) -> None:
        self.kind, self.bound, self.sent, self.closed = kind, None, [], False
        FakeSocket.made.append(self)

    def bind(self, where: tuple[str, int]) -> None:
        self.bound = where

    def send(self, frame: bytes) -> None:
        self.sent.append(frame)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True


def test_every_address_is_announced_by_its_familys_frame(monkeypatch: pytest.MonkeyPatch):
    FakeSocket.made = []
    monkeypatch.setattr(announce.socket, "socket", FakeSocket)
    addresses = [ip_address("10.244.1.5"), ip_address("fd00::5")]
    announce.send("eth0", "0a:58:0a:f4:01:05", addresses)
    (used,) = FakeSocket.made
    assert used.bound == ("eth0", 0)
    assert used.sent == [announce.arp(MAC, addresses[0].packed), announce.advertisement(MAC, addresses[1].packed)]
    assert used.closed
