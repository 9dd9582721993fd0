from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface
from types import SimpleNamespace
from typing import Any

import pytest

from cni import uplink
from cni.errors import InvalidConfig
from cni.kernel.view import HeldAddress
from cni.resources import Uplink, UplinkQuery

LINKS = {1: ("lo", 65536, "127.0.0.1/8"), 2: ("eth0", 1500, "192.0.2.1/24"), 3: ("eth1", 9000, "fd00:9::1/64")}


class FakeRtnl:
    """A host with three links, a way to 198.51.100.0/24 by eth1, and maybe a default route by eth0."""

    def __init__(self, default: bool) -> None:
        self.default = default
        self.all = [SimpleNamespace(index=index, name=name, mtu=mtu, mac="") for index, (name, mtu, _) in LINKS.items()]

    def links(self) -> list[Any]:
        return self.all

    def link_by_name(self, name: str) -> Any:
        return next((link for link in self.all if link.name == name), None)

    def link_by_index(self, index: int) -> Any:
        return next((link for link in self.all if link.index == index), None)

    def addresses(self, link: Any) -> list[HeldAddress]:
        return [HeldAddress(ip_interface(LINKS[link.index][2]), False, False)]

    def route_to(self, address: Any) -> int:
        return 3 if str(address).startswith("198.51.100.") else 0

    def default_route(self) -> int:
        return 2 if self.default else 0


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (UplinkQuery(), ("eth0", 1500, "192.0.2.1/24")),
        (UplinkQuery(remote="198.51.100.9"), ("eth1", 9000, "fd00:9::1/64")),
        (UplinkQuery(remote="203.0.113.9"), ("eth0", 1500, "192.0.2.1/24")),
        (UplinkQuery(local="192.0.2.1", remote="198.51.100.9"), ("eth0", 1500, "192.0.2.1/24")),
        (UplinkQuery(local="fd00:9:0::1"), ("eth1", 9000, "fd00:9::1/64")),
        (UplinkQuery(dev="lo", local="192.0.2.1", remote="198.51.100.9"), ("lo", 65536, "127.0.0.1/8")),
    ],
    ids=["default route", "way to the remote", "no way", "holder of local", "IPv6 holder", "dev"],
)
def test_the_uplink_is_dev_then_holder_then_way_then_default(query: UplinkQuery, found: tuple[str, int, str]):
    name, mtu, address = found
    assert uplink.find(FakeRtnl(default=True), query) == Uplink(name, mtu)
    assert uplink.find(FakeRtnl(default=True), replace(query, addresses=True)) == Uplink(name, mtu, "", (address,))


def test_a_host_without_default_route_has_none():
    assert uplink.find(FakeRtnl(default=False), UplinkQuery()) is None


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
        uplink.find(FakeRtnl(default=True), query)
