"""Netlink on the wire: messages and their attributes, packed and read (netlink(7), linux/netlink.h).

Packed here because a library takes ten times as long for one; tests compare every request with what pyroute2 makes of it.
"""

from __future__ import annotations

import errno
import struct
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from typing import ParamSpec, TypeVar

from cni.errors import KernelRefused

P = ParamSpec("P")
T = TypeVar("T")

#: struct nlmsghdr: length, kind, flags, sequence, port.
HEADER = struct.Struct("=IHHII")
#: Flags of a request.
REQUEST, ACK, REPLACE, EXCLUSIVE, CREATE, APPEND, DUMP = 0x01, 0x04, 0x100, 0x200, 0x400, 0x800, 0x300
#: The kernel's number of an IP version (socket.h).
FAMILY = {4: 2, 6: 10}

_ATTRIBUTE, _U32 = struct.Struct("=HH"), struct.Struct("=I")
_FLAGS_AT, _SEQUENCE_AT, _PORT_AT = 6, 8, 12
_NESTED, _NUMBER = 0x8000, 0x3FFF  # an attribute's number has two bits of its own


def message(kind: int, flags: int, *parts: bytes) -> bytes:
    """A message without a sequence number: what its kind begins with, then attributes."""
    body = b"".join(parts)
    return HEADER.pack(HEADER.size + len(body), kind, flags, 0, 0) + body


def request(kind: int, how: int, *parts: bytes) -> bytes:
    """A message that asks for something and for word that it is done."""
    return message(kind, how | REQUEST | ACK, *parts)


def unacknowledged(request: bytes) -> bytes:
    """The same, where word is not waited for."""
    return request[:_FLAGS_AT] + bytes([request[_FLAGS_AT] & ~ACK]) + request[_FLAGS_AT + 1 :]


def is_acknowledged(request: bytes) -> bool:
    """Whether word of a request is to be waited for."""
    return bool(request[_FLAGS_AT] & ACK)


def numbered(request: bytes, sequence: int) -> bytes:
    """The same with the number by which its answers are known."""
    return request[:_SEQUENCE_AT] + _U32.pack(sequence) + request[_PORT_AT:]


def messages(data: bytes) -> Iterator[bytes]:
    """The messages of what was received at once. Raises KernelRefused where one is cut off."""
    at, whole = 0, len(data)
    while at < whole:
        length = HEADER.unpack_from(data, at)[0] if whole - at >= HEADER.size else 0
        if not HEADER.size <= length <= whole - at:
            raise KernelRefused(f"netlink: a message of {length} bytes is cut off", errno.EPROTO)
        yield data[at : at + length]
        at += (length + 3) & ~3


def understood(read: Callable[P, T]) -> Callable[P, T]:
    """What reads a message, and raises KernelRefused where that is too short, or has not what every one of its kind has."""

    @wraps(read)
    def reads(*given: P.args, **named: P.kwargs) -> T:
        try:
            return read(*given, **named)
        except (LookupError, ValueError, OverflowError, struct.error) as error:
            raise KernelRefused(f"netlink: a message is not understood: {error!r}", errno.EPROTO) from None

    return reads


# --- attributes


def attribute(number: int, value: bytes) -> bytes:
    """An attribute, padded."""
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, number) + value + bytes(-length % 4)


def nested(number: int, *attributes: bytes) -> bytes:
    """An attribute of attributes, marked as one: nf_tables insists on it."""
    return attribute(number | _NESTED, b"".join(attributes))


def attributes(data: bytes, at: int = 0) -> dict[int, bytes]:
    """The attributes from there on, by number."""
    found, head, last = {}, _ATTRIBUTE.unpack_from, len(data) - _ATTRIBUTE.size
    while at <= last:  # not made of `listed`, which would cost every link a fifth more
        length, number = head(data, at)
        found[number & _NUMBER] = data[at + 4 : at + length]
        at += (length + 3) & ~3 or _ATTRIBUTE.size  # never stand still
    return found


def listed(data: bytes) -> Iterator[bytes]:
    """The values of a list: of attributes that all have the same number."""
    at, last = 0, len(data) - _ATTRIBUTE.size
    while at <= last:
        length, _ = _ATTRIBUTE.unpack_from(data, at)
        yield data[at + 4 : at + length]
        at += (length + 3) & ~3 or _ATTRIBUTE.size


def u8(value: int) -> bytes:
    """A number of one byte."""
    return bytes([value])


def u32(value: int) -> bytes:
    """A number of four bytes in the machine's order."""
    return _U32.pack(value)


def number_of(value: bytes) -> int:
    """A number of any size in the machine's order; of nothing, 0."""
    return int.from_bytes(value, sys.byteorder)


def string(text: str) -> bytes:
    """A text as the kernel reads it, ended by a zero."""
    return text.encode() + b"\0"


def text_of(value: bytes) -> str:
    """A text the kernel wrote."""
    return value.rstrip(b"\0").decode(errors="surrogateescape")


def packed_mac(text: str) -> bytes:
    """A MAC address."""
    return bytes.fromhex(text.replace(":", ""))


def mac_of(value: bytes) -> str:
    """A MAC address as we write it."""
    return value.hex(":")
