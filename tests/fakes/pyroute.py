"""pyroute2's codec, for a second opinion on what we pack and read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.nsidmsg import nsidmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from cni.kernel.netlink.wire import ACK, REQUEST

#: What a message is about, as the kernel numbers the NEW one (linux/rtnetlink.h); a verb is added to it.
LINK, ADDRESS, ROUTE, NEIGHBOUR, RULE, NSID = 16, 20, 24, 28, 32, 88
NEW, DELETE, GET = 0, 1, 2

# pyroute2 0.9.7 knows macvlan's attributes up to IFLA_MACVLAN_MACADDR_COUNT only (linux/if_link.h)
_macvlan = ifinfmsg.ifinfo.macvlan_data
_macvlan.nla_map = (*_macvlan.nla_map, ("IFLA_MACVLAN_BC_QUEUE_LEN", "uint32"))

_CLASSES = {LINK: ifinfmsg, ADDRESS: ifaddrmsg, ROUTE: rtmsg, NEIGHBOUR: ndmsg, RULE: fibmsg, NSID: nsidmsg}

Attributes = Iterable[tuple[str, Any]]


def encoded(subject: int, verb: int, how: int = 0, attributes: Attributes = (), **fields: Any) -> bytes:
    """A request, still without a number. `how` is of netlink(7), `fields` the header of this subject; attributes whose
    value is None are left out.
    """
    message = _CLASSES[subject]()
    message.update(fields)
    message["header"] = {"type": subject + verb, "flags": how | REQUEST | ACK}
    message |= nested(attributes)
    message.encode()
    return bytes(message.data)


def nested(attributes: Attributes) -> dict[str, Any]:
    """Attributes inside another; those whose value is None are left out."""
    return {"attrs": [(name, value) for name, value in attributes if value is not None]}


def decoded(data: bytes) -> tuple[int, int, Any]:
    """The kind and the flags of a message, and the message as pyroute2 reads it."""
    kind, flags = int.from_bytes(data[4:6], "little"), int.from_bytes(data[6:8], "little")
    message = _CLASSES[kind & ~3](data)
    message.decode()
    return kind, flags, message


def said(message: Any) -> dict[str, Any]:
    """The attributes of a message, by name without its prefix."""
    return {name.split("_", 1)[1]: value for name, value in message["attrs"]}
