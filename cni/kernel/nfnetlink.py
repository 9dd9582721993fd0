"""nfnetlink: messages to nf_tables and their attributes, and transactions of them (linux/netfilter/nfnetlink.h, nf_tables.h)."""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence

from cni.errors import KernelRefused
from cni.kernel import signature
from cni.kernel.kept import PerNamespace
from cni.kernel.netlink import wire
from cni.kernel.netlink.channel import NETFILTER, Channel
from cni.kernel.netlink.wire import ACK, HEADER, REQUEST, attribute, attributes, unacknowledged, understood

#: Messages that make a thing; GET added, the question for it, which they answer.
TABLE, CHAIN, RULE, SET, ELEMENTS, GENERATION = 0, 3, 6, 9, 12, 15
GET = 1
#: Messages that take a thing away.
DELETE_TABLE, DELETE_CHAIN, DELETE_RULE, DELETE_SET, DELETE_ELEMENTS = 2, 5, 8, 11, 14
#: Attributes: every message names its table by the first.
TABLE_NAME, SET_NAME, CHAIN_NAME, RULE_CHAIN = 1, 2, 3, 2
ELEMENT_LIST, RULE_EXPRESSIONS, EXPRESSION_NAME, EXPRESSION_DATA, LIST_ITEM = 3, 4, 1, 2, 1

_NFGENMSG = struct.Struct(">BBH")  # family, version, resource
_BODY_AT = HEADER.size + _NFGENMSG.size
_NF_TABLES = 10
_BEGIN, _END = 16, 17
_FAMILY: dict[int | str, int] = {4: 2, 6: 10, "ip": 2, "ip6": 10, "inet": 1, "netdev": 5, "bridge": 7}
_FAMILY_AT = HEADER.size
_BATCH_GENERATION = _GENERATION_ID = 1

#: Whoever closes one waits until what was deleted is out of everybody's sight: 10 ms and more.
_channels = PerNamespace(lambda: Channel(NETFILTER), lambda channel: channel.at_rest)


def opened() -> Channel:
    """A socket of the namespace this thread is in, which stays open until it is let go."""
    return _channels.here()


def request(kind: int, how: int, family: int | str, body: bytes = b"") -> bytes:
    """A request to nf_tables about a family: 4, 6, or nft's name."""
    return raw_request(kind, how, _FAMILY[family], body)


def raw_request(kind: int, how: int, family: int, body: bytes = b"") -> bytes:
    """The same about a family by the kernel's number; 0 asks of all."""
    return message(_NF_TABLES << 8 | kind, ACK | how, family, 0, body)


def message(kind: int, how: int, family: int, resource: int, body: bytes) -> bytes:
    """A request to a subsystem (the upper byte of `kind`), without a number; `family` is the kernel's."""
    return wire.message(kind, REQUEST | how, _NFGENMSG.pack(family, 0, resource), body)


@understood
def family_of(message: bytes) -> int:
    """The family a message is about, by the kernel's number."""
    return message[_FAMILY_AT]


def asked(channel: Channel, kind: int, how: int, family: int | str, body: bytes) -> list[bytes]:
    """What there is; nothing where the table, chain or set is not. Raises KernelRefused and DumpInterrupted."""
    try:
        return list(channel.ask(request(kind + GET, how, family, body)))
    except KernelRefused as error:
        if error.errno != errno.ENOENT:
            raise
        return []


@understood
def generation(channel: Channel) -> bytes:
    """What changes with every change of rules in a namespace."""
    return attributes_of(channel.ask(request(GENERATION + GET, 0, 4))[0])[_GENERATION_ID]


def change(channel: Channel, requests: Sequence[bytes], generation: bytes = b"") -> None:
    """One transaction; with a generation, refused where the rules are of another by now.

    Only its last request asks to be acknowledged: the kernel tells of errors in any case, and some 250 acknowledgements
    would not fit the socket. Raises KernelRefused, and then nothing was changed.
    """
    if requests:
        signature.sign()
        silent = [unacknowledged(request) for request in requests[:-1]]
        begin = _bracket(_BEGIN, attribute(_BATCH_GENERATION, generation) if generation else b"")
        try:
            channel.ask(begin, *silent, requests[-1], _bracket(_END))
        except KernelRefused as error:
            raise KernelRefused(f"nf_tables refused a transaction: {error.msg}", error.errno) from None


@understood
def kind_of(message: bytes) -> int:
    """Which of nf_tables' messages one is."""
    return message[4]


def attributes_of(message: bytes) -> dict[int, bytes]:
    """The attributes of one of nf_tables' messages, by number."""
    return attributes(message, _BODY_AT)


def _bracket(kind: int, body: bytes = b"") -> bytes:
    """What begins or ends a transaction; the kernel does not acknowledge it."""
    return message(kind, 0, 0, _NF_TABLES, body)
