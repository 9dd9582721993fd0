"""Routes and policy rules: what is asked is what pyroute2 makes of the same, and what is read is what was said."""

from __future__ import annotations

import struct
from ipaddress import ip_address, ip_network
from typing import Any

import netlink_line as line
import pyroute
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.kernel.netlink.routes import route_of
from cni.kernel.netlink.wire import ACK, CREATE, DUMP, EXCLUSIVE, REPLACE, REQUEST
from cni.kernel.view import EVERYWHERE, MEMBER, KernelRoute, LinkRef
from cni.values import replace

LO = LinkRef(3, "lo")
FAMILY = {4: 2, 6: 10}
SMALL = st.integers(0, 9999)


@st.composite
def routes(draw: Any) -> KernelRoute:
    version = draw(st.sampled_from((4, 6)))
    addresses = st.ip_addresses(v=version)
    length = draw(st.integers(0, {4: 32, 6: 128}[version]))
    return KernelRoute(
        dst=str(ip_network((draw(addresses), length), strict=False)),
        gateway=draw(st.one_of(st.just(""), addresses.map(str))),
        table=draw(st.sampled_from((1, 100, 251, 252, 253, 254, 255, 256, 1000))),
        priority=draw(SMALL),
        mtu=draw(SMALL),
        advmss=draw(SMALL),
        scope=draw(st.sampled_from((0, 253, 254))),
        source=draw(st.one_of(st.just(""), addresses.map(str))),
        local=draw(st.booleans()),
    )


def place(dst: str, table: int) -> dict[str, int]:
    network = ip_network(dst)
    header = table if table < 252 or table in (253, 254, 255) else 252
    return {"family": FAMILY[network.version], "dst_len": network.prefixlen, "table": header}


def target(dst: str, table: int) -> list[tuple[str, Any]]:
    network = ip_network(dst)
    there = str(network.network_address) if network.prefixlen else None
    return [("RTA_DST", there), ("RTA_TABLE", table or None)]


def encoded(
    route: KernelRoute, onlink: bool = False, link: int = 3, how: int = CREATE | EXCLUSIVE, proto: int = 3
) -> bytes:
    metrics = pyroute.nested([("RTAX_MTU", route.mtu or None), ("RTAX_ADVMSS", route.advmss or None)])
    said = [
        *target(route.dst, route.table),
        ("RTA_OIF", link),
        ("RTA_GATEWAY", route.gateway or None),
        ("RTA_PREFSRC", route.source or None),
        ("RTA_PRIORITY", route.priority or None),
        ("RTA_METRICS", metrics if metrics["attrs"] else None),
    ]
    fields = {"proto": proto, "type": 2 if route.local else 1, "flags": 4 * onlink, "scope": route.scope}
    return pyroute.encoded(pyroute.ROUTE, pyroute.NEW, how, said, **place(route.dst, route.table), **fields)


@given(routes(), st.booleans(), st.booleans())
def test_a_route_is_added(route: KernelRoute, onlink: bool, beside: bool):
    ours = line.request_of(lambda rtnl: rtnl.add_route(LO, route, onlink, beside))
    assert ours == encoded(route, onlink, how=CREATE if beside else CREATE | EXCLUSIVE)


@given(routes(), st.booleans())
def test_a_route_replaces_its_equal_and_says_who_made_it(route: KernelRoute, onlink: bool):
    ours = line.request_of(lambda rtnl: rtnl.replace_route(LO, replace(route, protocol=MEMBER), onlink))
    assert ours == encoded(route, onlink, how=CREATE | REPLACE, proto=MEMBER)
    assert route_of(ours).protocol == MEMBER


@given(routes())
def test_a_route_of_one_who_says_so_is_deleted(route: KernelRoute):
    said = [*target(route.dst, route.table), ("RTA_OIF", 3)]
    fields = place(route.dst, route.table) | {"scope": 255, "proto": MEMBER}
    theirs = pyroute.encoded(pyroute.ROUTE, pyroute.DELETE, 0, said, **fields)
    assert line.request_of(lambda rtnl: rtnl.delete_route(LO, route.dst, route.table, protocol=MEMBER)) == theirs


