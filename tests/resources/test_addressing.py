from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_interface
from typing import Any

import pytest

from cni.errors import Conflict
from cni.kernel.view import SCOPE_LINK, KernelRoute
from cni.naming import OWNER
from cni.protocol.result import Result, Route
from cni.resources import BlockGateway, FloodList, GatewayAddress, PodAddress, PodRoute
from cni.values import replace

GATEWAY = GatewayAddress("br0", "10.1.0.1/24", False)
ROUTE = PodRoute("eth0", "0.0.0.0/0", "10.1.0.1", 0, 0, 0, 254, 0, False)
KERNEL = KernelRoute("0.0.0.0/0", "10.1.0.1", 254, 0, 0, 0, 0)


def test_a_gateway_address_is_added_and_taken_back(world: Any, host: Any, undone: Any):
    host.add("br0", "bridge", alias=OWNER)
    GATEWAY.ensure(world)
    assert host.asked == ["add_address br0 10.1.0.1/24"]
    assert list(GATEWAY.differences(world)) == []
    assert undone() == ["delete_address br0 10.1.0.1/24"]


def test_a_gateway_address_that_is_there_is_left(world: Any, host: Any, undone: Any):
    host.add("br0", "bridge", alias=OWNER)
    host.held["br0"] = [ip_interface("10.1.0.1/24")]
    GATEWAY.ensure(world)
    assert host.asked == undone() == []


@pytest.mark.parametrize(
    ("held", "wanted", "rivals"),
    [
        ("10.2.0.1/24", "10.1.0.1/24", True),
        ("10.1.0.1/16", "10.1.0.1/24", True),
        ("169.254.0.1/16", "10.1.0.1/24", False),
        ("fd00::1/64", "10.1.0.1/24", False),
        ("10.1.0.1/24", "fd00::1/64", False),
        ("fd00::2/64", "fd00::1/64", True),
        ("fd00:1::1/64", "fd00::1/64", False),
        ("fe80::1/64", "fd00::1/64", False),
    ],
)
def test_a_rival_address_is_an_error_unless_forced(world: Any, host: Any, held: str, wanted: str, rivals: bool):
    host.add("br0", "bridge", alias=OWNER)
    host.held["br0"] = [ip_interface(held)]
    gateway = GatewayAddress("br0", wanted, False)
    if rivals:
        with pytest.raises(Conflict, match="forceAddress would replace it"):
            gateway.ensure(world)
        assert host.asked == []
        replace(gateway, force=True).ensure(world)
        assert host.held["br0"] == [ip_interface(wanted)]
    else:
        gateway.ensure(world)
        assert host.held["br0"] == [ip_interface(held), ip_interface(wanted)]


def test_a_blocks_gateway_stands_beside_that_of_somebodys_wider_subnet(world: Any, host: Any):
    """As flannel leaves its bridge, with the node's whole podCIDR. On a bridge of ours such a one is another network's."""
    host.add("br0", "bridge")
    host.held["br0"] = [ip_interface("10.1.0.1/24")]
    blocks = [BlockGateway("br0", address, False, beside=True) for address in ("10.1.0.1/26", "10.1.0.65/26")]
    for gateway in blocks:
        gateway.ensure(world)
    assert host.held["br0"] == [ip_interface(item) for item in ("10.1.0.1/24", "10.1.0.1/26", "10.1.0.65/26")]
    with pytest.raises(Conflict, match=r"br0 has 10\.1\.0\.1/26"):
        BlockGateway("br0", "10.1.0.9/26", False, beside=True).ensure(world)
    host.add("br0", "bridge", alias=OWNER)
    host.held["br0"] = [ip_interface("10.1.0.1/24")]
    with pytest.raises(Conflict, match=r"br0 has 10\.1\.0\.1/24"):
        blocks[0].ensure(world)


def test_a_replaced_address_comes_back_when_the_add_fails(world: Any, host: Any, undone: Any):
    host.add("br0", "bridge", alias=OWNER)
    host.held["br0"] = [ip_interface("10.2.0.1/24")]
    replace(GATEWAY, force=True).ensure(world)
    undone()
    assert host.held["br0"] == [ip_interface("10.2.0.1/24")]


