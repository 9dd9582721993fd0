"""rtnetlink messages as bytes: the only place that knows pyroute2, whose classes spell and read them.

Only its codec is used: `cni.kernel.channel` carries the messages. The package's own `__init__` would import all
of its 160 modules, five times the time and twice the memory of the thirty needed here, so it is not run.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable
from typing import Any

from cni.kernel.channel import ACK, REQUEST


def _bare_package(name: str) -> None:
    """Let a package's modules be imported without the package's own code."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    sys.modules.setdefault(name, importlib.util.module_from_spec(spec))


_bare_package("pyroute2")

from pyroute2.netlink.rtnl.fibmsg import fibmsg  # noqa: E402
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg  # noqa: E402
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg  # noqa: E402
from pyroute2.netlink.rtnl.ndmsg import ndmsg  # noqa: E402
from pyroute2.netlink.rtnl.nsidmsg import nsidmsg  # noqa: E402
from pyroute2.netlink.rtnl.rtmsg import rtmsg  # noqa: E402

#: What a message is about, as the kernel numbers the NEW one (linux/rtnetlink.h); a verb is added to it.
LINK, ADDRESS, ROUTE, NEIGHBOUR, RULE, NSID = 16, 20, 24, 28, 32, 88
NEW, DELETE, GET = 0, 1, 2

_RTM_DST_LEN = 17

# pyroute2 0.9.7 knows macvlan's attributes up to IFLA_MACVLAN_MACADDR_COUNT only (linux/if_link.h)
_macvlan = ifinfmsg.ifinfo.macvlan_data
_macvlan.nla_map = (*_macvlan.nla_map, ("IFLA_MACVLAN_BC_QUEUE_LEN", "uint32"))

_CLASSES = {LINK: ifinfmsg, ADDRESS: ifaddrmsg, ROUTE: rtmsg, NEIGHBOUR: ndmsg, RULE: fibmsg, NSID: nsidmsg}

Attributes = Iterable[tuple[str, Any]]


def encoded(subject: int, verb: int, how: int = 0, attributes: Attributes = (), **fields: Any) -> bytearray:
    """A request, still without a number. `how` is of netlink(7), `fields` the header of this subject; attributes whose
    value is None are left out.
    """
    message = _CLASSES[subject]()
    message.update(fields)
    message["header"] = {"type": subject + verb, "flags": how | REQUEST | ACK}
    message |= nested(attributes)
    message.encode()
    data: bytearray = message.data
    return data


def nested(attributes: Attributes) -> dict[str, Any]:
    """Attributes inside another; those whose value is None are left out."""
    return {"attrs": [(name, value) for name, value in attributes if value is not None]}


def is_default_route(data: bytes) -> bool:
    """Whether a route goes everywhere, seen before it is decoded: on a full node every pod has routes (rtm_dst_len)."""
    return data[_RTM_DST_LEN] == 0


def decoded(subject: int, data: bytes) -> Any:
    """A message of the kernel, as pyroute2 reads it."""
    message = _CLASSES[subject](data)
    message.decode()
    return message
