"""Whether somebody on a wire has an IPv4 address: ARP probes (RFC 5227, section 2.1; packet(7))."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Collection, Iterator
from ipaddress import IPv4Address

from cni.errors import KernelRefused

_ETH_P_ARP = 0x0806
ETHERNET = struct.Struct("!6s6sH")
#: Kinds of addresses and their lengths, operation, then MAC and address of who asks, and of who is asked for.
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_REQUEST = 1
_NOBODY = IPv4Address(0)
#: How often is asked, and how long is listened after each, in seconds. The RFC's times are for radio links and are three seconds.
_PROBES, _PATIENCE = 3, 0.2


def holder_of(addresses: Collection[IPv4Address], link: str, mac: str) -> tuple[IPv4Address, str] | None:
    """The first of several addresses that somebody has, or probes for, on a link of this thread's namespace, and his MAC.

    `mac` is the link's, and nobody else's on that wire: its frames are not heard. Raises KernelRefused.
    """
    own = bytes.fromhex(mac.replace(":", ""))
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ARP)) as wire:
            wire.bind((link, _ETH_P_ARP))
            for _ in range(_PROBES):
                for address in addresses:
                    wire.send(question(own, _NOBODY, address))
                for held, sender in _heard(wire):
                    if held in addresses and sender != own:
                        return held, sender.hex(":")
    except OSError as error:
        raise KernelRefused(f"ARP on {link}: {error.strerror}", error.errno or 0) from None
    return None


def question(own: bytes, source: IPv4Address, target: IPv4Address) -> bytes:
    """The frame that asks everybody who has an address: a probe for nobody, and an announcement of the one that asks."""
    head = ETHERNET.pack(b"\xff" * 6, own, _ETH_P_ARP)
    return head + _ARP.pack(1, 0x0800, 6, 4, _REQUEST, own, source.packed, bytes(6), target.packed)


def _heard(wire: socket.socket) -> Iterator[tuple[IPv4Address, bytes]]:
    """Which address each frame claims, and the MAC that does."""
    deadline = time.monotonic() + _PATIENCE
    while (left := deadline - time.monotonic()) > 0:
        wire.settimeout(left)
        try:
            frame = wire.recv(128)
        except TimeoutError:
            return
        if len(frame) >= ETHERNET.size + _ARP.size:
            _, _, _, _, operation, sender, source, _, target = _ARP.unpack_from(frame, ETHERNET.size)
            probed = operation == _REQUEST and source == _NOBODY.packed
            yield IPv4Address(target if probed else source), sender
