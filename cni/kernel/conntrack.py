"""What conntrack tells of connections: of each when it begins and when it is over, and all it knows now.

Sources: linux/netfilter/nfnetlink_conntrack.h, nf_conntrack_netlink.c, nf_conntrack-sysctl.rst.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Container, Iterable, Iterator
from contextlib import closing
from typing import NamedTuple

from cni.errors import KernelRefused
from cni.kernel import expressions, nfnetlink, statements, sysctl
from cni.kernel.netlink.channel import NETFILTER, Channel, DumpInterrupted
from cni.kernel.netlink.wire import (
    ACK,
    CREATE,
    DUMP,
    HEADER,
    attribute,
    attributes,
    messages,
    number_of,
    string,
    understood,
)

_GET, _DELETED = 1 << 8 | 1, 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET and _DELETE
_GROUPS = 1 << 0 | 1 << 2  # NFNLGRP_CONNTRACK_NEW and _DESTROY
_ID, _COUNTED, _COUNTED_BACK, _TIMES, _EVENT_TIME = 12, 9, 10, 20, 27
_PACKETS, _BYTES, _START, _STOP = 1, 2, 1, 2
_FAMILY_AT, _BODY_AT = HEADER.size, HEADER.size + 4
_SIZES = {int(socket.AF_INET): 4, int(socket.AF_INET6): 16}
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp", 132: "sctp"}
_WITH_PORTS = frozenset({6, 17, 132})
_BIG = struct.Struct(">Q")
_NANO = 1e9

_SO_RCVBUFFORCE, _SO_MEMINFO, _MEMINFO, _DROPS = 33, 55, struct.Struct("=9I"), 8
#: Holds some forty thousand events, each of which the kernel counts with what it takes in memory.
_ROOM, _BUFFER = 32 << 20, 1 << 16

#: What has conntrack count bytes and say when: of connections that begin later.
_SETTINGS = ("net.netfilter.nf_conntrack_acct", "net.netfilter.nf_conntrack_timestamp")
_TABLE = "agent_cni_flows"
_OWNED = 2  # NFT_TABLE_F_OWNER

_Ends = tuple[bytes, bytes, int, int, int]


class Amount(NamedTuple):
    """What passed in one direction."""

    packets: int = 0
    bytes: int = 0


class Tracked(NamedTuple):
    """A connection: addresses as bytes, ports 0 where its protocol, by name or number, has none; `id` stands for it among those of its
    time. `called` is whom the client asked for, `server` who answers: another, where the address was translated.

    It is over where `ended`. `at`, `start` and `end` are seconds since the epoch, 0 where the kernel does not say; amounts are those so far.
    """

    id: str
    protocol: str
    client: bytes
    client_port: int
    called: bytes
    called_port: int
    server: bytes
    server_port: int
    ended: bool = False
    at: float = 0.0
    start: float = 0.0
    end: float = 0.0
    sent: Amount = Amount()
    received: Amount = Amount()


class Listener:
    """A socket of the namespace this thread is in when it is opened: what begins and ends from then on. Raises KernelRefused."""

    def __init__(self, room: int = _ROOM) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETFILTER)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, room)
            self._socket.bind((0, _GROUPS))
        except OSError as error:
            raise KernelRefused(f"conntrack: listening: {error.strerror}", error.errno or 0) from None

    def fileno(self) -> int:
        """Readable when there is something to hear."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def waiting(self, most: int) -> list[bytes]:
        """What waits to be heard, of at most so many events, for `tracked` to read. Raises KernelRefused."""
        found: list[bytes] = []
        while len(found) < most:
            try:
                found.append(self._socket.recv(_BUFFER))
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # `shed` says how many
                    why = os.strerror(error.errno or 0)
                    raise KernelRefused(f"conntrack: listening: {why}", error.errno or 0) from None
        return found

    @property
    def shed(self) -> int:
        """How many events the socket had no room for since it was opened: the kernel waits for nobody."""
        return shed_by(self._socket)