@given(routes())
def test_a_route_is_deleted_whatever_its_scope(route: KernelRoute):
    said = [*target(route.dst, route.table), ("RTA_OIF", 3)]
    fields = place(route.dst, route.table) | {"scope": 255}
    theirs = pyroute.encoded(pyroute.ROUTE, pyroute.DELETE, 0, said, **fields)
    assert line.request_of(lambda rtnl: rtnl.delete_route(LO, route.dst, route.table)) == theirs


@pytest.mark.parametrize(
    ("verb", "how"), [(pyroute.NEW, CREATE | EXCLUSIVE), (pyroute.DELETE, 0)], ids=["refused", "no more"]
)
def test_a_destination_is_refused(verb: int, how: int):
    said = [*target("fd00::/48", 254), ("RTA_PRIORITY", 0xFFFFFFFF)]
    theirs = pyroute.encoded(pyroute.ROUTE, verb, how, said, **place("fd00::/48", 254), proto=3, type=7)
    ours = line.request_of(lambda rtnl: (rtnl.refuse_route if how else rtnl.delete_refused)("fd00::/48"))
    assert ours == theirs


@pytest.mark.parametrize(
    ("verb", "how"), [(pyroute.NEW, CREATE | EXCLUSIVE), (pyroute.DELETE, 0)], ids=["refused", "no more"]
)
def test_a_destination_is_refused_by_one_who_says_who_he_is(verb: int, how: int):
    """Of two routes to the same with one metric the second would be in the way of the first."""
    said = [*target("fd00::/48", 254), ("RTA_PRIORITY", 0xFFFFFFFE)]
    theirs = pyroute.encoded(pyroute.ROUTE, verb, how, said, **place("fd00::/48", 254), proto=0xAC, type=7)
    ours = line.request_of(lambda rtnl: (rtnl.keep_refused if how else rtnl.delete_refused)("fd00::/48", 0xAC))
    assert ours == theirs


@given(routes())
def test_a_route_is_read_as_it_is_said(route: KernelRoute):
    assert route_of(encoded(route)) == route


@pytest.mark.parametrize("family", [4, 6])
def test_the_routes_of_a_link_are_asked_for_by_it_and_looked_at(family: int):
    mine = KernelRoute(EVERYWHERE[family], "", 254, 0, 0, 0, 0)
    others = pyroute.encoded(pyroute.ROUTE, pyroute.NEW, 0, [("RTA_OIF", 4)], family=FAMILY[family], table=254)
    kernel = line.Line(encoded(mine), others)
    assert line.speaking(kernel).routes(LO, family) == [mine]
    wanted = pyroute.encoded(pyroute.ROUTE, pyroute.GET, DUMP, [("RTA_OIF", 3)], family=FAMILY[family])
    assert kernel.requests == [wanted]


@pytest.mark.parametrize("text", ["192.0.2.7", "fd00::7"])
def test_the_way_to_an_address_is_asked_for(text: str):
    address = ip_address(text)
    dst = f"{text}/{address.max_prefixlen}"
    said = {"family": FAMILY[address.version], "type": 1}
    answer = pyroute.encoded(pyroute.ROUTE, pyroute.NEW, 0, [("RTA_OIF", 3)], **said)
    found = []
    asked = line.request_of(lambda rtnl: found.append(rtnl.route_to(address)), answer)
    assert asked == pyroute.encoded(pyroute.ROUTE, pyroute.GET, 0, target(dst, 0), **place(dst, 0), flags=0x2000)
    assert found == [(3,)]


@pytest.mark.parametrize("text", ["192.0.2.7", "fd00::7"])
@pytest.mark.parametrize("local", [True, False])
def test_the_holder_of_an_address_is_the_link_of_its_local_route(text: str, local: bool):
    address = ip_address(text)
    dst = f"{text}/{address.max_prefixlen}"
    found = []
    answer = encoded(KernelRoute(dst, "", 255, 0, 0, 0, 254, local=local))
    asked = line.request_of(lambda rtnl: found.append(rtnl.holder_of(address)), answer)
    assert asked == pyroute.encoded(pyroute.ROUTE, pyroute.GET, 0, target(dst, 0), **place(dst, 0), flags=0x2000)
    assert found == [3 if local else 0]


