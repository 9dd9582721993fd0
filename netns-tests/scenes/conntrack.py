"""Forgetting a namespace's connections, as the kernel does when their time ran out, and having as many as it may: conntrack(8) is not needed for it."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab import Namespace


_NEW, _DELETE, _REQUEST, _ACK = 1 << 8, 1 << 8 | 2, 0x01, 0x04  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_NEW and _DELETE
_CREATE, _CONFIRMED_AND_ASSURED, _UDP = 0x400, 0x0C, 17  # nothing is dropped early for others' sake that is assured
_MOST = Path("/proc/sys/net/netfilter/nf_conntrack_max")  # one for all namespaces, each of which may have so many
_COUNT = Path("/proc/sys/net/netfilter/nf_conntrack_count")
_AT_ONCE = 400


def forget(where: Namespace) -> None:
    """Delete every conntrack entry of a namespace."""
    _within(where, "forget")


def fill(where: Namespace) -> None:
    """Have a namespace know as many connections as it may, for ten minutes."""
    _within(where, "fill")


def _within(where: Namespace, what: str) -> None:
    subprocess.run(["nsenter", f"--net={where.path}", sys.executable, "-I", str(Path(__file__)), what], check=True)


def _forget_here() -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as door:
        for family in (2, 10):
            door.sendall(struct.pack("=IHHIIBBH", 20, _DELETE, _REQUEST | _ACK, family, 0, family, 0, 0))
            error = -struct.unpack_from("=i", door.recv(4096), 16)[0]
            assert not error, f"the kernel refused: {error}"


def _fill_here() -> None:
    number, most = 0, int(_MOST.read_text())
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as door:
        while int(_COUNT.read_text()) < most:
            assert number <= 2 * most, "connections go as fast as they come"
            door.sendall(b"".join(map(_connection, range(number, number + _AT_ONCE))))
            number += _AT_ONCE


def _connection(number: int) -> bytes:
    """The message that makes one: of UDP, from 10.200.0.0/16 to 10.201.0.1."""
    here, there = socket.inet_aton(f"10.200.{number >> 8 & 255}.{number & 255}"), socket.inet_aton("10.201.0.1")
    port = 1024 + (number >> 16)
    said = b"".join(
        _nested(kind, _nested(1, _attribute(1, source) + _attribute(2, target)), _nested(2, _attribute(1, bytes([_UDP])) + _attribute(2, struct.pack(">H", port)) + _attribute(3, struct.pack(">H", port))))
        for kind, source, target in ((1, here, there), (2, there, here))
    )  # fmt: skip
    said += _attribute(3, struct.pack(">I", _CONFIRMED_AND_ASSURED)) + _attribute(7, struct.pack(">I", 600))
    return struct.pack("=IHHIIBBH", 20 + len(said), _NEW, _REQUEST | _CREATE, number, 0, 2, 0, 0) + said


def _nested(kind: int, *inner: bytes) -> bytes:
    return _attribute(kind | 1 << 15, b"".join(inner))


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


if __name__ == "__main__":
    {"forget": _forget_here, "fill": _fill_here}[sys.argv[1]]()