def test_a_gateway_every_host_has_is_of_scope_link(world: Any, host: Any, undone: Any):
    host.add("br0", "bridge", alias=OWNER)
    link = replace(GATEWAY, scope=SCOPE_LINK)
    link.ensure(world)
    assert host.asked == ["add_address br0 10.1.0.1/24 scope 253"]
    assert list(link.differences(world)) == list(GATEWAY.differences(world)) == []
    assert undone() == ["delete_address br0 10.1.0.1/24"]


def test_a_gateway_that_is_too_wide_is_narrowed_while_it_stands_alone_too(world: Any, host: Any, undone: Any):
    host.add("br0", "bridge", alias=OWNER)
    host.held["br0"] = [ip_interface("10.1.0.1/24")]
    link = replace(GATEWAY, scope=SCOPE_LINK)
    assert list(link.differences(world)) == ["gateway address 10.1.0.1/24 on br0 is not of scope link"]
    for asked in (
        [
            "add_address br0 10.1.0.1/32 scope 253",
            "delete_address br0 10.1.0.1/24",
            "add_address br0 10.1.0.1/24 scope 253",
            "delete_address br0 10.1.0.1/32",
        ],
        [],
    ):
        link.ensure(world)
        assert host.asked == asked
        host.asked.clear()
    GATEWAY.ensure(world)
    assert host.asked == [], "an attachment of before is content with it"
    assert list(link.differences(world)) == list(GATEWAY.differences(world)) == []
    undone()
    assert [(str(item.interface), item.scope) for item in host.addresses(host.all["br0"])] == [("10.1.0.1/24", 0)]


def test_of_calls_beside_each_other_one_narrows_it(world: Any, host: Any, undone: Any, monkeypatch: pytest.MonkeyPatch):
    link = host.add("br0", "bridge", alias=OWNER)
    host.held["br0"] = [ip_interface("10.1.0.1/24")]

    @contextmanager
    def turn(what: str) -> Iterator[None]:
        host.delete_address(link, ip_interface("10.1.0.1/24"))  # whoever had the turn before
        host.add_address(link, ip_interface("10.1.0.1/24"), scope=SCOPE_LINK)
        host.asked.clear()
        yield

    monkeypatch.setattr(world, "turn", turn)
    replace(GATEWAY, scope=SCOPE_LINK).ensure(world)
    assert host.asked == undone() == []


def test_beside_another_address_of_its_subnet_it_cannot_be_narrowed(world: Any, host: Any):
    """The kernel takes no two of one subnet in different scopes."""
    host.add("br0", "bridge", alias=OWNER)
    host.held["br0"] = [ip_interface("10.1.0.1/24"), ip_interface("10.1.0.9/24")]
    link = replace(GATEWAY, scope=SCOPE_LINK, beside=True)
    with pytest.raises(Conflict, match="forceAddress would replace it"):
        link.ensure(world)
    assert host.asked == []
    replace(link, force=True).ensure(world)
    assert host.held["br0"] == [ip_interface("10.1.0.1/24")]


def test_an_ipv6_gateway_needs_no_duplicate_detection(world: Any, host: Any):
    host.add("br0", "bridge", alias=OWNER)
    GatewayAddress("br0", "fd00::1/64", False).ensure(world)
    assert host.asked == ["add_address br0 fd00::1/64 nodad"]


def test_an_address_another_call_adds_meanwhile_is_not_ours_to_undo(world: Any, host: Any, undone: Any):
    host.add("br0", "bridge", alias=OWNER)
    host.refusals["add_address"] = errno.EEXIST
    GATEWAY.ensure(world)
    assert undone() == []


@pytest.mark.parametrize(
    ("address", "dad", "asked"),
    [
        ("10.1.0.5/24", False, "add_address eth0 10.1.0.5/24"),
        ("fd00::5/64", False, "add_address eth0 fd00::5/64 nodad"),
        ("fd00::5/64", True, "add_address eth0 fd00::5/64"),
    ],
)
def test_a_pods_address_is_usable_at_once_unless_asked(world: Any, pod: Any, address: str, dad: bool, asked: str):
    pod.add("eth0")
    own = PodAddress("eth0", address, dad)
    assert list(own.differences(world)) == [f"address {address} is missing on eth0 in the pod"]
    own.ensure(world)
    assert pod.asked == [asked]
    assert list(own.differences(world)) == []