def test_the_default_route_is_that_by_which_nobody_is_reached():
    default = KernelRoute("0.0.0.0/0", "10.0.0.1", 254, 0, 0, 0, 0)
    found = []
    asked = line.request_of(lambda rtnl: found.append(rtnl.default_route()), encoded(default))
    dst = "192.0.2.1/32"
    assert asked == pyroute.encoded(pyroute.ROUTE, pyroute.GET, 0, target(dst, 0), **place(dst, 0), flags=0x3000)
    assert found == [(3,)]


@pytest.mark.parametrize(
    "instead",
    [KernelRoute("192.0.2.0/24", "", 254, 0, 0, 0, 0), KernelRoute("0.0.0.0/0", "", 100, 0, 0, 0, 0)],
    ids=["a narrower one", "another table's"],
)
def test_where_another_route_leads_there_all_routes_are_asked_for_the_best(instead: KernelRoute):
    default = KernelRoute("0.0.0.0/0", "10.0.0.1", 254, 50, 0, 0, 0)
    worse = replace(default, priority=100)
    kernel = line.Line(encoded(instead), encoded(worse), encoded(default, link=5))
    assert line.speaking(kernel).default_route() == (5,)
    wanted = pyroute.encoded(pyroute.ROUTE, pyroute.GET, DUMP, [("RTA_TABLE", 254)], family=2)
    assert kernel.requests[1:] == [wanted]


def test_an_ipv4_route_goes_by_an_ipv6_gateway():
    wanted = KernelRoute("198.51.100.0/24", "fd00:2::1", 254, 0, 0, 0, 0)
    asked = line.request_of(lambda rtnl: rtnl.add_route(LO, wanted, onlink=False))
    assert attribute(18, struct.pack("=H", 10) + SECOND) in asked
    assert route_of(asked) == wanted


# --- next hops, by hand


def attribute(number: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), number) + value + bytes(-len(value) % 4)


def default(said: bytes) -> bytes:
    """IPv4's default route of the main table: struct rtmsg, then what is said of it."""
    body = struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 3, 0, 1, 0) + said
    return struct.pack("=IHHII", 16 + len(body), pyroute.ROUTE, 0, 0, 0) + body


def several(*hops: tuple[int, bytes]) -> bytes:
    """The same with such next hops: a link, and the attribute that says its gateway."""
    return default(attribute(9, b"".join(struct.pack("=HBBI", 8 + len(way), 0, 0, link) + way for link, way in hops)))


def next_hop(*said: bytes) -> bytes:
    """A next hop object: struct nhmsg, then its attributes."""
    body = struct.pack("=BBBxI", 2, 0, 3, 0) + b"".join(said)
    return struct.pack("=IHHII", 16 + len(body), 104, 0, 0, 0) + body


FIRST, SECOND = ip_address("10.0.1.1").packed, ip_address("fd00:2::1").packed


def test_a_route_is_read_by_each_of_its_next_hops():
    route = several((3, attribute(5, FIRST)), (5, attribute(18, struct.pack("=H", 10) + SECOND)), (7, b""))
    assert line.speaking(line.Line(route)).default_route() == (3, 5, 7)
    for link, gateway in ((3, "10.0.1.1"), (5, "fd00:2::1"), (7, "")):
        found = line.speaking(line.Line(route)).routes(LinkRef(link, "x"), 4)
        assert found == [KernelRoute("0.0.0.0/0", gateway, 254, 0, 0, 0, 0, several=True)]


def test_an_unreachable_default_route_is_no_way():
    unreachable = bytearray(several((1, b"")))
    unreachable[16 + 7] = 7
    assert line.speaking(line.Line(bytes(unreachable), bytes(unreachable), bytes(unreachable))).default_route() == ()


