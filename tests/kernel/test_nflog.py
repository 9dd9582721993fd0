"""What the kernel logs for a listener, read from its messages."""

from __future__ import annotations

import socket
import struct

import pytest

from cni.kernel.netlink.wire import attribute
from cni.kernel.nflog import Logged, read


def message(payload: bytes, *, at: bool = True) -> bytes:
    stamp = attribute(3, struct.pack(">QQ", 1_700_000_000, 250_000)) if at else b""
    body = b"\x02\x00\x12\x87" + attribute(10, b"agent-cni drop in a/b: \0") + stamp + attribute(9, payload)
    return struct.pack("=IHHII", 16 + len(body), 4 << 8, 0, 0, 0) + body


def four(protocol: int, rest: bytes, fragment: int = 0) -> bytes:
    ends = socket.inet_aton("10.0.0.1") + socket.inet_aton("10.0.0.2")
    return struct.pack(">BBHHHBBH", 0x46, 0, 60, 0, fragment, 64, protocol, 0) + ends + b"\x01" * 4 + rest


def six(protocol: int, rest: bytes) -> bytes:
    ends = socket.inet_pton(socket.AF_INET6, "fd00::1") + socket.inet_pton(socket.AF_INET6, "fd00::2")
    return struct.pack(">IHBB", 6 << 28, len(rest), protocol, 64) + ends + rest


PORTS = struct.pack(">HHI", 40000, 443, 0)
FOUR, SIX = ("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")
SEEN: dict[str, tuple[bytes, tuple[str, str, str, int, int]]] = {
    "tcp with options": (four(6, PORTS), (*FOUR, "tcp", 40000, 443)),
    "udp": (four(17, PORTS), (*FOUR, "udp", 40000, 443)),
    "sctp over six": (six(132, PORTS), (*SIX, "sctp", 40000, 443)),
    "ping": (four(1, PORTS), (*FOUR, "icmp", 0, 0)),
    "ping over six": (six(58, PORTS), (*SIX, "icmp", 0, 0)),
    "another protocol": (four(47, PORTS), (*FOUR, "47", 0, 0)),
    "a later fragment": (four(17, PORTS, fragment=0x2001), (*FOUR, "udp", 0, 0)),
    "cut off": (four(6, b"\x01"), (*FOUR, "tcp", 0, 0)),
    "no packet": (b"", ("", "", "", 0, 0)),
    "half a header": (b"\x45\x00", ("", "", "", 0, 0)),
}


@pytest.mark.parametrize("case", SEEN)
def test_a_packet_is_read(case: str) -> None:
    payload, flow = SEEN[case]
    assert read(message(payload)) == Logged(1_700_000_000.25, "agent-cni drop in a/b: ", *flow)


def test_a_packet_without_a_time_has_none() -> None:
    assert read(message(b"", at=False)).at == 0
