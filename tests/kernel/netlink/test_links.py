"""Links: what is asked is, byte for byte, what pyroute2 makes of the same."""

from __future__ import annotations

import errno
import struct
from typing import Any

import netlink_line as line
import pyroute
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.errors import KernelRefused, Unfinished
from cni.kernel.netlink.links import link_of
from cni.kernel.netlink.wire import CREATE, DUMP, EXCLUSIVE
from cni.kernel.view import Link, LinkRef, MacvlanSettings, VethEnd, Vxlan
from cni.naming import OWNER

NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789.-_é", min_size=1, max_size=7)
MACS = st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(":"))
NUMBERS = st.integers(1, (1 << 31) - 1)
FLAGS = st.integers(0, 1)
OWN, PEER = VethEnd("veth1", "0e:00:00:00:00:01", 1400), VethEnd("eth0", "0a:58:0a:00:00:02", 1400, 9)
NEW = CREATE | EXCLUSIVE
LO = LinkRef(3, "lo")


def spelled(**settings: Any) -> list[tuple[str, Any]]:
    return [(f"IFLA_{name.upper()}", value) for name, value in settings.items()]


def info(kind: str, *data: tuple[str, Any]) -> tuple[str, Any]:
    inside = pyroute.nested(data) if any(value is not None for _, value in data) else None
    return "IFLA_LINKINFO", pyroute.nested([("IFLA_INFO_KIND", kind), ("IFLA_INFO_DATA", inside)])


def encoded(how: int, *attributes: tuple[str, Any], verb: int = pyroute.NEW, **fields: Any) -> bytes:
    return pyroute.encoded(pyroute.LINK, verb, how, attributes, **fields)


def a_link(index: int, name: str, **more: Any) -> bytes:
    return encoded(0, *spelled(ifname=name, mtu=1500, operstate="UP", **more), index=index)


@given(NAMES, NUMBERS)
def test_a_question_for_a_link(name: str, index: int):
    answer = a_link(index, name)
    by_name = encoded(0, *spelled(ifname=name, ext_mask=8), verb=pyroute.GET)
    assert line.request_of(lambda rtnl: rtnl.link_by_name(name), answer) == by_name
    by_index = encoded(0, *spelled(ext_mask=8), verb=pyroute.GET, index=index)
    assert line.request_of(lambda rtnl: rtnl.link_by_index(index), answer) == by_index


def test_questions_for_all_links_and_for_those_of_a_kind():
    every = encoded(DUMP, *spelled(ext_mask=8), verb=pyroute.GET)
    assert line.request_of(lambda rtnl: rtnl.links()) == every
    tunnels = encoded(DUMP, info("vxlan"), verb=pyroute.GET)
    assert line.request_of(lambda rtnl: rtnl.tunnels()) == tunnels
    ports = encoded(DUMP, *spelled(ext_mask=8, master=3), verb=pyroute.GET)
    assert line.request_of(lambda rtnl: rtnl.ports(LO)) == ports


def test_tunnels_are_asked_for_once_until_one_is_changed():
    kernel = line.Line(a_link(7, "vx1"))
    rtnl = line.speaking(kernel)
    for change in (
        lambda: None,
        lambda: rtnl.create_vxlan("vx1", OWN.mac, 1400, Vxlan(7, 4789, "", 0)),
        lambda: rtnl.set_vxlan(LO, Vxlan(7, 4789, "", 0)),
        lambda: rtnl.delete_link(rtnl.tunnels()[0]),
        rtnl.forget_seen,
    ):
        kernel._answers = [a_link(7, "vx1")]
        change()
        kernel._answers, kernel.requests = [a_link(7, "vx1")], []
        assert rtnl.tunnels() == rtnl.tunnels()
        assert len(kernel.requests) == 1