class Tracking:
    """Has conntrack be at work in the namespace this thread is in, as long as this is open: it is where any rule asks it something.

    That rule stands in a chain that no packet passes, in a table that goes with the socket it was made by, however that ends.
    """

    def __init__(self) -> None:
        self._channel = Channel(NETFILTER)
        name = attribute(nfnetlink.TABLE_NAME, string(_TABLE))
        table = nfnetlink.request(nfnetlink.TABLE, CREATE, "inet", name + attribute(2, expressions.number(_OWNED)))
        rules = f"add chain inet {_TABLE} tracked\nadd rule inet {_TABLE} tracked ct direction reply return"
        try:
            nfnetlink.change(self._channel, [table, *statements.requests(rules)])
        except KernelRefused:
            self._channel.close()
            raise

    def close(self) -> None:
        """Let it be as it was."""
        self._channel.close()


def account() -> list[str]:
    """Have conntrack of this namespace count what passes and say when, of connections that begin from now on; a line for each that
    may not be set here.
    """
    return list(filter(None, (sysctl.prefers(key, "1") for key in _SETTINGS)))


def known(of: Container[bytes]) -> list[Tracked]:
    """The connections there are now of which `of` has an end. Raises KernelRefused."""
    with closing(Channel(NETFILTER)) as channel:
        for _ in range(10):
            try:
                answers = channel.ask(nfnetlink.message(_GET, ACK | DUMP, 0, 0, b""))
            except DumpInterrupted:
                continue
            return list(filter(None, (read(message, of) for message in answers)))
    raise KernelRefused("conntrack: its table changes faster than it can be read", errno.EINTR)


def tracked(received: Iterable[bytes], of: Container[bytes]) -> Iterator[Tracked]:
    """The connections that a listener heard of and one of whose ends `of` has; no other is read."""
    found = (read(message, of) for data in received for message in messages(data))
    return filter(None, found)


def shed_by(listener: socket.socket) -> int:
    """How many messages a netlink socket had no room for (sock_diag(7), SK_MEMINFO_DROPS)."""
    return int(_MEMINFO.unpack(listener.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))[_DROPS])


@understood
def read(message: bytes, of: Container[bytes]) -> Tracked | None:
    """What a message tells, if `of` has an end of it. The two tuples come first in every one, each with addresses, then the protocol:
    by their places they are read in a third of the time that takes by their numbers.
    """
    size = _SIZES.get(message[_FAMILY_AT])
    if size is None:
        return None
    reply_at = _BODY_AT + number_of(message[_BODY_AT : _BODY_AT + 2])
    asked, answered = _ends(message, _BODY_AT, size), _ends(message, reply_at, size)
    if not (asked[0] in of or answered[0] in of or asked[1] in of):
        return None
    client, called, number, client_port, called_port = asked
    server, _, _, server_port, _ = answered
    rest = attributes(message, reply_at + number_of(message[reply_at : reply_at + 2]))
    times = attributes(rest.get(_TIMES, b""))
    at, start, end = (_seconds(item) for item in (rest.get(_EVENT_TIME), times.get(_START), times.get(_STOP)))
    return Tracked(
        rest[_ID].hex(), _PROTOCOLS.get(number, str(number)), client, client_port, called, called_port, server, server_port,
        struct.unpack_from("=H", message, 4)[0] == _DELETED, at, start, end,
        _amount(rest.get(_COUNTED)), _amount(rest.get(_COUNTED_BACK)),
    )  # fmt: skip


def _ends(message: bytes, at: int, size: int) -> _Ends:
    """Source, destination, protocol and ports of a tuple whose attribute is there."""
    source, target = at + 12, at + 16 + size
    number = message[target + size + 8]
    ports = (0, 0)
    if number in _WITH_PORTS:
        port = target + size + 16
        ports = int.from_bytes(message[port : port + 2]), int.from_bytes(message[port + 8 : port + 10])
    return message[source : source + size], message[target : target + size], number, *ports


def _amount(value: bytes | None) -> Amount:
    found = attributes(value) if value else {}
    return Amount(*(_BIG.unpack(found[key])[0] if key in found else 0 for key in (_PACKETS, _BYTES)))


def _seconds(value: bytes | None) -> float:
    return _BIG.unpack(value)[0] / _NANO if value else 0.0
