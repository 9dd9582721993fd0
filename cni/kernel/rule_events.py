"""What the kernel tells of changes of rules (NFNLGRP_NFTABLES): what somebody else did to tables of ours, in the namespace the listener is in."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from typing import NamedTuple

from cni.errors import KernelRefused
from cni.kernel.netlink.channel import NETFILTER
from cni.kernel.netlink.wire import HEADER, messages, text_of, understood
from cni.kernel.nfnetlink import (
    CHAIN,
    CHAIN_NAME,
    DELETE_CHAIN,
    DELETE_ELEMENTS,
    DELETE_RULE,
    DELETE_SET,
    DELETE_TABLE,
    ELEMENTS,
    GENERATION,
    RULE,
    RULE_CHAIN,
    SET,
    SET_NAME,
    TABLE,
    TABLE_NAME,
    attributes_of,
    family_of,
    kind_of,
)
from cni.kernel.signature import NAME

#: What all of our tables' names begin with.
_OURS = b"agent_cni"
#: Where a message has the name of its table, which is its first attribute.
_TABLE_AT = HEADER.size + 8
_FAMILIES = {1: "inet", 2: "ip", 5: "netdev", 7: "bridge", 10: "ip6"}
_NAMED = {
    TABLE: ("table", 0), DELETE_TABLE: ("table", 0),
    CHAIN: ("chain", CHAIN_NAME), DELETE_CHAIN: ("chain", CHAIN_NAME),
    RULE: ("chain", RULE_CHAIN), DELETE_RULE: ("chain", RULE_CHAIN),
    SET: ("set", SET_NAME), DELETE_SET: ("set", SET_NAME),
    ELEMENTS: ("set", SET_NAME), DELETE_ELEMENTS: ("set", SET_NAME),
}  # fmt: skip
_PROCESS, _PROCESS_NAME = 2, 3
_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP = 270, 1, 7
_SO_RCVBUFFORCE, _ROOM, _BUFFER = 33, 8 << 20, 1 << 18

#: More happened than could be told: it may be about anything.
ANYTHING = "*"


class Changed(NamedTuple):
    """One transaction of somebody else's: the `names` of what it was about (``table inet t``, ``chain inet t c``, ``set inet t s`` also
    for elements), and by which process.
    """

    names: frozenset[str]
    process: str
    pid: int


class RuleEvents:
    """A socket of the namespace this thread is in. Raises KernelRefused."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
            self._socket.bind((0, 0))
            self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP)
        except OSError as error:
            raise KernelRefused(f"nf_tables: listening: {error.strerror}", error.errno or 0) from None

    def fileno(self) -> int:
        """For who waits for other things too."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def heard(self, seconds: float | None = 0) -> list[Changed]:
        """What others did by now, in order, if need be after waiting for so many `seconds`; ours is passed over."""
        found: list[Changed] = []
        while select.select([self._socket], [], [], 0 if found else seconds)[0]:
            seconds = 0
            try:
                data = self._socket.recv(_BUFFER, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise KernelRefused(
                        f"nf_tables: listening: {os.strerror(error.errno or 0)}", error.errno or 0
                    ) from None
                found.append(Changed(frozenset((ANYTHING,)), "", 0))
                continue
            found += self._read(data)
        return found

    @understood
    def _read(self, data: bytes) -> list[Changed]:
        found = []
        for message in messages(data):
            kind = kind_of(message)
            if kind == GENERATION:
                if self._names and (changed := self._changed(message)):
                    found.append(changed)
                self._names = set()
            elif kind in _NAMED and message.startswith(_OURS, _TABLE_AT):
                self._names.add(_name_of(kind, message))
        return found

    def _changed(self, message: bytes) -> Changed | None:
        said = attributes_of(message)
        process = text_of(said.get(_PROCESS_NAME, b""))
        (pid,) = struct.unpack(">I", said.get(_PROCESS, bytes(4)))
        return None if process == NAME else Changed(frozenset(self._names), process, pid)


def _name_of(kind: int, message: bytes) -> str:
    said, (what, number) = attributes_of(message), _NAMED[kind]
    family = _FAMILIES.get(family_of(message), "")
    own = [text_of(said.get(number, b""))] if number else []
    return " ".join([what, family, text_of(said[TABLE_NAME]), *own])