@pytest.mark.parametrize("up", [True, False])
@given(NAMES, MACS, NUMBERS, st.one_of(st.just(0), NUMBERS), NAMES, MACS, NUMBERS)
def test_a_veth(up: bool, name: str, mac: str, mtu: int, bridge: int, inside: str, its_mac: str, fd: int):
    peer = pyroute.nested(spelled(ifname=inside, mtu=mtu, address=its_mac, net_ns_fd=fd))
    own = spelled(ifname=name, mtu=mtu, address=mac, master=bridge or None)
    flags = {"flags": 1, "change": 1} if up else {}
    ends = VethEnd(name, mac, mtu), VethEnd(inside, its_mac, mtu, fd)
    ours = line.request_of(lambda rtnl: rtnl.create_veth(*ends, bridge=bridge, up=up))
    assert ours == encoded(NEW, *own, info("veth", ("VETH_INFO_PEER", peer)), **flags)


@given(NAMES, MACS, st.integers(68, 65535))
def test_a_bridge_is_made_with_another_mtu_than_it_is_given(name: str, mac: str, mtu: int):
    made, finished = line.requests_of(lambda rtnl: rtnl.create_bridge(name, mac, mtu))
    index = index_in(made)
    assert made == encoded(NEW, *spelled(ifname=name, mtu=mtu ^ 1, address=mac), info("bridge"), index=index)
    assert finished == encoded(0, *spelled(mtu=mtu, ifalias=OWNER), index=index, flags=1, change=1)


def test_a_link_is_made_and_marked_as_ours_in_one_system_call():
    asked: list[list[bytes]] = []

    class Refusing(line.Line):
        def refusals(self, requests: list[bytes]) -> list[Any]:
            asked.append(requests)
            return [None, KernelRefused("no", errno.EBUSY)]

    with pytest.raises(Unfinished):
        line.speaking(Refusing()).create_bridge("br0", OWN.mac, 1400)
    ((made, finished),) = asked
    assert index_in(made) == index_in(finished) >= 1 << 24


def index_in(message: bytes) -> int:
    """Of struct ifinfomsg."""
    return int(struct.unpack_from("=i", message, 20)[0])


@given(
    NAMES,
    MACS,
    NUMBERS,
    st.integers(1, (1 << 24) - 1),
    st.integers(1, 65535),
    st.one_of(st.just(""), st.ip_addresses().map(str)),
    st.one_of(st.just(0), NUMBERS),
    st.booleans(),
)
def test_a_vxlan_device(name: str, mac: str, mtu: int, vni: int, port: int, local: str, dev: int, learning: bool):
    data = [
        ("IFLA_VXLAN_ID", vni),
        ("IFLA_VXLAN_PORT", port),
        ("IFLA_VXLAN_LEARNING", int(learning)),
        ("IFLA_VXLAN_LOCAL6" if ":" in local else "IFLA_VXLAN_LOCAL", local or None),
        ("IFLA_VXLAN_LINK", dev or None),
    ]
    wanted = Vxlan(vni, port, local, dev, learning)
    made, finished = line.requests_of(lambda rtnl: rtnl.create_vxlan(name, mac, mtu, wanted))
    index = index_in(made)
    assert made == encoded(NEW, *spelled(ifname=name, mtu=mtu, address=mac), info("vxlan", *data), index=index)
    assert finished == encoded(0, *spelled(ifalias=OWNER), index=index)
    changed = [*data[2:3], data[3] if local else ("IFLA_VXLAN_LOCAL", "0.0.0.0"), data[4]]
    asked, *forgotten = line.requests_of(lambda rtnl: rtnl.set_vxlan(LO, wanted))
    assert asked == encoded(0, info("vxlan", *changed), index=3)
    assert len(forgotten) == (2 if ":" in local else 0)  # over IPv6 an address comes and goes


@pytest.mark.parametrize("mode", ["private", "vepa", "bridge", "passthru", "source"])
@given(NAMES, st.one_of(st.just(""), MACS), NUMBERS, NUMBERS, st.integers(0, 9999))
def test_a_macvlan(mode: str, name: str, mac: str, mtu: int, parent: int, queue: int):
    data = [("IFLA_MACVLAN_MODE", mode), ("IFLA_MACVLAN_BC_QUEUE_LEN", queue or None)]
    wanted = encoded(NEW, *spelled(ifname=name, mtu=mtu, link=parent, address=mac or None), info("macvlan", *data))
    settings = MacvlanSettings(mode, parent, queue=queue)
    assert line.request_of(lambda rtnl: rtnl.create_macvlan(name, mac, mtu, settings)) == wanted


