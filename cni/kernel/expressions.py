"""What nf_tables' rules are made of, packed (linux/netfilter/nf_tables.h): each an expression that a packet passes, or does not.

Values go by register 1, as with libnftables; a verdict's is 0.
"""

from __future__ import annotations

import struct
import sys

from cni.kernel.netlink.wire import attribute, nested, string
from cni.kernel.nfnetlink import EXPRESSION_DATA, EXPRESSION_NAME, LIST_ITEM

#: How a value compares with another.
EQUAL, OTHER, AT_MOST, AT_LEAST = 0, 1, 3, 5
#: Headers a payload is of.
NETWORK, TRANSPORT = 1, 2
#: What meta tells: by which link a packet came, by its index, which family it is of in a table of several, and its transport.
LINK, NFPROTO, L4PROTO = 4, 15, 16

_VALUE, _CT_STATE, _CT_DIRECTION, _NEW, _UNTRACKED, _WARNING = 1, 0, 1, 8, 64, 4
_CT_MEANT = {"proto-dst": 12, "ip": 20, "ip6": 22}
_VERDICTS = {"drop": 0, "accept": 1, "jump": -3, "goto": -4, "return": -5}
_VERDICT, _CODE, _CHAIN = 2, 1, 2


def number(value: int, size: int = 4) -> bytes:
    """A number in the network's order."""
    return value.to_bytes(size, "big")


def value(data: bytes) -> bytes:
    """Data that are a value."""
    return attribute(_VALUE, data)


def verdict(word: str, chain: str = "") -> bytes:
    """Data that are a verdict: drop, accept, return, or where to jump or go."""
    code = attribute(_CODE, _VERDICTS[word].to_bytes(4, "big", signed=True))
    return nested(_VERDICT, code, attribute(_CHAIN, string(chain)) if chain else b"")


def meta(key: int, register: int = 1) -> bytes:
    """Load what is known of a packet apart from its bytes."""
    return _expression("meta", attribute(2, number(key)), attribute(1, number(register)))


def direction() -> bytes:
    """Load the direction of its connection that a packet is of."""
    return _expression("ct", attribute(1, number(1)), attribute(2, number(_CT_DIRECTION)))


def is_new() -> bytes:
    """Pass if a packet begins a connection."""
    return _is_in(_NEW)


def is_untracked() -> bytes:
    """Pass if conntrack is to know nothing of a packet."""
    return _is_in(_UNTRACKED)


def _is_in(state: int) -> bytes:
    """Pass if a packet is in this state of its connection (it is of the machine's order)."""
    mask, zero = state.to_bytes(4, sys.byteorder), bytes(4)
    masked = (
        attribute(1, number(1)),
        attribute(2, number(1)),
        attribute(3, number(4)),
        nested(4, value(mask)),
        nested(5, value(zero)),
    )
    loaded = _expression("ct", attribute(1, number(1)), attribute(2, number(_CT_STATE)))
    return loaded + _expression("bitwise", *masked) + compare(OTHER, zero)


def meant(what: str) -> bytes:
    """Load what a packet's connection was for, before anybody led it elsewhere: its port, or its address, by nft's word."""
    return _expression("ct", attribute(1, number(1)), attribute(2, number(_CT_MEANT[what])), attribute(3, b"\0"))


def payload(header: int, offset: int, length: int, register: int = 1) -> bytes:
    """Load bytes of a header."""
    numbers = (register, header, offset, length)
    return _expression("payload", *(attribute(at, number(one)) for at, one in enumerate(numbers, 1)))


def compare(how: int, data: bytes) -> bytes:
    """Pass if what was loaded compares so."""
    return _expression("cmp", attribute(1, number(1)), attribute(2, number(how)), nested(3, value(data)))


def look_up(name: str, set_id: int = 0) -> bytes:
    """Pass if what was loaded is in a set, by its number where that is made for this rule alone."""
    known = [attribute(4, number(set_id))] if set_id else []
    return _expression("lookup", attribute(1, string(name)), attribute(2, number(1)), attribute(5, number(0)), *known)


def led(name: str) -> bytes:
    """Go where a map leads what was loaded, if it does."""
    return _expression(
        "lookup", attribute(1, string(name)), attribute(2, number(1)), attribute(3, number(0)), attribute(5, number(0))
    )


def limit(per_second: int, burst: int, *, over: bool = False, kilobytes: bool = False) -> bytes:
    """Pass so many packets, or kilobytes of them; or those that are more."""
    unit = 1024 if kilobytes else 1
    rate = attribute(1, number(per_second * unit, 8)), attribute(2, number(1, 8)), attribute(3, number(burst * unit))
    return _expression("limit", *rate, attribute(4, number(int(kilobytes))), attribute(5, number(int(over))))


def log(prefix: str, group: int | None) -> bytes:
    """Tell the kernel's log of a packet, or a group of nflog."""
    where = attribute(5, number(_WARNING)) if group is None else attribute(1, number(group, 2))
    return _expression("log", attribute(2, string(prefix)), where)


def queue(number_: int) -> bytes:
    """Have a packet wait in a queue; a kernel without nft_queue does not know it (ENOENT)."""
    return _expression("queue", attribute(1, number(number_, 2)), attribute(2, number(1, 2)))


def queue_by_xtables(number_: int) -> bytes:
    """The same by iptables' target of that name (nft_compat, struct xt_NFQ_info_v3)."""
    info = struct.pack("=HHHxx", number_, 1, 0)
    return _expression("target", attribute(1, string("NFQUEUE")), attribute(2, number(3)), attribute(3, info))


def count() -> bytes:
    """Count a packet."""
    return _expression("counter", attribute(1, number(0, 8)), attribute(2, number(0, 8)))


def decide(word: str, chain: str = "") -> bytes:
    """Have a packet's way be decided."""
    return _expression("immediate", attribute(1, number(0)), nested(2, verdict(word, chain)))


def _expression(name: str, *data: bytes) -> bytes:
    said = attribute(EXPRESSION_NAME, string(name)), nested(EXPRESSION_DATA, *data)
    return nested(LIST_ITEM, *said)
