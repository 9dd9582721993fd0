"""What the kernel tells everybody who listens: links, addresses, routes, neighbours and FDB rows that became others (rtnetlink(7))."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from cni.errors import KernelRefused
from cni.kernel.netlink.addresses import address_of
from cni.kernel.netlink.links import link_of
from cni.kernel.netlink.neighbours import row_of
from cni.kernel.netlink.routes import is_refusal, route_of
from cni.kernel.netlink.wire import HEADER, attributes, messages, number_of, understood
from cni.kernel.view import MAIN_TABLE, MEMBER

#: What an event is about. REFUSAL: a route that leads nowhere. OVERRUN: more happened than could be told.
LINK, ADDRESS, ROUTE, REFUSAL, NEIGHBOUR, FDB, OVERRUN = (
    "link",
    "address",
    "route",
    "refusal",
    "neighbour",
    "fdb",
    "overrun",
)

#: RTMGRP_LINK, _NEIGH, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE.
_GROUPS = 0x1 | 0x4 | 0x10 | 0x40 | 0x100 | 0x400
#: Of links, and of addresses that are taken away.
LINKS = 0x1 | 0x10 | 0x100
_NEW_LINK, _DELETE_ADDRESS, _NEW_ROUTE, _DELETE_ROUTE, _NEW_NEIGHBOUR = 16, 21, 24, 25, 28
#: Where ifinfomsg, ifaddrmsg and ndmsg alike have the link's index.
_LINK_AT = HEADER.size + 4
_ROUTE_BODY, _OIF = 12, 4
_BRIDGE, _FAMILY_AT = 7, HEADER.size
_SELF, _PERMANENT = 0x02, 0x80
_SO_RCVBUFFORCE, _ROOM = 33, 4 << 20
_BUFFER, _READS = 1 << 16, 64


Minds = Callable[[int, bytes], bool]


def _all(link: int, message: bytes) -> bool:
    return True


class Event(NamedTuple):
    """Of a link (its index): `key` and `value` say what is there now; where it went, `value` is empty.

    A link's key is its name, and its value tells another state of it from this one. An FDB's key is a MAC, and the value its VTEP, or
    nothing for a row of the bridge's that went. A neighbour's is its address and MAC. Of routes and addresses only that one went is told.
    """

    about: str
    link: int
    key: str = ""
    value: str = ""


class Events:
    """A socket of the namespace this thread is in when it is opened; `groups` are rtnetlink's."""

    def __init__(self, groups: int = _GROUPS) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
            self._socket.bind((0, groups))
        except OSError as error:
            raise KernelRefused(f"netlink: listening: {error.strerror}", error.errno or 0) from None

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def wait(self, minds: Minds = _all, seconds: float | None = None) -> list[Event]:
        """Wait until something happens, for so many `seconds` if it says so, and return what has by then, in order; of a flood there is
        more. What a link (its index) is told of in a message is read only if `minds` says so: with each pod there is a lot. Raises
        KernelRefused.
        """
        found = list[Event]()
        if seconds is not None and not select.select([self._socket], [], [], seconds)[0]:
            return found
        for number in range(_READS):
            heard = list(self._heard(socket.MSG_DONTWAIT if number else 0, minds))
            if not heard:
                break
            found += filter(None, heard)
        return found

    def _heard(self, flags: int, minds: Minds) -> Iterator[Event | None]:
        try:
            data = self._socket.recv(_BUFFER, flags)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise KernelRefused(f"netlink: listening: {os.strerror(error.errno or 0)}", error.errno or 0) from None
            yield Event(OVERRUN, 0)
            return
        for message in messages(data):
            yield _event_of(message, minds)


@understood
def _event_of(message: bytes, minds: Minds = _all) -> Event | None:
    """What a message tells of; None where it is nothing that anybody here goes by."""
    kind = HEADER.unpack_from(message)[1]
    has_link = kind not in (_NEW_ROUTE, _DELETE_ROUTE)
    if has_link and not minds(struct.unpack_from("=i", message, _LINK_AT)[0], message):
        return None
    if kind in (_NEW_LINK, _NEW_LINK + 1):
        return _of_link(message, there=kind == _NEW_LINK)
    if kind == _DELETE_ADDRESS:
        (index,) = struct.unpack_from("=I", message, _LINK_AT)
        return Event(ADDRESS, index, str(address_of(message).interface))
    if kind == _DELETE_ROUTE:
        return _of_route(message)
    if kind in (_NEW_NEIGHBOUR, _NEW_NEIGHBOUR + 1):
        return _of_neighbour(message, there=kind == _NEW_NEIGHBOUR)
    return None


def _of_link(message: bytes, *, there: bool) -> Event | None:
    if message[_FAMILY_AT]:  # what a bridge tells of its ports
        return None
    link = link_of(message)
    return Event(LINK, link.index, link.name, f"{link.up} {link.bridge}" if there else "")


def _of_route(message: bytes) -> Event | None:
    route = route_of(message)
    if route.protocol != MEMBER or route.table != MAIN_TABLE:
        return None
    if is_refusal(message):
        return Event(REFUSAL, 0, route.dst)
    return Event(ROUTE, number_of(attributes(message, HEADER.size + _ROUTE_BODY).get(_OIF, b"")), route.dst)


def _of_neighbour(message: bytes, *, there: bool) -> Event | None:
    row = row_of(message)
    if message[_FAMILY_AT] != _BRIDGE:
        return Event(NEIGHBOUR, row.link, row.address, row.mac if there and row.state & _PERMANENT else "")
    if there and not row.flags & _SELF:
        return None  # the bridge's own row names a port, which is the link
    return Event(FDB, row.link, row.mac, row.address if there else "")