@given(NUMBERS, st.integers(0, 99))
def test_a_macvlan_on_a_link_of_another_namespace_says_which(fd: int, nsid: int):
    answer = pyroute.encoded(pyroute.NSID, pyroute.NEW, 0, [("NETNSA_NSID", nsid)])
    settings = MacvlanSettings("bridge", 5, fd)
    asked, made = line.requests_of(lambda rtnl: rtnl.create_macvlan("mv", "", 1500, settings), answer)
    assert asked == pyroute.encoded(pyroute.NSID, pyroute.GET, 0, [("NETNSA_FD", fd)])
    said = spelled(ifname="mv", mtu=1500, link=5, link_netnsid=nsid)
    assert made == encoded(NEW, *said, info("macvlan", ("IFLA_MACVLAN_MODE", "bridge")))


def test_a_namespace_without_a_number_is_given_one():
    none, five = (pyroute.encoded(pyroute.NSID, pyroute.NEW, 0, [("NETNSA_NSID", n)]) for n in (0xFFFFFFFF, 5))
    found = []
    _, given_one, _ = line.requests_of(lambda rtnl: found.append(rtnl._nsid(9)), none, five)
    new = [("NETNSA_FD", 9), ("NETNSA_NSID", 0xFFFFFFFF)]
    assert given_one == pyroute.encoded(pyroute.NSID, pyroute.NEW, 0, new)
    assert found == [5]


@pytest.mark.parametrize("up", [True, False])
@given(
    NUMBERS,
    st.fixed_dictionaries(
        {}, optional={"mtu": NUMBERS, "master": st.integers(0, 99), "address": MACS, "ifalias": NAMES}
    ),
)
def test_a_change_of_a_link(up: bool, index: int, settings: dict[str, Any]):
    flags = {"flags": 1, "change": 1} if up else {}
    theirs = encoded(0, *spelled(**settings), index=index, **flags)
    assert line.request_of(lambda rtnl: rtnl.set_link(LinkRef(index, "x"), up=up, **settings)) == theirs


@pytest.mark.parametrize("up", [True, False])
@given(
    st.fixed_dictionaries(
        {}, optional={"mode": FLAGS, "isolated": FLAGS, "neigh_suppress": FLAGS, "multicast_router": st.integers(0, 3)}
    )
)
def test_a_change_of_a_port(up: bool, settings: dict[str, int]):
    port = pyroute.nested((f"IFLA_BRPORT_{name.upper()}", value) for name, value in settings.items())
    inside = pyroute.nested([("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", port)])
    flags = {"flags": 1, "change": 1} if up else {}
    theirs = encoded(0, ("IFLA_LINKINFO", inside), index=3, **flags)
    assert line.request_of(lambda rtnl: rtnl.set_port(LO, up=up, **settings)) == theirs


@pytest.mark.parametrize("on", [True, False])
def test_a_bridges_switch(on: bool):
    both = [("IFLA_BR_NF_CALL_IPTABLES", int(on)), ("IFLA_BR_NF_CALL_IP6TABLES", int(on))]
    assert line.request_of(lambda rtnl: rtnl.filter_bridge(LO, on)) == encoded(0, info("bridge", *both), index=3)


def test_a_wireguard_device():
    made = line.request_of(lambda rtnl: rtnl.create_wireguard("wg0"))
    assert made == encoded(NEW, *spelled(ifname="wg0"), info("wireguard"))


def test_promiscuity_and_deletion():
    promiscuous = encoded(0, index=3, flags=0x100, change=0x100)
    assert line.request_of(lambda rtnl: rtnl.set_promiscuous(LO)) == promiscuous
    assert line.request_of(lambda rtnl: rtnl.delete_link(LO)) == encoded(0, verb=pyroute.DELETE, index=3)