@pytest.mark.parametrize(
    ("present", "said"),
    [
        ([KERNEL], []),
        ([replace(KERNEL, mtu=1400, priority=5, scope=253)], []),
        ([replace(KERNEL, gateway="10.1.0.9"), KERNEL], []),
        ([], ["route 0.0.0.0/0 is missing in the pod"]),
        ([replace(KERNEL, table=100)], []),
        (
            [replace(KERNEL, table=100, gateway="10.1.0.9")],
            ["route 0.0.0.0/0 in the pod is not 0.0.0.0/0 via 10.1.0.1"],
        ),
        ([replace(KERNEL, gateway="10.1.0.9")], ["route 0.0.0.0/0 in the pod is not 0.0.0.0/0 via 10.1.0.1"]),
    ],
    ids=["as made", "with what nobody asked for", "beside another", "gone", "moved", "moved elsewhere", "elsewhere"],
)
def test_the_drift_of_a_route_is_named(world: Any, pod: Any, present: list[KernelRoute], said: list[str]):
    pod.add("eth0")
    pod.ways["eth0"] = present
    assert list(ROUTE.differences(world)) == said


@pytest.mark.parametrize(
    ("routes", "asked"),
    [
        ([], False),
        ([Route("0.0.0.0/0")], True),
        ([Route("0.0.0.0/0", "10.1.0.1", mtu=1300)], True),
        ([Route("0.0.0.0/0", "10.1.0.9"), Route("10.0.0.0/8", "10.1.0.1")], False),
    ],
    ids=["none", "by the gateway", "as made", "by another gateway"],
)
def test_a_route_that_nobody_reports_is_not_asked_for(routes: list[Route], asked: bool):
    assert ROUTE.accepting(Result(routes=tuple(routes))) == (ROUTE if asked else None)


def test_a_route_stands_beside_another_and_once(world: Any, pod: Any):
    for number in (0, 1):
        pod.add(f"eth{number}")
        pod.held[f"eth{number}"] = [ip_interface("10.1.0.5/24")]
        replace(ROUTE, link=f"eth{number}").ensure(world)
    ROUTE.ensure(world)
    assert pod.ways["eth0"] == pod.ways["eth1"] == [KERNEL]


def test_a_route_by_the_same_gateway_with_other_metrics_is_a_conflict(world: Any, pod: Any):
    pod.add("eth0")
    pod.ways["eth0"] = [KERNEL]
    pod.refusals["add_route"] = errno.EEXIST
    with pytest.raises(Conflict, match=r"0\.0\.0\.0/0 in the pod is not 0\.0\.0\.0/0 via 10\.1\.0\.1 mtu 1400"):
        replace(ROUTE, mtu=1400).ensure(world)


@pytest.mark.parametrize(
    ("onlink", "asked"), [(False, "add_route 0.0.0.0/0 beside"), (True, "add_route 0.0.0.0/0 onlink beside")]
)
def test_a_route_is_added_as_planned(world: Any, pod: Any, onlink: bool, asked: str):
    pod.add("eth0")
    pod.held["eth0"] = [] if onlink else [ip_interface("10.1.0.5/24")]
    route = replace(ROUTE, onlink=onlink, mtu=1400)
    route.ensure(world)
    assert pod.asked == [asked]
    assert list(route.differences(world)) == []


def test_the_flood_list_is_made_exactly_as_it_should_be(world: Any, host: Any, undone: Any):
    host.add("vxlan7", "vxlan")
    host.flooded["vxlan7"] = {"192.0.2.2", "192.0.2.9"}
    wanted = FloodList("vxlan7", ("192.0.2.2", "192.0.2.3"))
    assert list(wanted.differences(world)) == [
        "VTEP 192.0.2.3 is missing from vxlan7",
        "vxlan7 floods to VTEP 192.0.2.9, which is not among the remotes",
    ]
    wanted.ensure(world)
    assert host.asked == ["add_flood_target 192.0.2.3", "delete_flood_target 192.0.2.9"]
    assert list(wanted.differences(world)) == []
    assert undone() == ["add_flood_target 192.0.2.9", "delete_flood_target 192.0.2.3"]