def test_a_route_that_names_a_group_has_the_next_hops_of_its_members():
    route = default(attribute(30, struct.pack("=I", 10)))
    group = next_hop(attribute(1, struct.pack("=I", 10)), attribute(2, struct.pack("=IBBxxIBBxx", 2, 0, 0, 1, 9, 0)))
    members = [next_hop(attribute(5, struct.pack("=I", link)), attribute(6, FIRST)) for link in (7, 3)]
    kernel = line.Line(route, group, *members)
    assert line.speaking(kernel).default_route() == (7, 3)
    asked = [struct.unpack("=IHHIIBBBxIHHI", request) for request in kernel.requests[1:]]
    assert [(words[1], words[-2:]) for words in asked] == [(106, (1, number)) for number in (10, 2, 1)]


@pytest.mark.parametrize(
    ("dst", "table", "header", "said"),
    [
        ("0.0.0.0/0", 254, 254, {"OIF": 3, "TABLE": 254, "GATEWAY": "10.0.0.1"}),
        ("fd00::/64", 254, 254, {"OIF": 3, "TABLE": 254, "GATEWAY": "10.0.0.1", "DST": "fd00::"}),
        ("10.9.0.0/16", 1000, 252, {"OIF": 3, "TABLE": 1000, "GATEWAY": "10.0.0.1", "DST": "10.9.0.0"}),
    ],
    ids=["everywhere", "IPv6", "a table beyond 255"],
)
def test_a_route(dst: str, table: int, header: int, said: dict[str, Any]):
    gateway = "fd00::1" if ":" in dst else "10.0.0.1"
    route = KernelRoute(dst, gateway, table, 0, 0, 0, 0)
    _, _, message = pyroute.decoded(line.request_of(lambda rtnl: rtnl.add_route(LO, route, onlink=True)))
    assert pyroute.said(message) == said | {"GATEWAY": gateway}
    assert (message["table"], message["flags"], message["type"]) == (header, 4, 1)


def test_metrics_are_inside_their_attribute():
    route = KernelRoute("10.9.0.0/16", "", 254, 0, 1400, 1360, 253)
    message = pyroute.decoded(line.request_of(lambda rtnl: rtnl.add_route(LO, route, onlink=False)))[2]
    metrics = message.get("metrics")
    assert (metrics.get("RTAX_MTU"), metrics.get("RTAX_ADVMSS")) == (1400, 1360)


# --- policy rules, which pyroute2 spells and reads in rules.py itself


def a_rule(family: int, verb: int, how: int, mark: int, table: int) -> bytes:
    """By hand: struct fib_rule_hdr, then FRA_FWMARK, FRA_TABLE and FRA_PRIORITY."""
    rule = struct.pack("=BBBBBxxBI", FAMILY[family], 0, 0, 0, min(table, 252), 1, 0)
    rule += b"".join(struct.pack("=HHI", 8, kind, value) for kind, value in ((10, mark), (15, table), (6, 32000)))
    return struct.pack("=IHHII", 16 + len(rule), pyroute.RULE + verb, how | REQUEST | ACK, 0, 0) + rule


@pytest.mark.parametrize("family", [4, 6])
@given(st.integers(1, (1 << 32) - 1), st.integers(1, 9999))
def test_a_mark_rule(family: int, mark: int, table: int):
    added = line.request_of(lambda rtnl: rtnl.add_mark_rule(family, mark, table))
    assert added == a_rule(family, pyroute.NEW, CREATE | EXCLUSIVE, mark, table)
    deleted = line.request_of(lambda rtnl: rtnl.delete_mark_rule(family, mark, table))
    assert deleted == a_rule(family, pyroute.DELETE, 0, mark, table)


@pytest.mark.parametrize("family", [4, 6])
def test_mark_rules_are_read_and_others_left_out(family: int):
    usual = pyroute.encoded(pyroute.RULE, pyroute.NEW, 0, [("FRA_TABLE", 254)], family=FAMILY[family], table=254)
    in_header = [("FRA_FWMARK", 7)]
    short = pyroute.encoded(pyroute.RULE, pyroute.NEW, 0, in_header, family=FAMILY[family], table=99)
    kernel = line.Line(usual, a_rule(family, pyroute.NEW, 0, 1337, 1000), short)
    assert line.speaking(kernel).mark_rules(family) == {(1337, 1000), (7, 99)}
    assert kernel.requests == [pyroute.encoded(pyroute.RULE, pyroute.GET, DUMP, family=FAMILY[family])]
