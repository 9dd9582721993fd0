"""Frames no honest pod sends: run in a pod, by its root, through a packet socket.

``forge.py LINK ETHERTYPE DST_MAC SRC_MAC HEX`` sends one frame.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab import Namespace, Pod

ARP, IPV4, IPV6, VLAN, SERVICE_VLAN = 0x0806, 0x0800, 0x86DD, 0x8100, 0x88A8
VXLAN = 4789
EVERYBODY = "ff:ff:ff:ff:ff:ff"
_UDP_SEGMENT = 103


def send(pod: Pod, kind: int, dst: str, src: str, payload: bytes, link: str = "eth0") -> None:
    """Send one frame from a pod."""
    pod.run(sys.executable, "-I", Path(__file__), link, kind, dst, src, payload.hex())


def send_vxlan(
    where: Namespace, source: str, target: str, vni: int, frame: bytes, first: int = 0, options: int = 0
) -> None:
    """Send a frame by VXLAN from an address of a namespace to a VTEP; over IPv6 perhaps in two fragments, of which the first has
    so many bytes of UDP, maybe none, behind so many of destination options (a multiple of eight).
    """
    where.run(sys.executable, "-I", Path(__file__), "vxlan", source, target, vni, frame.hex(), first, options)


def send_several(where: Namespace, source: str, target: str, vnis: Sequence[int], frame: bytes) -> None:
    """Send a frame by VXLAN of several networks, in one packet for the host's own hooks (udp(7), UDP_SEGMENT)."""
    where.run(sys.executable, "-I", Path(__file__), "several", source, target, frame.hex(), *vnis)


def _several(source: str, target: str, frame: bytes, vnis: Sequence[int]) -> None:
    with socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET, socket.SOCK_DGRAM) as plain:
        plain.bind((source, 0))
        plain.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, 8 + len(frame))
        plain.sendto(b"".join(struct.pack("!II", 0x08000000, vni << 8) + frame for vni in vnis), (target, VXLAN))


def _vxlan(source: str, target: str, vni: int, frame: bytes, first: int, options: int) -> None:
    data = struct.pack("!II", 0x08000000, vni << 8) + frame
    if not (first or options):
        with socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET, socket.SOCK_DGRAM) as plain:
            plain.bind((source, 0))
            plain.sendto(data, (target, VXLAN))
        return
    ends = b"".join(ipaddress.ip_address(text).packed for text in (source, target))
    length, ports = 8 + len(data), struct.pack("!HH", 40000, VXLAN)
    pseudo = ends + struct.pack("!II", length, 17) + ports + struct.pack("!HH", length, 0) + data
    whole = ports + struct.pack("!HH", length, _checksum(pseudo)) + data
    # one option, of those to skip where it is not known (RFC 8200, 4.2, and 0x1e of RFC 4727)
    before = struct.pack("!BBBB", 17, options // 8 - 1, 0x1E, options - 4) + bytes(options - 4) if options else b""
    whole, first, then = before + whole, options + first, 60 if options else 17
    name = int.from_bytes(os.urandom(4))  # one of its own: what is left of a packet before is no part of it
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for at, more, part in ((0, 1, whole[:first]), (first, 0, whole[first:])):
            head = struct.pack("!IHBB", 6 << 28, 8 + len(part), 44, 64) + ends
            raw.sendto(head + struct.pack("!BBHI", then, 0, at | more, name) + part, (target, 0))


def arp(sender_mac: str, sender: str, target: str) -> bytes:
    """An ARP answer that claims `sender` is at `sender_mac`."""
    raw = struct.pack("!HHBBH", 1, IPV4, 6, 4, 2) + _mac(sender_mac) + socket.inet_aton(sender)
    return raw + _mac(EVERYBODY) + socket.inet_aton(target)


def udp(source: str, target: str, port: int, text: str) -> bytes:
    """A UDP datagram in IPv4 or IPv6."""
    four = ":" not in source
    data = struct.pack("!HHHH", 40000, port, 8 + len(text), 0) + text.encode()
    addresses = ipaddress.ip_address(source).packed + ipaddress.ip_address(target).packed
    if four:
        return _four(17, addresses, data)
    pseudo = addresses + struct.pack("!II", len(data), 17)
    data = data[:6] + struct.pack("!H", _checksum(pseudo + data)) + data[8:]
    return struct.pack("!IHBB", 6 << 28, len(data), 17, 64) + addresses + data


def sctp(source: str, target: str, port: int, text: str) -> bytes:
    """An SCTP packet in IPv4: this kernel need not speak SCTP to carry it (RFC 9260, 3.1; no checksum)."""
    data = struct.pack("!HHII", 40000, port, 0, 0) + b"\x01\x00" + struct.pack("!H", 20) + bytes(16) + text.encode()
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(data), 1, 0, 64, 132, 0)
    head += socket.inet_aton(source) + socket.inet_aton(target)
    return head[:10] + struct.pack("!H", _checksum(head)) + head[12:] + data


