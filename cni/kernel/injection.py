"""Packets given to a pod that nobody sent: onto the host end of its link, or where it is itself (packet(7), raw(7))."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from contextlib import suppress

from cni.errors import KernelRefused

_ETHERTYPE = {4: 0x0800, 6: 0x86DD}
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_AT_ONCE_IN_IPV6 = 36  # IPV6_HDRINCL (linux/in6.h)


class OntoLinks:
    """Of the namespace this thread is in when it is opened: no rule of its netfilter sees what goes out. Raises KernelRefused."""

    def __init__(self) -> None:
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        except OSError as error:
            raise KernelRefused(f"a packet socket: {error.strerror}", error.errno or 0) from None

    def give(self, packet: bytes, link: str, mac: bytes) -> None:
        """Send a packet out by a link to who has a MAC there; who is gone by now gets none."""
        with suppress(OSError):
            self._socket.sendto(packet, (link, _ETHERTYPE[packet[0] >> 4], 0, 0, mac))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class Inside:
    """Sockets of a pod's namespace, opened by a thread that is in it: what is sent is for its own addresses. Raises KernelRefused."""

    def __init__(self, families: Iterable[int]) -> None:
        self._sockets: dict[int, socket.socket] = {}
        try:
            for family in families:
                self._open(family)
        except OSError as error:
            self.close()
            raise KernelRefused(f"a raw socket: {error.strerror}", error.errno or 0) from None

    def _open(self, family: int) -> None:
        """A kernel without IPv6 has no pods that would be given anything by it."""
        try:
            made = self._sockets[family] = socket.socket(_FAMILY[family], socket.SOCK_RAW, socket.IPPROTO_RAW)
        except OSError as error:
            if error.errno != errno.EAFNOSUPPORT:
                raise
            return
        if family == 6:
            made.setsockopt(socket.IPPROTO_IPV6, _AT_ONCE_IN_IPV6, 1)

    def give(self, packet: bytes) -> None:
        """Have a packet come to whom it is for; where that address is gone by now nobody gets it."""
        family = packet[0] >> 4
        if family in self._sockets:
            target = packet[16:20] if family == 4 else packet[24:40]
            with suppress(OSError):
                self._sockets[family].sendto(packet, (socket.inet_ntop(_FAMILY[family], target), 0))

    def close(self) -> None:
        """Close the sockets."""
        for made in self._sockets.values():
            made.close()