# --- what the kernel would read in them


def test_a_veth_is_born_up_on_its_bridge_with_its_peer_elsewhere():
    kind, how, message = pyroute.decoded(line.request_of(lambda rtnl: rtnl.create_veth(OWN, PEER, bridge=7)))
    assert (kind, how) == (16, 0x605)
    assert (message["flags"], message["change"]) == (1, 1)
    found = pyroute.said(message)
    assert (found["IFNAME"], found["MTU"], found["MASTER"], found["ADDRESS"]) == ("veth1", 1400, 7, "0e:00:00:00:00:01")
    peer = pyroute.said(message.get(("linkinfo", "data", "VETH_INFO_PEER")))
    assert peer == {"IFNAME": "eth0", "ADDRESS": "0a:58:0a:00:00:02", "MTU": 1400, "NET_NS_FD": 9}


def test_a_veth_without_a_bridge_names_no_master():
    assert "MASTER" not in pyroute.said(pyroute.decoded(line.request_of(lambda rtnl: rtnl.create_veth(OWN, PEER)))[2])


@pytest.mark.parametrize(("local", "name"), [("192.0.2.1", "LOCAL"), ("fd00::1", "LOCAL6")])
def test_a_vxlan_device_has_the_local_address_of_its_family(local: str, name: str):
    data = vxlan_data(Vxlan(42, 4789, local, 3))
    assert data.get(f"IFLA_VXLAN_{name}") == local
    assert (data.get("IFLA_VXLAN_ID"), data.get("IFLA_VXLAN_PORT"), data.get("IFLA_VXLAN_LINK")) == (42, 4789, 3)


def test_what_is_not_said_is_left_to_the_kernel():
    assert {name for name, _ in vxlan_data(Vxlan(42, 4789, "", 0))["attrs"]} == {
        "IFLA_VXLAN_ID", "IFLA_VXLAN_PORT", "IFLA_VXLAN_LEARNING",
    }  # fmt: skip


def vxlan_data(settings: Vxlan) -> Any:
    made, _ = line.requests_of(lambda rtnl: rtnl.create_vxlan("vx1", "fe:00:00:00:00:01", 1450, settings))
    return pyroute.decoded(made)[2].get(("linkinfo", "data"))


def test_a_bridge_port_keeps_its_settings_inside_the_link():
    message = pyroute.decoded(line.request_of(lambda rtnl: rtnl.set_port(LO, mode=1, isolated=0)))[2]
    port = message.get(("linkinfo", "slave_data"))
    assert (port.get("IFLA_BRPORT_MODE"), port.get("IFLA_BRPORT_ISOLATED")) == (1, 0)


# --- what is read


@given(NAMES, MACS, NUMBERS, NUMBERS, NAMES)
def test_a_link_is_read_as_it_is_said(name: str, mac: str, index: int, mtu: int, alias: str):
    said = spelled(ifname=name, mtu=mtu, address=mac, operstate="DOWN", master=4, ifalias=alias)
    port = pyroute.nested([("IFLA_BRPORT_MODE", 1), ("IFLA_BRPORT_ISOLATED", 0), ("IFLA_BRPORT_MULTICAST_ROUTER", 1)])
    kind = ("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", port)
    message = encoded(0, *said, ("IFLA_LINKINFO", pyroute.nested(kind)), index=index, flags=0x101)
    assert link_of(message) == Link(
        index, name, "veth", mac, mtu, True, "DOWN", 4, True, True, False, False, None, alias=alias, multicast_router=1
    )


def test_a_link_that_was_seen_is_asked_for_again_once_it_is_another():
    kernel = line.Line(a_link(7, "br0"), a_link(8, "br0"))
    rtnl = line.speaking(kernel)
    index = 7
    kernel.link_index = lambda name: index
    assert rtnl.cached_link("br0") == rtnl.cached_link("br0")
    assert len(kernel.requests) == 1
    index = 8
    assert rtnl.cached_link("br0").index == 8
    assert len(kernel.requests) == 2
