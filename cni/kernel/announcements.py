"""Saying where a pod's addresses live when its call is answered (RFC 5227, section 3; RFC 4861, section 7.2.6; packet(7)).

A broadcast goes out at every port of a bridge before the system call that sends it returns: at 1,000 ports that is milliseconds,
in which a runtime would wait for what is nothing to its pod.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address

from cni.kernel import arp
from cni.kernel.kept import Kept
from cni.kernel.waiting import Waiting
from cni.naming import IPAddress

_ALL_NODES = IPv6Address("ff02::1").packed
_ETHERNET_OF_ALL_NODES = bytes.fromhex("333300000001")
_ETH_P_IPV6, _ICMPV6, _HOP_LIMIT = 0x86DD, 58, 255
_ADVERTISEMENT, _OVERRIDE, _TARGET_MAC = 136, 0x20000000, b"\x02\x01"


class _Announcement:
    """It goes out by the link it was begun for or not at all: where that is gone, or in another namespace by now, the kernel takes no frame."""

    def __init__(self, link: str, addresses: Sequence[IPAddress]) -> None:
        self._addresses = addresses
        self._link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        try:
            self._link.bind((link, 0))
        except OSError:
            self._link.close()
            raise

    def say(self) -> None:
        """Say it of the MAC the link has. Who changes that meanwhile has the kernel say so, and what comes last must be true."""
        said = b""
        with self._link, suppress(OSError):
            while (mac := self._link.getsockname()[4]) != said:
                for address in self._addresses:
                    self._link.send(_frame(mac, address))
                said = mac


class Announcements(Kept):
    """Each is begun in the pod's namespace, and said when the call is answered and that namespace is let go: by a thread, because
    the kernel lets who closes a packet socket wait for a grace period.
    """

    def __init__(self) -> None:
        super().__init__()
        self._begun: list[_Announcement] = []
        self._waiting = Waiting()

    @property
    def pending(self) -> int:
        """How many are not over yet."""
        return len(self._begun) + self._waiting.pending

    def begin(self, link: str, addresses: Sequence[IPAddress]) -> bool:
        """Have some addresses of a link of this thread's namespace announced; whether the kernel has sockets for that."""
        with suppress(OSError):
            self._begun.append(_Announcement(link, addresses))
            return True
        return False

    def let_go(self) -> None:
        while self._begun:
            self._waiting.begin(self._begun.pop(0).say, "announces")

    def close(self) -> None:
        self.let_go()
        self._waiting.end()


announcements = Announcements()


def _frame(mac: bytes, address: IPAddress) -> bytes:
    """What the kernel sends where a link's MAC is set (inetdev_send_gratuitous_arp, ndisc_send_unsol_na)."""
    return arp.question(mac, address, address) if isinstance(address, IPv4Address) else _advertised(mac, address)


def _advertised(mac: bytes, address: IPv6Address) -> bytes:
    target = address.packed + _TARGET_MAC + mac
    length = 8 + len(target)
    summed = (
        address.packed + _ALL_NODES + struct.pack("!IIBxHI", length, _ICMPV6, _ADVERTISEMENT, 0, _OVERRIDE) + target
    )
    total = sum(struct.unpack(f"!{len(summed) // 2}H", summed))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    head = arp.ETHERNET.pack(_ETHERNET_OF_ALL_NODES, mac, _ETH_P_IPV6)
    head += struct.pack("!IHBB", 0x60000000, length, _ICMPV6, _HOP_LIMIT) + address.packed + _ALL_NODES
    return head + struct.pack("!BxHI", _ADVERTISEMENT, checksum, _OVERRIDE) + target
