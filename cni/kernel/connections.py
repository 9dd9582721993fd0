"""A namespace's TCP connections, told to conntrack as they are: so they are not new to rules that come after them.

Sources: proc_net_tcp.rst, linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from cni.errors import KernelRefused
from cni.kernel.netlink.channel import NETFILTER, Channel
from cni.kernel.netlink.wire import (
    ACK,
    CREATE,
    DUMP,
    EXCLUSIVE,
    FAMILY,
    HEADER,
    attribute,
    attributes,
    nested,
    u32,
    understood,
)
from cni.kernel.nfnetlink import message
from cni.naming import IPAddress

_OWN = Path("/proc/thread-self/net")
#: States of include/net/tcp_states.h in which both ends know of a connection.
_ALIVE = frozenset({1, 3, 4, 5, 8, 9, 11})
_TCP, _NEW, _GET = 6, 1 << 8, 1 << 8 | 1  # IPPROTO_TCP; NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_NEW, _GET
_BODY_AT = HEADER.size + 4
_FILTER, _ORIGINAL_FLAGS, _REPLY_FLAGS, _BY_SOURCE = 25, 1, 2, 1
_ORIGINAL, _REPLY, _PROTOCOL_INFO, _TIMEOUT = 1, 2, 4, 7
_IP, _PROTO = 1, 2
_SOURCE, _DESTINATION = {4: 1, 6: 3}, {4: 2, 6: 4}
_ESTABLISHED, _LIBERAL, _DAYS = 3, 0x08, 432000  # the kernel's own timeout of such a connection, in seconds


class Connection(NamedTuple):
    """One of this namespace's sockets, and whom it speaks with: addresses and ports."""

    local: tuple[IPAddress, int]
    remote: tuple[IPAddress, int]


def possible() -> bool:
    """Whether the namespace this thread is in has any TCP socket: no look at each of the host's. Raises KernelRefused."""
    lines = (*_lines("sockstat"), *_lines("sockstat6"))
    return any(line.startswith("TCP") and line.split()[2] != "0" for line in lines)


def remember() -> None:
    """Have conntrack know each connection of the namespace this thread is in.

    It lets those be that it knows, and none is known where the kernel cannot be told (no ctnetlink): they are new, then.
    """
    told = [_told(connection) for connection in here()]
    with closing(Channel(NETFILTER)) as channel:
        channel.refusals(told)


@understood
def alive(source: bytes) -> set[bytes]:
    """To whom an address has begun connections, as far as conntrack of the namespace this thread is in knows; all packed. A kernel before
    5.8 tells of everybody's, of which the rest is passed over. Raises KernelRefused and DumpInterrupted.
    """
    family = 4 if len(source) == 4 else 6
    whose = nested(_ORIGINAL, nested(_IP, attribute(_SOURCE[family], source)))
    by_it = nested(_FILTER, attribute(_ORIGINAL_FLAGS, u32(_BY_SOURCE)), attribute(_REPLY_FLAGS, u32(0)))
    with closing(Channel(NETFILTER)) as channel:
        answers = channel.ask(message(_GET, ACK | DUMP, FAMILY[family], 0, whose + by_it))
    ends = (attributes(attributes(attributes(item, _BODY_AT)[_ORIGINAL])[_IP]) for item in answers)
    return {found[_DESTINATION[family]] for found in ends if found.get(_SOURCE[family]) == source}


def here() -> Iterator[Connection]:
    """The connections with others of the namespace this thread is in. Raises KernelRefused."""
    for name in ("tcp", "tcp6"):
        for line in _lines(name)[1:]:
            _, local, remote, state, *_ = line.split()
            connection = Connection(_end(local), _end(remote))
            if int(state, 16) in _ALIVE and not connection.remote[0].is_loopback:
                yield connection


def _lines(name: str) -> list[str]:
    """A table of this namespace; a kernel without the protocol has none."""
    try:
        return (_OWN / name).read_text().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise KernelRefused(f"{_OWN / name}: {error.strerror}", error.errno or 0) from None


def _end(text: str) -> tuple[IPAddress, int]:
    """An address and port from the kernel's hexadecimal words; an IPv4 address in an IPv6 socket is one of IPv4."""
    words, _, port = text.partition(":")
    raw = b"".join(struct.pack("=I", int(words[at : at + 8], 16)) for at in range(0, len(words), 8))
    address = ipaddress.ip_address(raw)
    return getattr(address, "ipv4_mapped", None) or address, int(port, 16)


def _told(connection: Connection) -> bytes:
    liberal = bytes([_LIBERAL, _LIBERAL])  # its sequence numbers are not known
    tcp = attribute(1, bytes([_ESTABLISHED])) + attribute(4, liberal) + attribute(5, liberal)
    body = attribute(_ORIGINAL, _tuple(connection.local, connection.remote))
    body += attribute(_REPLY, _tuple(connection.remote, connection.local))
    body += attribute(_TIMEOUT, struct.pack(">I", _DAYS)) + attribute(_PROTOCOL_INFO, attribute(1, tcp))
    return message(_NEW, ACK | CREATE | EXCLUSIVE, FAMILY[connection.local[0].version], 0, body)


def _tuple(source: tuple[IPAddress, int], destination: tuple[IPAddress, int]) -> bytes:
    (sender, sport), (receiver, dport) = source, destination
    version = sender.version
    ip = attribute(_SOURCE[version], sender.packed) + attribute(_DESTINATION[version], receiver.packed)
    ports = attribute(2, struct.pack(">H", sport)) + attribute(3, struct.pack(">H", dport))
    return attribute(_IP, ip) + attribute(_PROTO, attribute(1, bytes([_TCP])) + ports)
