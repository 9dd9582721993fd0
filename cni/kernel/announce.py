"""Telling a network where an address lives now: gratuitous ARP and unsolicited neighbour advertisements.

Sources: RFC 5227 section 3 (ARP announcement), RFC 4861 sections 4.4 and 7.2.6 (neighbour
advertisement with the override flag, to all nodes).
"""

from __future__ import annotations

import socket
import struct

from cni.naming import IPAddress

_ARP, _IPV6 = 0x0806, 0x86DD
_BROADCAST = b"\xff" * 6
_ALL_NODES_MAC = bytes.fromhex("333300000001")
_ALL_NODES = socket.inet_pton(socket.AF_INET6, "ff02::1")
_OVERRIDE = 0x20000000


def send(ifname: str, mac: str, addresses: list[IPAddress]) -> None:
    """Announce addresses from a link of the namespace this thread is in."""
    own = bytes.fromhex(mac.replace(":", ""))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
        link.bind((ifname, 0))
        for address in addresses:
            frame = arp(own, address.packed) if address.version == 4 else advertisement(own, address.packed)
            link.send(frame)


def arp(mac: bytes, address: bytes) -> bytes:
    """An Ethernet frame with an ARP request from and for one IPv4 address."""
    header = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
    return _BROADCAST + mac + struct.pack("!H", _ARP) + header + mac + address + b"\0" * 6 + address


def advertisement(mac: bytes, address: bytes) -> bytes:
    """An Ethernet frame with an unsolicited neighbour advertisement for one IPv6 address."""
    body = struct.pack("!I", _OVERRIDE) + address + b"\x02\x01" + mac
    icmp = struct.pack("!BBH", 136, 0, _checksum(address, 136 << 24, body)) + body
    header = struct.pack("!IHBB", 6 << 28, len(icmp), socket.IPPROTO_ICMPV6, 255)
    return _ALL_NODES_MAC + mac + struct.pack("!H", _IPV6) + header + address + _ALL_NODES + icmp


def _checksum(source: bytes, head: int, body: bytes) -> int:
    """The Internet checksum over the IPv6 pseudo-header and the message (RFC 8200, section 8.1)."""
    pseudo = source + _ALL_NODES + struct.pack("!II", 4 + len(body), socket.IPPROTO_ICMPV6)
    data = pseudo + struct.pack("!I", head) + body
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
