"""What rules with `log group` tell whoever listens to that group (linux/netfilter/nfnetlink_log.h), in the namespace the listener is in."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from cni.errors import Conflict, KernelRefused
from cni.kernel import nfnetlink
from cni.kernel.conntrack import shed_by
from cni.kernel.netlink.channel import NETFILTER
from cni.kernel.netlink.wire import ACK, HEADER, attribute, attributes, messages, understood

_NFLOG, _PACKET, _CONFIG = 4 << 8, 0, 1
_COMMAND, _MODE = 1, 2
_BIND, _COPY_PACKET = b"\x01", 2
_TIMESTAMP, _PAYLOAD, _PREFIX = 3, 9, 10
_BODY_AT, _COPIED, _BUFFER = HEADER.size + 4, 128, 1 << 16
_NLMSG_ERROR = 2
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp", 132: "sctp"}
_WITH_PORTS = ("tcp", "udp", "sctp")


class Logged(NamedTuple):
    """A packet that a rule logged: `prefix` is the rule's, `at` in seconds since the epoch, 0 where the kernel does not say; ports
    are 0 where its protocol, by name or number, has none.
    """

    at: float
    prefix: str
    source: str
    target: str
    protocol: str
    source_port: int = 0
    port: int = 0


class Listener:
    """A socket of the namespace this thread is in. Raises Conflict where somebody listens to the group, and KernelRefused."""

    def __init__(self, group: int) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER)
            self._socket.bind((0, 0))
            self._configure(group, attribute(_COMMAND, _BIND))
            self._configure(group, attribute(_MODE, struct.pack(">IBx", _COPIED, _COPY_PACKET)))
        except OSError as error:
            if error.errno in (errno.EBUSY, errno.EPERM):
                raise Conflict(f"nflog group {group}: somebody else listens to it, or nobody may") from None
            raise KernelRefused(f"nflog: listening: {error.strerror}", error.errno or 0) from None

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def fileno(self) -> int:
        """Readable when there is something to hear."""
        return self._socket.fileno()

    def packets(self) -> Iterator[Logged]:
        """What is logged from now on, as it comes; of more than the socket holds the rest is lost."""
        while True:
            yield from self._heard(0)

    def waiting(self, most: int) -> Iterator[Logged]:
        """What waits to be heard, of at most so many messages, each of several packets."""
        for _ in range(most):
            try:
                yield from self._heard(socket.MSG_DONTWAIT)
            except BlockingIOError:
                return

    @property
    def shed(self) -> int:
        """How many messages the socket had no room for."""
        return shed_by(self._socket)

    def _heard(self, flags: int) -> Iterator[Logged]:
        try:
            received = self._socket.recv(_BUFFER, flags)
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                return
            raise KernelRefused(f"nflog: {error.strerror}", error.errno or 0) from None
        for message in messages(received):
            if struct.unpack_from("=H", message, 4)[0] == _NFLOG | _PACKET:
                yield read(message)

    def _configure(self, group: int, body: bytes) -> None:
        self._socket.send(nfnetlink.message(_NFLOG | _CONFIG, ACK, 0, group, body))
        while True:
            for message in messages(self._socket.recv(_BUFFER)):
                if struct.unpack_from("=H", message, 4)[0] == _NLMSG_ERROR:
                    (code,) = struct.unpack_from("=i", message, HEADER.size)
                    if code:
                        raise OSError(-code, errno.errorcode.get(-code, str(code)))
                    return


@understood
def read(message: bytes) -> Logged:
    """What a message of a listener's group says."""
    found = attributes(message, _BODY_AT)
    seconds, micros = struct.unpack(">QQ", found[_TIMESTAMP]) if _TIMESTAMP in found else (0, 0)
    prefix = found.get(_PREFIX, b"").rstrip(b"\0").decode(errors="replace")
    return Logged(seconds + micros / 1e6, prefix, *_flow(found.get(_PAYLOAD, b"")))


def _flow(packet: bytes) -> tuple[str, str, str, int, int]:
    """Who sends to whom, by which protocol and ports; of IPv6 only where its first header is the protocol's."""
    version, shortest = (packet[0] >> 4 if packet else 0), {4: 20, 6: 40}
    if version not in shortest or len(packet) < shortest[version]:
        return "", "", "", 0, 0
    if version == 4:
        number, start, later = packet[9], (packet[0] & 15) * 4, int.from_bytes(packet[6:8], "big") & 0x1FFF
        ends = packet[12:16], packet[16:20]
    else:
        number, start, later = packet[6], 40, 0
        ends = packet[8:24], packet[24:40]
    protocol = _PROTOCOLS.get(number, str(number))
    ports = packet[start : start + 4] if protocol in _WITH_PORTS and not later else b""
    numbers = struct.unpack(">HH", ports) if len(ports) == 4 else (0, 0)
    source, target = (str(ipaddress.ip_address(end)) for end in ends)
    return source, target, protocol, *numbers
