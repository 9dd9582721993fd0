"""What is asked of rtnetlink, spelled (rtnetlink(7), linux/if_link.h, linux/neighbour.h, linux/fib_rules.h).

Questions are kept: a warm process asks the same ones again, and spelling takes ten times what the kernel does.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Any

from cni.kernel.channel import APPEND, CREATE, DUMP, EXCLUSIVE, REPLACE
from cni.kernel.codec import ADDRESS, DELETE, GET, LINK, NEIGHBOUR, NEW, NSID, ROUTE, RULE, Attributes, encoded, nested
from cni.kernel.messages import FAMILY
from cni.kernel.view import MAIN_TABLE, KernelRoute, Vxlan
from cni.naming import IPInterface

_AF_BRIDGE = 7
_IFF_UP, _IFF_PROMISC, _IFA_F_NODAD = 0x1, 0x100, 0x02
_RTNH_F_ONLINK, _RTN_UNICAST, _RTN_LOCAL, _RTPROT_BOOT = 4, 1, 2, 3
_RTM_F_LOOKUP_TABLE, _RTM_F_FIB_MATCH = 0x1000, 0x2000
_SCOPE_NOWHERE = 255  # in a deletion: whatever the scope
_TABLE_IN_ATTRIBUTE = 252  # RT_TABLE_COMPAT: the header's field has eight bits
_RULE_PRIORITY, _FR_ACT_TO_TBL = 32000, 1
_NTF_SELF, _NUD_NOARP, _NUD_PERMANENT, _ALL_ZERO = 0x02, 0x40, 0x80, "00:00:00:00:00:00"
_DEPRECATED = {"ifa_preferred": 0, "ifa_valid": 0xFFFFFFFF}  # seconds; the latter means for ever
_ANY_NSID = 0xFFFFFFFF
_WITHOUT_STATISTICS = ("IFLA_EXT_MASK", 8)

# --- links


@lru_cache(maxsize=64)
def links() -> bytearray:
    """Every link."""
    return encoded(LINK, GET, DUMP, [_WITHOUT_STATISTICS])


@lru_cache(maxsize=4)
def links_of(kind: str) -> bytearray:
    """Every link of a kind; the kernel leaves out the others."""
    return encoded(LINK, GET, DUMP, [_WITHOUT_STATISTICS, ("IFLA_LINKINFO", nested([("IFLA_INFO_KIND", kind)]))])


def bridge(name: str, mac: str, mtu: int) -> bytearray:
    """A new bridge."""
    return _new_link("bridge", name, mtu, more=[("IFLA_ADDRESS", mac)])


def bridge_filter(index: int, on: bool) -> bytearray:
    """Packet rules for what a bridge forwards between its ports, or none."""
    info = _info("bridge", [("IFLA_BR_NF_CALL_IPTABLES", int(on)), ("IFLA_BR_NF_CALL_IP6TABLES", int(on))])
    return encoded(LINK, NEW, 0, [info], index=index)


def vxlan(name: str, mtu: int, settings: Vxlan) -> bytearray:
    """A new VXLAN device, down."""
    local = "IFLA_VXLAN_LOCAL6" if ":" in settings.local else "IFLA_VXLAN_LOCAL"
    data = [
        ("IFLA_VXLAN_ID", settings.vni), ("IFLA_VXLAN_PORT", settings.port), ("IFLA_VXLAN_LEARNING", 1),
        (local, settings.local or None), ("IFLA_VXLAN_LINK", settings.dev or None),
    ]  # fmt: skip
    return _new_link("vxlan", name, mtu, data)


def macvlan(name: str, mtu: int, placed: dict[str, Any], settings: dict[str, Any]) -> bytearray:
    """A new macvlan, down; `placed` has its link, link_netnsid (None: of this namespace) and address."""
    return _new_link("macvlan", name, mtu, _named("IFLA", settings), _named("IFLA", placed))


def promiscuous(index: int) -> bytearray:
    """A link made promiscuous."""
    return encoded(LINK, NEW, index=index, flags=_IFF_PROMISC, change=_IFF_PROMISC)


def port_change(index: int, settings: dict[str, int], up: bool = False) -> bytearray:
    """A bridge port's mode, isolated, neigh_suppress or multicast_router changed, and the port set up."""
    port = nested(_named("IFLA_BRPORT", settings))
    info = nested([("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", port)])
    state = {"flags": _IFF_UP, "change": _IFF_UP} if up else {}
    return encoded(LINK, NEW, 0, [("IFLA_LINKINFO", info)], index=index, **state)


