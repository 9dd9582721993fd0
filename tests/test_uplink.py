from __future__ import annotations

from ipaddress import ip_interface

import pytest
from rtnl import FakeRtnl

from cni import uplink
from cni.errors import InvalidConfig
from cni.kernel.view import MAIN_TABLE, KernelRoute
from cni.resources import Uplink, UplinkQuery
from cni.values import replace

LINKS = {"lo": (65536, "127.0.0.1/8"), "eth0": (1500, "192.0.2.1/24"), "eth1": (9000, "fd00:9::1/64")}


def host(default: bool) -> FakeRtnl:
    """A host with three links, a way to 198.51.100.0/24 by eth1, and maybe a default route by eth0."""
    made = FakeRtnl()
    for name, (mtu, address) in LINKS.items():
        made.add(name, mtu=mtu, mac="", loopback=name == "lo")
        made.held[name] = [ip_interface(address)]
    ways = {"eth1": "198.51.100.0/24"} | ({"eth0": "0.0.0.0/0"} if default else {})
    for name, dst in ways.items():
        made.ways[name] = [KernelRoute(dst, "", MAIN_TABLE, 0, 0, 0, 0)]
    return made


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (UplinkQuery(), ("eth0", 1500, "192.0.2.1/24")),
        (UplinkQuery(remotes=("198.51.100.9",)), ("eth1", 9000, "fd00:9::1/64")),
        (UplinkQuery(remotes=("203.0.113.9", "198.51.100.9")), ("eth0", 1500, "192.0.2.1/24")),
        (UplinkQuery(remotes=("192.0.2.1", "198.51.100.9")), ("eth1", 9000, "fd00:9::1/64")),
        (UplinkQuery(remotes=("192.0.2.1",)), ("eth0", 1500, "192.0.2.1/24")),
        (UplinkQuery(local="192.0.2.1", remotes=("198.51.100.9",)), ("eth0", 1500, "192.0.2.1/24")),
        (UplinkQuery(local="127.0.0.1", remotes=("198.51.100.9",)), ("eth1", 9000, "fd00:9::1/64")),
        (UplinkQuery(local="fd00:9:0::1"), ("eth1", 9000, "fd00:9::1/64")),
        (UplinkQuery(dev="lo", local="192.0.2.1", remotes=("198.51.100.9",)), ("lo", 65536, "127.0.0.1/8")),
    ],
    ids=[
        "default route",
        "way to the remote",
        "no way",
        "the first is this host",
        "only this host",
        "holder of local",
        "local on a loopback",
        "IPv6 holder",
        "dev",
    ],
)
def test_the_uplink_is_dev_then_holder_then_way_then_default(query: UplinkQuery, found: tuple[str, int, str]):
    name, mtu, address = found
    assert uplink.find(host(default=True), query) == Uplink(name, mtu)
    assert uplink.find(host(default=True), replace(query, addresses=True)) == Uplink(name, mtu, "", (address,))


def test_a_host_without_default_route_has_none():
    assert uplink.find(host(default=False), UplinkQuery()) is None


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (UplinkQuery(dev="eth9"), r"^\$\.vxlan\.dev: this host has no link 'eth9'$"),
        (
            UplinkQuery(local="192.0.2.9", where="$.vxlan"),
            r"^\$\.vxlan\.local: no link of this host holds 192\.0\.2\.9$",
        ),
    ],
    ids=["dev", "local"],
)
def test_what_this_host_lacks_is_blamed_on_the_configuration(query: UplinkQuery, said: str):
    with pytest.raises(InvalidConfig, match=said):
        uplink.find(host(default=True), query)


def test_of_several_ways_the_first_links_name_and_the_least_mtu_count():
    made = host(default=True)
    made.add("eth2", mtu=1400, mac="")
    for name, dst in (("eth2", "0.0.0.0/0"), ("eth2", "198.51.100.0/24")):
        made.ways[name].append(KernelRoute(dst, "", MAIN_TABLE, 0, 0, 0, 0))
    assert uplink.find(made, UplinkQuery()) == Uplink("eth0", 1400)
    assert uplink.find(made, UplinkQuery(remotes=("198.51.100.9",))) == Uplink("eth1", 1400)
    assert uplink.find(made, UplinkQuery(master=True)) == Uplink("eth0", 1500)
