"""A packet that is walked, and the answer to it."""

from __future__ import annotations

import ipaddress

from cni.values import dataclass

#: A port that nobody listens at and no rule is about, for the end that asks.
ANY_PORT = 40404


@dataclass(frozen=True)
class Packet:
    """The first packet of a connection, or the one that answers it. `protocol` is tcp, udp or icmp, by which ICMPv6 is meant too;
    ports are 0 for that. `error` is an ICMP error instead of an answer, which conntrack calls related.
    `meant` is what its connection was for, address and port, where it was led elsewhere, and of an answer. A `settled` one has been through the rules that translate: on its own loopback a namespace asks them once.
    """

    source: str
    target: str
    protocol: str
    port: int = 0
    source_port: int = 0
    reply: bool = False
    error: bool = False
    mark: int = 0
    translated: bool = False
    settled: bool = False
    meant: tuple[str, int] | None = None

    @property
    def called(self) -> tuple[str, int]:
        """Address and port that its connection was for, before anybody led it elsewhere."""
        return self.meant or ((self.source, self.source_port) if self.reply else (self.target, self.port))

    @property
    def family(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.target else 4

    @property
    def carried(self) -> str:
        """The protocol in the IP header, as nft spells it."""
        if self.protocol == "icmp" or self.error:
            return "icmp" if self.family == 4 else "ipv6-icmp"
        return self.protocol

    @property
    def state(self) -> str:
        """What conntrack says of it."""
        return "related" if self.error else "established" if self.reply else "new"

    def answer(self, *, error: bool = False) -> Packet:
        """What comes back for it."""
        ends, ports = (self.target, self.source), (self.source_port, self.port)
        return Packet(
            *ends, self.protocol, *ports, reply=True, error=error, translated=self.translated, meant=self.called
        )


def asked(source: str, target: str, protocol: str, port: int = 0) -> Packet:
    """The first packet of a connection."""
    ports = (port, ANY_PORT) if protocol != "icmp" else (0, 0)
    return Packet(plain(source) if source else "", plain(target), protocol, *ports)


def plain(address: str) -> str:
    """An address as everybody spells it."""
    return str(ipaddress.ip_address(address))