def link_deletion(index: int) -> bytearray:
    """A link gone."""
    return encoded(LINK, DELETE, index=index)


def _new_link(kind: str, name: str, mtu: int, data: Attributes = (), more: Attributes = (), **flags: int) -> bytearray:
    own = [("IFLA_IFNAME", name), ("IFLA_MTU", mtu), *more]
    return encoded(LINK, NEW, CREATE | EXCLUSIVE, [*own, _info(kind, data)], **flags)


def _info(kind: str, data: Attributes) -> tuple[str, Any]:
    return "IFLA_LINKINFO", nested([("IFLA_INFO_KIND", kind), ("IFLA_INFO_DATA", _nested_if_any(data))])


def _nested_if_any(attributes: Attributes) -> dict[str, Any] | None:
    found = nested(attributes)
    return found if found["attrs"] else None


def _named(prefix: str, settings: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(f"{prefix}_{key.upper()}", value) for key, value in settings.items()]


# --- addresses


@lru_cache(maxsize=64)
def addresses(index: int) -> bytearray:
    """Every address of a link."""
    return encoded(ADDRESS, GET, DUMP, index=index)


def deprecated_address(index: int, interface: IPInterface, nodad: bool) -> bytearray:
    """A new address that serves only who asks for it; `nodad` makes an IPv6 one usable at once."""
    wanted = _address(index, interface, _IFA_F_NODAD if nodad else None)
    wanted["attributes"] += [("IFA_CACHEINFO", _DEPRECATED)]
    return encoded(ADDRESS, NEW, CREATE | EXCLUSIVE, **wanted)


def address_deletion(index: int, interface: IPInterface) -> bytearray:
    """An address gone."""
    return encoded(ADDRESS, DELETE, **_address(index, interface, None))


def _address(index: int, interface: IPInterface, flags: int | None) -> dict[str, Any]:
    text = str(interface.ip)
    attributes = [("IFA_LOCAL", text), ("IFA_ADDRESS", text), ("IFA_FLAGS", flags)]
    place = {"family": FAMILY[interface.version], "index": index, "prefixlen": interface.network.prefixlen}
    return {"attributes": attributes, **place}


# --- routes and policy rules


@lru_cache(maxsize=64)
def routes(family: int, attribute: str, value: int) -> bytearray:
    """Every route of a family (4 or 6) with RTA_OIF or RTA_TABLE."""
    return encoded(ROUTE, GET, DUMP, [(attribute, value)], family=FAMILY[family])


def new_route(index: int, route: KernelRoute, onlink: bool) -> bytearray:
    """A new route through a link; `onlink` takes a gateway no address of the link covers."""
    metrics = _nested_if_any([("RTAX_MTU", route.mtu or None), ("RTAX_ADVMSS", route.advmss or None)])
    attributes = [
        ("RTA_OIF", index), ("RTA_GATEWAY", route.gateway or None), ("RTA_PREFSRC", route.source or None),
        ("RTA_PRIORITY", route.priority or None), ("RTA_METRICS", metrics),
    ]  # fmt: skip
    kind = _RTN_LOCAL if route.local else _RTN_UNICAST
    fields = {"proto": _RTPROT_BOOT, "type": kind, "flags": _RTNH_F_ONLINK * onlink, "scope": route.scope}
    return encoded(ROUTE, NEW, CREATE | EXCLUSIVE, **_route(route.dst, route.table, attributes) | fields)


def route_deletion(index: int, dst: str, table: int) -> bytearray:
    """A route gone."""
    return encoded(ROUTE, DELETE, **_route(dst, table, [("RTA_OIF", index)]), scope=_SCOPE_NOWHERE)


@lru_cache(maxsize=64)
def way(dst: str) -> bytearray:
    """The route packets to an address (as a network of its own) take."""
    return encoded(ROUTE, GET, **_route(dst, 0, []))


