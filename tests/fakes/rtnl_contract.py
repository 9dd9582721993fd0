"""What holds of a namespace's rtnetlink, real or fake. Each statement is given one that has nothing but `lo`, which is down."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv6Network, ip_address, ip_interface

import pytest

from cni.errors import KernelRefused
from cni.kernel.netlink import Rtnl
from cni.kernel.netlink.reachability import Asking
from cni.kernel.view import (
    ASKED,
    FIXED,
    MAIN_TABLE,
    MEMBER,
    SCOPE_LINK,
    SCOPE_UNIVERSE,
    SILENT,
    UPLINK,
    KernelRoute,
    Link,
    LinkRef,
    MacvlanSettings,
    VethEnd,
    Vxlan,
)
from cni.naming import OWNER
from cni.values import replace

Statement = Callable[[Asking], None]
#: Every statement; a test runs each.
STATEMENTS: list[Statement] = []

MAC, OTHER_MAC = "0a:00:00:00:00:01", "0a:00:00:00:00:02"
NOWHERE = LinkRef(999, "gone")
ADDRESS, ADDRESS6 = ip_interface("10.0.0.1/24"), ip_interface("fd00::1/64")
VXLAN = Vxlan(7, 4790, "192.0.2.1", 0)


def statement(holds: Statement) -> Statement:
    STATEMENTS.append(holds)
    return holds


@contextmanager
def refused(number: int) -> Iterator[None]:
    with pytest.raises(KernelRefused) as caught:
        yield
    assert errno.errorcode[caught.value.errno] == errno.errorcode[number]


def there(rtnl: Rtnl, name: str) -> Link:
    found = rtnl.link_by_name(name)
    assert found
    return found


def bridge(rtnl: Rtnl, name: str = "br0") -> Link:
    rtnl.create_bridge(name, MAC, 1400)
    return there(rtnl, name)


def veth(rtnl: Rtnl, bridge: int = 0, *, up: bool = True) -> tuple[Link, Link]:
    rtnl.create_veth(VethEnd("veth0", MAC, 1400), VethEnd("veth1", OTHER_MAC, 1400), bridge=bridge, up=up)
    return there(rtnl, "veth0"), there(rtnl, "veth1")


def vxlan(rtnl: Rtnl, number: int = 0) -> Link:
    rtnl.create_vxlan(f"vx{number}", MAC, 1400, VXLAN if not number else replace(VXLAN, vni=number))
    return there(rtnl, f"vx{number}")


# --- links


@statement
def at_first_there_is_lo(rtnl: Rtnl) -> None:
    (lo,) = rtnl.links()
    assert (lo.index, lo.name, lo.kind, lo.up, lo.mac) == (1, "lo", "", False, "00:00:00:00:00:00")
    assert there(rtnl, "lo") == rtnl.link_by_index(1) == rtnl.cached_link("lo") == lo
    assert rtnl.link_ref("lo") is not None
    assert rtnl.link_ref("lo").index == 1


@statement
def a_link_that_is_not_there_is_none(rtnl: Rtnl) -> None:
    for ask in (rtnl.link_by_name, rtnl.cached_link, rtnl.link_ref):
        assert ask("gone") is None
    assert rtnl.link_by_index(999) is None


@statement
def a_bridge_is_up_with_what_it_was_given(rtnl: Rtnl) -> None:
    link = bridge(rtnl)
    assert (link.kind, link.mac, link.mtu, link.up, link.alias) == ("bridge", MAC, 1400, True, OWNER)
    assert (link.promiscuous, link.filtered, link.bridge) == (False, False, 0)


@statement
def a_name_that_is_taken_is_refused(rtnl: Rtnl) -> None:
    before = bridge(rtnl)
    with refused(errno.EEXIST):
        rtnl.create_bridge("br0", OTHER_MAC, 1500)
    with refused(errno.EEXIST):
        rtnl.create_veth(VethEnd("br0", MAC, 1400), VethEnd("far", OTHER_MAC, 1400))
    with refused(errno.EEXIST):
        rtnl.create_veth(VethEnd("near", MAC, 1400), VethEnd("br0", OTHER_MAC, 1400))
    assert there(rtnl, "br0") == before
    assert {link.name for link in rtnl.links()} == {"lo", "br0"}


@statement
def a_veth_has_two_ends(rtnl: Rtnl) -> None:
    near, far = veth(rtnl)
    assert (near.kind, near.mac, near.mtu, near.up, near.bridge) == ("veth", MAC, 1400, True, 0)
    assert (far.kind, far.mac, far.mtu, far.up, far.bridge) == ("veth", OTHER_MAC, 1400, False, 0)
    assert (near.parent, far.parent, near.parent_elsewhere) == (far.index, near.index, False)


@statement
def a_veth_is_born_on_its_bridge(rtnl: Rtnl) -> None:
    port, far = veth(rtnl, bridge(rtnl).index, up=False)
    assert (port.bridge, port.up, far.bridge) == (there(rtnl, "br0").index, False, 0)
    assert (port.hairpin, port.isolated, port.neigh_suppress, port.multicast_router) == (False, False, False, 1)


@statement
def a_bridge_that_is_not_there_has_no_ports(rtnl: Rtnl) -> None:
    with refused(errno.EINVAL):
        veth(rtnl, 999)
    assert rtnl.link_by_name("veth0") is None


@statement
def one_end_goes_with_the_other(rtnl: Rtnl) -> None:
    near, far = veth(rtnl)
    rtnl.delete_link(far)
    assert rtnl.link_by_name("veth0") is rtnl.link_by_name("veth1") is None
    rtnl.delete_link(near)


@statement
def a_port_outlives_its_bridge(rtnl: Rtnl) -> None:
    port, _ = veth(rtnl, bridge(rtnl).index)
    rtnl.delete_link(there(rtnl, "br0"))
    assert there(rtnl, port.name).bridge == 0


@statement
def what_is_set_of_a_link_is_so(rtnl: Rtnl) -> None:
    index = bridge(rtnl).index
    near, _ = veth(rtnl, up=False)
    rtnl.set_link(near, up=True, mtu=1300, master=index, address="0a:00:00:00:00:09", ifalias="mine")
    link = there(rtnl, "veth0")
    assert (link.up, link.mtu, link.bridge, link.mac, link.alias) == (True, 1300, index, "0a:00:00:00:00:09", "mine")
    rtnl.set_link(link, master=0)
    assert there(rtnl, "veth0").bridge == 0


@statement
def a_link_that_is_gone_is_not_set(rtnl: Rtnl) -> None:
    for change in (
        lambda: rtnl.set_link(NOWHERE, up=True),
        lambda: rtnl.set_port(NOWHERE, isolated=1),
        lambda: rtnl.set_promiscuous(NOWHERE),
        lambda: rtnl.filter_bridge(NOWHERE),
    ):
        with refused(errno.ENODEV):
            change()


@statement
def what_is_set_of_a_port_is_so(rtnl: Rtnl) -> None:
    port, _ = veth(rtnl, bridge(rtnl).index, up=False)
    rtnl.set_port(port, up=True, mode=1, isolated=1, neigh_suppress=1, multicast_router=0)
    link = there(rtnl, "veth0")
    assert (link.up, link.hairpin, link.isolated, link.neigh_suppress) == (True, True, True, True)
    assert link.multicast_router == 0
    assert link.switched_off == ()
    rtnl.set_port(port, isolated=0, flood=0, learning=0)
    assert there(rtnl, "veth0").switched_off == ("learning", "flood")
    rtnl.set_port(port, flood=1, learning=1)
    assert there(rtnl, "veth0").switched_off == ()
    link = there(rtnl, "veth0")
    assert (link.hairpin, link.isolated) == (True, False)


@statement
def a_link_that_is_no_port_has_no_settings_of_one(rtnl: Rtnl) -> None:
    near, _ = veth(rtnl)
    with refused(errno.EOPNOTSUPP):
        rtnl.set_port(near, isolated=1)


@statement
def promiscuity_and_a_bridges_switch(rtnl: Rtnl) -> None:
    link = bridge(rtnl)
    rtnl.set_promiscuous(link)
    rtnl.filter_bridge(link)
    assert (there(rtnl, "br0").promiscuous, there(rtnl, "br0").filtered) == (True, True)
    rtnl.filter_bridge(link, on=False)
    assert (there(rtnl, "br0").promiscuous, there(rtnl, "br0").filtered) == (True, False)


@statement
def a_link_that_is_gone_is_deleted(rtnl: Rtnl) -> None:
    link = bridge(rtnl)
    rtnl.delete_link(link)
    rtnl.delete_link(link)
    assert rtnl.link_by_name("br0") is None


@statement
def a_link_is_cached_until_it_is_another(rtnl: Rtnl) -> None:
    near, seen = veth(rtnl)
    rtnl.set_promiscuous(seen)
    assert rtnl.cached_link("veth1") == seen
    rtnl.delete_link(near)
    assert rtnl.cached_link("veth1") is None
    rtnl.create_veth(VethEnd("veth0", MAC, 1300), VethEnd("veth1", OTHER_MAC, 1300))
    again = rtnl.cached_link("veth1")
    assert again is not None
    assert (again.index != seen.index, again.mtu) == (True, 1300)


@statement
def a_vxlan_device_is_down_with_what_it_was_given(rtnl: Rtnl) -> None:
    link = vxlan(rtnl)
    assert (link.kind, link.mac, link.mtu, link.up) == ("vxlan", MAC, 1400, False)
    assert (link.alias, link.vxlan) == (OWNER, VXLAN)
    assert rtnl.tunnels() == [link]


@statement
def a_vni_and_port_that_are_taken_are_refused(rtnl: Rtnl) -> None:
    vxlan(rtnl)
    with refused(errno.EEXIST):
        rtnl.create_vxlan("vx1", MAC, 1400, VXLAN)
    rtnl.create_vxlan("vx1", OTHER_MAC, 1400, Vxlan(7, 4791, "192.0.2.1", 0))
    assert {item.name for item in rtnl.tunnels()} == {"vx0", "vx1"}


@statement
def a_vxlan_device_is_changed_where_it_is(rtnl: Rtnl) -> None:
    under, _ = veth(rtnl)
    link = vxlan(rtnl)
    for wanted in (Vxlan(7, 4790, "192.0.2.2", under.index, learning=False), Vxlan(7, 4790, "", under.index)):
        rtnl.set_vxlan(link, wanted)
        assert there(rtnl, "vx0").vxlan == rtnl.tunnels()[0].vxlan == wanted
    rtnl.set_vxlan(link, Vxlan(7, 4790, "", 0))
    assert there(rtnl, "vx0").vxlan == Vxlan(7, 4790, "", under.index)
    for local in ("fd00::1", "::"):
        with refused(errno.EOPNOTSUPP):
            rtnl.set_vxlan(link, Vxlan(7, 4790, local, 0))


@statement
def a_vxlan_device_is_of_one_family(rtnl: Rtnl) -> None:
    link = vxlan(rtnl)
    rtnl.create_vxlan("vx6", OTHER_MAC, 1400, Vxlan(8, 4790, "::", 0))
    other = there(rtnl, "vx6")
    assert other.vxlan == Vxlan(8, 4790, "", 0)
    rtnl.add_flood_target(link, "192.0.2.8")
    rtnl.add_flood_target(other, "fd00::8")
    for at, vtep in ((link, "fd00::8"), (other, "192.0.2.8")):
        with refused(errno.EAFNOSUPPORT):
            rtnl.add_flood_target(at, vtep)


@statement
def what_somebody_gave_a_vxlan_device_is_given_to_another(rtnl: Rtnl) -> None:
    link = vxlan(rtnl)
    rtnl.add_fdb_row(link, MAC, "192.0.2.8")
    for vtep in ("192.0.2.8", "192.0.2.9"):
        rtnl.add_flood_target(link, vtep)
    rows = rtnl.given_rows(link)
    assert len(rows) == 3
    rtnl.delete_link(link)
    again = vxlan(rtnl)
    for row in rows:
        rtnl.add_given_row(again, *row)
    assert rtnl.fdb(again) == {MAC: "192.0.2.8"}
    assert rtnl.flood_targets(again) == {"192.0.2.8", "192.0.2.9"}


@statement
def the_ports_of_a_bridge_are_its_own(rtnl: Rtnl) -> None:
    index = bridge(rtnl).index
    veth(rtnl)
    tunnel = vxlan(rtnl)
    rtnl.set_link(tunnel, master=index)
    assert [port.name for port in rtnl.ports(there(rtnl, "br0"))] == ["vx0"]


@statement
def who_holds_an_address_is_known(rtnl: Rtnl) -> None:
    near, _ = veth(rtnl)
    rtnl.set_link(near, up=True)
    for address in (ADDRESS, ADDRESS6):
        rtnl.add_address(near, address, nodad=True)
        assert rtnl.holding(address.ip) == rtnl.link_holding(address.ip) == near.index
        assert address.ip in rtnl.own_addresses()
        until = (
            time.monotonic() + 10
        )  # the kernel routes to an IPv6 address a moment later (addrconf_dad_work in net/ipv6)
        while not rtnl.holder_of(address.ip) and time.monotonic() < until:
            time.sleep(0.01)
        assert rtnl.holder_of(address.ip) == near.index
        assert rtnl.holder_of(address.ip + 7) == rtnl.holding(address.ip + 7) == rtnl.link_holding(address.ip + 7) == 0


@statement
def a_vxlan_device_on_a_link_that_is_not_there_is_refused(rtnl: Rtnl) -> None:
    with refused(errno.ENODEV):
        rtnl.create_vxlan("vx0", MAC, 1400, Vxlan(7, 4790, "", 999))


@statement
def a_macvlan_stands_on_its_parent(rtnl: Rtnl) -> None:
    parent, _ = veth(rtnl)
    rtnl.create_macvlan("mv0", OTHER_MAC, 1300, MacvlanSettings("vepa", parent.index))
    link = there(rtnl, "mv0")
    assert (link.kind, link.macvlan_mode, link.parent, link.parent_elsewhere) == (
        "macvlan",
        "vepa",
        parent.index,
        False,
    )
    assert (link.mac, link.mtu, link.up) == (OTHER_MAC, 1300, False)
    rtnl.delete_link(parent)
    assert rtnl.link_by_name("mv0") is None


@statement
def a_macvlan_on_nothing_is_refused(rtnl: Rtnl) -> None:
    with refused(errno.ENODEV):
        rtnl.create_macvlan("mv0", "", 1400, MacvlanSettings("bridge", 999))


@statement
def a_macvlan_on_what_one_has_for_itself_is_refused(rtnl: Rtnl) -> None:
    parent, _ = veth(rtnl)
    rtnl.create_macvlan("mv0", "", 1400, MacvlanSettings("passthru", parent.index))
    assert there(rtnl, "mv0").mac == parent.mac
    with refused(errno.EINVAL):
        rtnl.create_macvlan("mv1", "", 1400, MacvlanSettings("bridge", parent.index))


# --- addresses and their labels


@statement
def an_address_is_on_its_link(rtnl: Rtnl) -> None:
    lo, link = there(rtnl, "lo"), bridge(rtnl)
    rtnl.add_address(link, ADDRESS)
    rtnl.add_address(link, ADDRESS6, nodad=True, deprecated=True)
    held = {item.interface: (item.tentative, item.duplicate) for item in rtnl.addresses(link)}
    assert held[ADDRESS] == held[ADDRESS6] == (False, False)
    assert not {ADDRESS, ADDRESS6} & {item.interface for item in rtnl.addresses(lo)}


@statement
def an_address_is_there_once(rtnl: Rtnl) -> None:
    link = bridge(rtnl)
    for interface in (ADDRESS, ADDRESS6):
        rtnl.add_address(link, interface)
        with refused(errno.EEXIST):
            rtnl.add_address(link, interface)


@statement
def an_address_is_of_a_scope(rtnl: Rtnl) -> None:
    link, alone = bridge(rtnl), ip_interface(f"{ADDRESS.ip}/32")
    rtnl.add_address(link, ADDRESS)
    rtnl.add_address(link, alone, scope=SCOPE_LINK)
    assert {item.interface: item.scope for item in rtnl.addresses(link) if item.interface.version == 4} == {
        ADDRESS: SCOPE_UNIVERSE,
        alone: SCOPE_LINK,
    }
    rtnl.delete_address(link, ADDRESS)
    rtnl.add_address(link, ADDRESS, scope=SCOPE_LINK)
    assert {item.scope for item in rtnl.addresses(link) if item.interface.version == 4} == {SCOPE_LINK}


@statement
def an_address_that_is_gone_is_removed(rtnl: Rtnl) -> None:
    link = bridge(rtnl)
    for interface in (ADDRESS, ADDRESS6):
        rtnl.add_address(link, interface)
        rtnl.delete_address(link, interface)
        rtnl.delete_address(link, interface)
        assert interface not in [item.interface for item in rtnl.addresses(link)]


@statement
def addresses_go_with_their_link(rtnl: Rtnl) -> None:
    link = bridge(rtnl)
    rtnl.add_address(link, ADDRESS)
    rtnl.delete_link(link)
    assert ADDRESS not in [item.interface for item in rtnl.addresses(bridge(rtnl))]
    with refused(errno.ENODEV):
        rtnl.add_address(link, ADDRESS)
    rtnl.delete_address(link, ADDRESS)
    with refused(errno.ENODEV):
        rtnl.addresses(link)


@statement
def a_prefix_has_one_label(rtnl: Rtnl) -> None:
    prefix = IPv6Network("fd00:9::/64")
    rtnl.add_label(prefix, 77)
    assert rtnl.labels()["fd00:9::/64"] == 77
    with refused(errno.EEXIST):
        rtnl.add_label(prefix, 77)
    rtnl.add_label(prefix, 77, perhaps_there=True)
    rtnl.delete_label(prefix, 77)
    rtnl.delete_label(prefix, 77)
    assert "fd00:9::/64" not in rtnl.labels()


@statement
def a_wireguard_device_is_made_where_the_kernel_has_them(rtnl: Rtnl) -> None:
    made = rtnl.create_wireguard("wg0")
    assert made == (rtnl.link_by_name("wg0") is not None)
    if made:
        assert (there(rtnl, "wg0").kind, there(rtnl, "wg0").up) == ("wireguard", False)


# --- routes and policy rules


def route(dst: str, gateway: str = "", *, table: int = MAIN_TABLE, priority: int = 0, mtu: int = 0) -> KernelRoute:
    return KernelRoute(dst, gateway, table, priority, mtu, 0, 0 if gateway else SCOPE_LINK)


@statement
def a_route_is_on_its_link_in_its_family(rtnl: Rtnl) -> None:
    link, wanted = bridge(rtnl), route("198.51.100.0/24", mtu=1300, priority=50)
    rtnl.add_route(link, wanted, onlink=False)
    assert wanted in rtnl.routes(link, 4)
    assert wanted not in rtnl.routes(there(rtnl, "lo"), 4)
    assert wanted not in rtnl.routes(link, 6)


@statement
def a_route_is_there_once_in_each_table(rtnl: Rtnl) -> None:
    link = bridge(rtnl)
    for dst in ("198.51.100.0/24", "fd00:77::/64"):
        rtnl.add_route(link, route(dst), onlink=False)
        with refused(errno.EEXIST):
            rtnl.add_route(link, route(dst), onlink=False)
        rtnl.add_route(link, route(dst, table=1000), onlink=False)
    found = {(item.dst, item.table) for item in rtnl.routes(link, 4)}
    assert found >= {("198.51.100.0/24", MAIN_TABLE), ("198.51.100.0/24", 1000)}


@statement
def a_route_that_is_gone_is_removed(rtnl: Rtnl) -> None:
    link = bridge(rtnl)
    rtnl.add_route(link, route("198.51.100.0/24"), onlink=False)
    rtnl.add_route(link, route("198.51.100.0/24", table=1000), onlink=False)
    for _ in range(2):
        rtnl.delete_route(link, "198.51.100.0/24")
    assert [item.table for item in rtnl.routes(link, 4) if item.dst == "198.51.100.0/24"] == [1000]


@statement
def a_gateway_nobody_reaches_is_refused(rtnl: Rtnl) -> None:
    link = bridge(rtnl)
    wanted = route("0.0.0.0/0", "10.0.0.9")
    with refused(errno.ENETUNREACH):
        rtnl.add_route(link, wanted, onlink=False)
    rtnl.add_address(link, ADDRESS)
    rtnl.add_route(link, wanted, onlink=False)
    assert wanted in rtnl.routes(link, 4)
    far = route("203.0.113.0/24", "192.0.2.9")
    rtnl.add_route(link, far, onlink=True)
    assert far in rtnl.routes(link, 4)


@statement
def a_link_that_is_down_or_gone_has_no_routes(rtnl: Rtnl) -> None:
    near, _ = veth(rtnl, up=False)
    with refused(errno.ENETDOWN):
        rtnl.add_route(near, route("198.51.100.0/24"), onlink=False)
    with refused(errno.ENODEV):
        rtnl.add_route(NOWHERE, route("198.51.100.0/24"), onlink=False)


@statement
def the_way_to_an_address_is_the_narrowest(rtnl: Rtnl) -> None:
    wide, narrow = bridge(rtnl), bridge(rtnl, "br1")
    assert rtnl.route_to(ip_address("198.51.100.1")) == ()
    rtnl.add_route(wide, route("198.51.100.0/24"), onlink=False)
    rtnl.add_route(narrow, route("198.51.100.0/25"), onlink=False)
    assert rtnl.route_to(ip_address("198.51.100.1")) == (narrow.index,)
    assert rtnl.route_to(ip_address("198.51.100.200")) == (wide.index,)
    assert rtnl.route_to(ip_address("fd00::9")) == ()


@statement
def a_destination_is_refused_unless_a_route_leads_there(rtnl: Rtnl) -> None:
    link = bridge(rtnl)
    for default, dst, inside in (("::/0", "fd00:7::/48", "fd00:7::1"), ("0.0.0.0/0", "10.7.0.0/16", "10.7.0.1")):
        address = ip_address(inside)
        rtnl.add_route(link, route(default), onlink=False)
        assert not rtnl.refuses(dst)
        assert [rtnl.refuse_route(dst), rtnl.refuse_route(dst)] == [True, False]
        assert rtnl.refuses(dst)
        for _ in range(2):  # beside it
            rtnl.keep_refused(dst, MEMBER)
        assert rtnl.refused_by(MEMBER) == [dst]
        for _ in range(2):
            rtnl.delete_refused(dst, MEMBER)
        assert rtnl.refused_by(MEMBER) == []
        assert rtnl.refuses(dst)
        assert rtnl.route_to(address) == ()
        rtnl.add_route(link, route(dst, priority=1024), onlink=False)
        assert rtnl.route_to(address) == (link.index,)
        rtnl.delete_route(link, dst)
        assert rtnl.route_to(address) == ()
        for _ in range(2):
            rtnl.delete_refused(dst)
        assert not rtnl.refuses(dst)
        assert rtnl.route_to(address) == (link.index,)


@statement
def the_best_default_route_counts(rtnl: Rtnl) -> None:
    worse, better = bridge(rtnl), bridge(rtnl, "br1")
    assert rtnl.default_route() == ()
    rtnl.add_route(worse, route("0.0.0.0/0", priority=100), onlink=False)
    assert rtnl.default_route() == (worse.index,)
    rtnl.add_route(better, route("0.0.0.0/0", priority=50), onlink=False)
    assert rtnl.default_route() == (better.index,)
    rtnl.add_route(worse, route("192.0.2.0/24"), onlink=False)
    assert rtnl.default_route() == (better.index,)


@statement
def the_halves_by_which_an_uplink_is_preferred_are_the_default_route(rtnl: Rtnl) -> None:
    own, preferred, other = bridge(rtnl), bridge(rtnl, "br1"), bridge(rtnl, "br2")
    for whole, halves in (("0.0.0.0/0", ("0.0.0.0/1", "128.0.0.0/1")), ("::/0", ("::/1", "8000::/1"))):
        rtnl.add_route(own, route(whole, priority=1), onlink=False)
        ours = [replace(route(half, priority=UPLINK), protocol=UPLINK) for half in halves]
        for half in ours:
            rtnl.replace_route(preferred, half, onlink=False)
        assert rtnl.default_route() == (preferred.index,)
        assert {(index, item.dst) for index, item in rtnl.routes_by(UPLINK)} >= {(preferred.index, it) for it in halves}
        for half in ours:
            rtnl.replace_route(other, half, onlink=False)
        assert rtnl.default_route() == (other.index,)
        for half in halves:
            rtnl.delete_route(other, half, protocol=UPLINK)
        assert rtnl.default_route() == (own.index,)
        rtnl.delete_route(own, whole)
    assert rtnl.routes_by(UPLINK) == []


@statement
def ipv6_has_the_default_route_where_ipv4_has_none(rtnl: Rtnl) -> None:
    link = bridge(rtnl)
    rtnl.add_route(link, route("::/0"), onlink=False)
    assert rtnl.default_route() == (link.index,)


@statement
def a_route_stands_beside_another_if_it_may(rtnl: Rtnl) -> None:
    first, second = bridge(rtnl), bridge(rtnl, "br1")
    rtnl.add_address(first, ADDRESS)
    for family, dst, gateway, other in (
        (4, "198.51.100.0/24", "192.0.2.9", "192.0.2.8"),
        (6, "::/0", "fd00:9::9", "fd00:9::8"),
    ):
        far = route(dst, gateway)
        for link in (first, second):
            rtnl.add_route(link, far, onlink=True, beside=True)
            with refused(errno.EEXIST):
                rtnl.add_route(link, far, onlink=True, beside=True)
        with refused(errno.EEXIST):
            rtnl.add_route(second, route(dst, other), onlink=True)
        for link in (first, second):
            assert [item.gateway for item in rtnl.routes(link, family) if item.dst == dst] == [gateway]
    assert rtnl.default_route() == rtnl.route_to(ip_address("fd00:99::1")) == (first.index, second.index)


@statement
def what_nobody_advertised_is_no_routers(rtnl: Rtnl) -> None:
    link = bridge(rtnl)
    rtnl.add_address(link, ADDRESS6)
    rtnl.add_route(link, route("::/0", "fd00::9"), onlink=False)
    assert rtnl.advertised() == set()


@statement
def a_mark_is_looked_up_in_its_family(rtnl: Rtnl) -> None:
    assert rtnl.mark_rules(4) == set()
    rtnl.add_mark_rule(4, 1337, 1000)
    with refused(errno.EEXIST):
        rtnl.add_mark_rule(4, 1337, 1000)
    assert (rtnl.mark_rules(4), rtnl.mark_rules(6)) == ({(1337, 1000)}, set())
    rtnl.delete_mark_rule(4, 1337, 1000)
    rtnl.delete_mark_rule(4, 1337, 1000)
    assert rtnl.mark_rules(4) == set()


# --- neighbours and the forwarding database


@statement
def a_link_is_set_down_and_one_that_is_gone_is(rtnl: Rtnl) -> None:
    link = bridge(rtnl)
    for down in (link, link, NOWHERE):
        rtnl.set_down(down)
    assert not there(rtnl, link.name).up
    rtnl.set_link(link, up=True)
    assert there(rtnl, link.name).up


@statement
def a_neighbour_is_on_its_link_and_replaced(rtnl: Rtnl) -> None:
    link, other = bridge(rtnl), bridge(rtnl, "br1")
    for address in ("10.0.0.9", "fd00::9"):
        rtnl.add_neighbour(link, address, MAC)
        rtnl.add_neighbour(link, address, OTHER_MAC)
    assert rtnl.neighbours(link) == {"10.0.0.9": OTHER_MAC, "fd00::9": OTHER_MAC}
    assert rtnl.neighbours(other) == {}


@statement
def a_neighbour_that_is_gone_is_forgotten(rtnl: Rtnl) -> None:
    link = bridge(rtnl)
    rtnl.add_neighbour(link, "10.0.0.9", MAC)
    for _ in range(2):
        rtnl.delete_neighbour(link, "10.0.0.9")
    assert rtnl.neighbours(link) == {}
    with refused(errno.ENODEV):
        rtnl.add_neighbour(NOWHERE, "10.0.0.9", MAC)


@statement
def a_neighbour_is_asked_and_one_that_never_was_is_silent(rtnl: Asking) -> None:
    link, _ = veth(rtnl)
    rtnl.add_address(link, ADDRESS)
    rtnl.add_neighbour(link, "10.0.0.8", MAC)
    assert [rtnl.reachability(link, f"10.0.0.{number}") for number in (8, 9)] == [FIXED, SILENT]
    rtnl.ask_all(link, "10.0.0.9")
    rtnl.ask_all(link, "10.0.0.9")
    rtnl.ask_again(link, "10.0.0.7")  # whom nobody knows
    rtnl.announce(link, "10.0.0.1")
    assert [rtnl.reachability(link, f"10.0.0.{number}") for number in (9, 7, 1)] == [ASKED, SILENT, SILENT]
    for ask in (rtnl.ask_all, rtnl.ask_again, rtnl.announce):
        ask(NOWHERE, "10.0.0.9")
    assert rtnl.reachability(NOWHERE, "10.0.0.9") == SILENT


@statement
def a_mac_is_behind_one_vtep(rtnl: Rtnl) -> None:
    link = vxlan(rtnl)
    rtnl.add_fdb_row(link, MAC, "192.0.2.8")
    rtnl.add_fdb_row(link, OTHER_MAC, "192.0.2.8")
    rtnl.add_fdb_row(link, MAC, "192.0.2.9")
    assert rtnl.fdb(link) == {MAC: "192.0.2.9", OTHER_MAC: "192.0.2.8"}
    for _ in range(2):
        rtnl.delete_fdb_row(link, MAC, "192.0.2.9")
    assert rtnl.fdb(link) == {OTHER_MAC: "192.0.2.8"}
    assert rtnl.flood_targets(link) == set()


@statement
def a_neighbour_an_address_and_a_route_say_who_made_them(rtnl: Rtnl) -> None:
    link = bridge(rtnl)
    rtnl.add_neighbour(link, "10.0.0.8", MAC)
    for address in ("10.0.0.9", "fd00::9"):
        rtnl.add_neighbour(link, address, MAC, protocol=MEMBER)
    assert rtnl.neighbours_by(link, MEMBER) == {"10.0.0.9": MAC, "fd00::9": MAC}
    assert rtnl.neighbours(link) == {"10.0.0.8": MAC, "10.0.0.9": MAC, "fd00::9": MAC}
    for interface in (ADDRESS, ADDRESS6):
        rtnl.add_address(link, interface, protocol=MEMBER)
    assert {item.interface for item in rtnl.addresses(link) if item.protocol == MEMBER} == {ADDRESS, ADDRESS6}


@statement
def a_route_replaces_its_equal_and_goes_only_if_who_made_it_says_so(rtnl: Rtnl) -> None:
    link = bridge(rtnl)
    rtnl.add_address(link, ADDRESS)
    other, first, second = (
        replace(route("198.51.100.0/24", priority=priority), source=source, protocol=maker)
        for priority, source, maker in ((0, "", 0), (MEMBER, "", MEMBER), (MEMBER, str(ADDRESS.ip), MEMBER))
    )
    rtnl.add_route(link, other, onlink=False)
    rtnl.replace_route(link, first, onlink=False)
    rtnl.replace_route(link, second, onlink=False)
    assert [item for item in rtnl.routes(link, 4) if item.dst == other.dst] == [other, second]
    for _ in range(2):
        rtnl.delete_route(link, other.dst, protocol=MEMBER)
    assert [item for item in rtnl.routes(link, 4) if item.dst == other.dst] == [other]


@statement
def what_a_control_plane_knows_is_apart_and_goes_only_if_it_is_behind_that_vtep(rtnl: Rtnl) -> None:
    port, lone = vxlan(rtnl), vxlan(rtnl, 43)
    rtnl.set_link(port, master=bridge(rtnl).index)
    for link in (there(rtnl, port.name), lone):
        rtnl.add_fdb_row(link, OTHER_MAC, "192.0.2.8")
        for vtep in ("192.0.2.8", "192.0.2.9", "192.0.2.9"):
            rtnl.add_peer_row(link, MAC, vtep)
        assert rtnl.peer_rows(link) == {MAC: "192.0.2.9"}
        rtnl.delete_peer_row(link, MAC, "192.0.2.8")
        assert rtnl.fdb(link) == {MAC: "192.0.2.9", OTHER_MAC: "192.0.2.8"}
        assert rtnl.strange_rows(link) == {OTHER_MAC}
        for _ in range(2):
            rtnl.delete_peer_row(link, MAC, "192.0.2.9")
        assert rtnl.peer_rows(link) == {}
        assert rtnl.fdb(link) == {OTHER_MAC: "192.0.2.8"}


@statement
def what_is_unknown_goes_to_every_flood_target(rtnl: Rtnl) -> None:
    link = vxlan(rtnl)
    for vtep in ("192.0.2.8", "192.0.2.9", "192.0.2.9"):
        rtnl.add_flood_target(link, vtep)
    assert rtnl.flood_targets(link) == {"192.0.2.8", "192.0.2.9"}
    for _ in range(2):
        rtnl.delete_flood_target(link, "192.0.2.8")
    assert rtnl.flood_targets(link) == {"192.0.2.9"}
    assert rtnl.fdb(link) == {}


@statement
def a_link_that_is_gone_has_no_vteps(rtnl: Rtnl) -> None:
    for change in (rtnl.add_flood_target, lambda link, vtep: rtnl.add_fdb_row(link, MAC, vtep)):
        with refused(errno.ENODEV):
            change(NOWHERE, "192.0.2.8")


@statement
def what_is_on_a_link_that_is_gone_is_gone(rtnl: Rtnl) -> None:
    for interface, dst, address in ((ADDRESS, "198.51.100.0/24", "10.0.0.9"), (ADDRESS6, "fd00:9::/64", "fd00::9")):
        rtnl.delete_address(NOWHERE, interface)
        rtnl.delete_route(NOWHERE, dst)
        rtnl.delete_neighbour(NOWHERE, address)
    rtnl.delete_fdb_row(NOWHERE, MAC, "192.0.2.8")
    rtnl.delete_peer_row(NOWHERE, MAC, "192.0.2.8")
    rtnl.delete_flood_target(NOWHERE, "192.0.2.8")


# --- batches


@statement
def a_batch_of_nothing_is_done(rtnl: Rtnl) -> None:
    with rtnl.batch():
        pass
    assert len(rtnl.links()) == 1


@statement
def a_batch_goes_out_at_its_end(rtnl: Rtnl) -> None:
    link = bridge(rtnl)
    with rtnl.batch():
        rtnl.add_address(link, ADDRESS)
        assert ADDRESS not in [item.interface for item in rtnl.addresses(link)]
    assert ADDRESS in [item.interface for item in rtnl.addresses(link)]


@statement
def a_batch_of_a_thousand_is_done_in_order(rtnl: Rtnl) -> None:
    link = bridge(rtnl)
    wanted = [ip_interface(f"10.{number // 250}.{number % 250}.1/32") for number in range(1000)]
    with rtnl.batch():
        for interface in wanted:
            rtnl.add_address(link, interface)
    assert [item.interface for item in rtnl.addresses(link) if item.interface.version == 4] == wanted


@statement
def a_batch_goes_on_after_what_is_refused_and_tells_of_the_first(rtnl: Rtnl) -> None:
    link = bridge(rtnl)
    with refused(errno.EEXIST), rtnl.batch():
        rtnl.add_address(link, ADDRESS)
        rtnl.add_address(link, ADDRESS)
        rtnl.set_promiscuous(NOWHERE)
        rtnl.add_address(link, ADDRESS6)
    assert {ADDRESS, ADDRESS6} <= {item.interface for item in rtnl.addresses(link)}


@statement
def a_batch_that_fails_is_not_asked_for(rtnl: Rtnl) -> None:
    link = bridge(rtnl)
    with pytest.raises(KeyError), rtnl.batch():  # noqa: PT012
        rtnl.add_address(link, ADDRESS)
        raise KeyError
    rtnl.set_promiscuous(link)
    assert ADDRESS not in [item.interface for item in rtnl.addresses(link)]