def tcp(source: str, target: str, sport: int, dport: int, flags: int, text: str) -> bytes:
    """A TCP segment in IPv4 or IPv6, of no connection anybody began."""
    data = struct.pack("!HHIIBBHHH", sport, dport, 1000, 2000, 0x50, flags, 64000, 0, 0) + text.encode()
    addresses = ipaddress.ip_address(source).packed + ipaddress.ip_address(target).packed
    pseudo = addresses + struct.pack("!II", len(data), 6)
    data = data[:16] + struct.pack("!H", _checksum(pseudo + data)) + data[18:]
    if ":" in source:
        return struct.pack("!IHBB", 6 << 28, len(data), 6, 64) + addresses + data
    return _four(6, addresses, data)


def redirect(gateway: str, victim: str, better: str, about: str) -> bytes:
    """A redirect in a gateway's name: what a victim sends to an address is better sent to somebody else (RFC 792; RFC 4861, 4.5)."""
    if ":" in gateway:
        return icmpv6(
            gateway,
            victim,
            137,
            255,
            bytes(4) + b"".join(ipaddress.ip_address(text).packed for text in (better, about)),
        )
    body = struct.pack("!BBH", 5, 1, 0) + socket.inet_aton(better) + udp(victim, about, 80, "asked")[:28]
    body = body[:2] + struct.pack("!H", _checksum(body)) + body[4:]
    return _four(1, socket.inet_aton(gateway) + socket.inet_aton(victim), body)


def _four(protocol: int, addresses: bytes, data: bytes) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(data), 1, 0, 64, protocol, 0) + addresses
    return head[:10] + struct.pack("!H", _checksum(head)) + head[12:] + data


def advertisement(source: str, target: str, claimed: str, mac: str) -> bytes:
    """An IPv6 neighbour advertisement: `claimed` is at `mac`, overriding what is known."""
    body = struct.pack("!BBHI", 136, 0, 0, 0x60000000) + ipaddress.ip_address(claimed).packed + b"\x02\x01" + _mac(mac)
    addresses = ipaddress.ip_address(source).packed + ipaddress.ip_address(target).packed
    checksum = _checksum(addresses + struct.pack("!II", len(body), 58) + body)
    body = body[:2] + struct.pack("!H", checksum) + body[4:]
    return struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + addresses + body


def tagged(*kinds: int, payload: bytes) -> bytes:
    """A packet behind priority tags (VID 0); `kinds` are the tags' EtherTypes but the first, then the packet's."""
    return b"".join(struct.pack("!HH", 0, kind) for kind in kinds) + payload


def icmpv6(source: str, target: str, kind: int, hops: int, body: bytes) -> bytes:
    """An ICMPv6 message with whatever behind its first 4 bytes; MLD's router alert is left out (RFC 3810, 5)."""
    body = struct.pack("!BBH", kind, 0, 0) + body
    addresses = ipaddress.ip_address(source).packed + ipaddress.ip_address(target).packed
    body = body[:2] + struct.pack("!H", _checksum(addresses + struct.pack("!II", len(body), 58) + body)) + body[4:]
    return struct.pack("!IHBB", 6 << 28, len(body), 58, hops) + addresses + body


def igmp_query(source: str) -> bytes:
    """An IGMPv2 general query (RFC 2236)."""
    body = struct.pack("!BBHI", 0x11, 100, 0xEE9B, 0)
    head = (
        struct.pack("!BBHHHBBH", 0x45, 0, 28, 1, 0, 1, 2, 0) + socket.inet_aton(source) + socket.inet_aton("224.0.0.1")
    )
    return head[:10] + struct.pack("!H", _checksum(head)) + head[12:] + body


def router_advertisement(source: str, prefix: str) -> bytes:
    """A router advertisement to everybody with a prefix to make addresses of (RFC 4861, 4.2 and 4.6.2)."""
    information = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 86400, 14400, 0) + ipaddress.ip_address(prefix).packed
    return icmpv6(source, "ff02::1", 134, 255, struct.pack("!BBHII", 64, 0, 1800, 0, 0) + information)


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _checksum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


if __name__ == "__main__":
    if sys.argv[1] == "vxlan":
        _vxlan(*sys.argv[2:4], int(sys.argv[4]), bytes.fromhex(sys.argv[5]), *map(int, sys.argv[6:]))
        sys.exit()
    if sys.argv[1] == "several":
        _several(*sys.argv[2:4], bytes.fromhex(sys.argv[4]), list(map(int, sys.argv[5:])))
        sys.exit()
    name, ethertype, destination, origin, text = sys.argv[1:]
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((name, 0))
        raw.send(_mac(destination) + _mac(origin) + struct.pack("!H", int(ethertype)) + bytes.fromhex(text))