@lru_cache(maxsize=2)
def usual_way(family: int) -> bytearray:
    """The route itself, and its table, that packets to an address nobody has would take (RFC 5737, RFC 3849)."""
    nobody = _route({4: "192.0.2.1/32", 6: "2001:db8::1/128"}[family], 0, [])
    table = _RTM_F_LOOKUP_TABLE if family == 4 else 0  # IPv6 says the table without being asked to
    return encoded(ROUTE, GET, **nobody, flags=_RTM_F_FIB_MATCH | table)


def _route(dst: str, table: int, attributes: Attributes) -> dict[str, Any]:
    network = ipaddress.ip_network(dst)
    target = str(network.network_address) if network.prefixlen else None
    return {
        "attributes": [("RTA_DST", target), ("RTA_TABLE", table or None), *attributes],
        "family": FAMILY[network.version],
        "dst_len": network.prefixlen,
        "table": table if table < _TABLE_IN_ATTRIBUTE or table in (MAIN_TABLE, 253, 255) else _TABLE_IN_ATTRIBUTE,
    }


@lru_cache(maxsize=64)
def rules(family: int) -> bytearray:
    """Every policy rule of a family (4 or 6)."""
    return encoded(RULE, GET, DUMP, family=FAMILY[family])


def new_mark_rule(family: int, mark: int, table: int) -> bytearray:
    """A rule that looks packets with a mark up in a table."""
    return encoded(RULE, NEW, CREATE | EXCLUSIVE, **_mark_rule(family, mark, table))


def mark_rule_deletion(family: int, mark: int, table: int) -> bytearray:
    """Such a rule gone."""
    return encoded(RULE, DELETE, **_mark_rule(family, mark, table))


def _mark_rule(family: int, mark: int, table: int) -> dict[str, Any]:
    attributes = [("FRA_FWMARK", mark), ("FRA_TABLE", table), ("FRA_PRIORITY", _RULE_PRIORITY)]
    place = {"family": FAMILY[family], "table": min(table, _TABLE_IN_ATTRIBUTE), "action": _FR_ACT_TO_TBL}
    return {"attributes": attributes, **place}


# --- neighbours, and the forwarding database of a VXLAN device


@lru_cache(maxsize=64)
def neighbours(index: int, of_bridge: bool = False) -> bytearray:
    """Every neighbour of a link, or every entry of its forwarding database."""
    return encoded(NEIGHBOUR, GET, DUMP, [("NDA_IFINDEX", index)], family=_AF_BRIDGE if of_bridge else 0)


def new_neighbour(index: int, address: str, mac: str) -> bytearray:
    """A neighbour known for good, in place of what was learned."""
    place = _neighbour(index, address)
    return encoded(
        NEIGHBOUR, NEW, CREATE | REPLACE, [("NDA_DST", address), ("NDA_LLADDR", mac)], **place, state=_NUD_PERMANENT
    )


def neighbour_deletion(index: int, address: str) -> bytearray:
    """A neighbour gone."""
    return encoded(NEIGHBOUR, DELETE, 0, [("NDA_DST", address)], **_neighbour(index, address))


def _neighbour(index: int, address: str) -> dict[str, int]:
    return {"family": FAMILY[ipaddress.ip_address(address).version], "ifindex": index}


def new_flood_target(index: int, vtep: str) -> bytearray:
    """One more VTEP for what has no known destination."""
    return encoded(NEIGHBOUR, NEW, CREATE | APPEND, **_flooded(index, vtep), state=_NUD_PERMANENT | _NUD_NOARP)


def flood_target_deletion(index: int, vtep: str) -> bytearray:
    """One VTEP less."""
    return encoded(NEIGHBOUR, DELETE, **_flooded(index, vtep))


def _flooded(index: int, vtep: str) -> dict[str, Any]:
    attributes = [("NDA_DST", vtep), ("NDA_LLADDR", _ALL_ZERO)]
    return {"attributes": attributes, "family": _AF_BRIDGE, "ifindex": index, "flags": _NTF_SELF}


# --- numbers of namespaces


def nsid(fd: int) -> bytearray:
    """The number this namespace knows another by."""
    return encoded(NSID, GET, 0, [("NETNSA_FD", fd)])


def new_nsid(fd: int) -> bytearray:
    """A number for another namespace, of the kernel's choice."""
    return encoded(NSID, NEW, 0, [("NETNSA_FD", fd), ("NETNSA_NSID", _ANY_NSID)])
