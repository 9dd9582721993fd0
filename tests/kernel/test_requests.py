"""What the kernel would read in our requests, read back by the same codec."""

from __future__ import annotations

from ipaddress import ip_interface
from typing import Any

import pytest

from cni.kernel import codec, packing, requests
from cni.kernel.view import KernelRoute, Vxlan

PEER = {"ifname": "eth0", "address": "0a:58:0a:00:00:02", "mtu": 1400, "net_ns_fd": 9}


def read(data: bytes | bytearray) -> tuple[int, int, Any]:
    kind = int.from_bytes(data[4:6], "little")
    message = codec.decoded(kind & ~3, bytes(data))
    return kind, int.from_bytes(data[6:8], "little"), message


def attributes(message: Any) -> dict[str, Any]:
    return {name.split("_", 1)[1]: value for name, value in message["attrs"]}


def test_a_veth_is_born_up_on_its_bridge_with_its_peer_elsewhere():
    kind, how, message = read(packing.veth("veth1", "0e:00:00:00:00:01", 1400, 7, PEER))
    assert (kind, how) == (16, 0x605)
    assert (message["flags"], message["change"]) == (1, 1)
    found = attributes(message)
    assert (found["IFNAME"], found["MTU"], found["MASTER"], found["ADDRESS"]) == ("veth1", 1400, 7, "0e:00:00:00:00:01")
    peer = attributes(message.get(("linkinfo", "data", "VETH_INFO_PEER")))
    assert peer == {"IFNAME": "eth0", "ADDRESS": "0a:58:0a:00:00:02", "MTU": 1400, "NET_NS_FD": 9}


def test_a_veth_without_a_bridge_names_no_master():
    assert "MASTER" not in attributes(read(packing.veth("veth1", "0e:00:00:00:00:01", 1400, 0, PEER))[2])


@pytest.mark.parametrize(("local", "name"), [("192.0.2.1", "LOCAL"), ("fd00::1", "LOCAL6")])
def test_a_vxlan_device_has_the_local_address_of_its_family(local: str, name: str):
    data = read(requests.vxlan("vx1", 1450, Vxlan(42, 4789, local, 3)))[2].get(("linkinfo", "data"))
    assert data.get(f"IFLA_VXLAN_{name}") == local
    assert (data.get("IFLA_VXLAN_ID"), data.get("IFLA_VXLAN_PORT"), data.get("IFLA_VXLAN_LINK")) == (42, 4789, 3)


def test_what_is_not_said_is_left_to_the_kernel():
    message = read(requests.vxlan("vx1", 1450, Vxlan(42, 4789, "", 0)))[2]
    assert {name for name, _ in message.get(("linkinfo", "data"))["attrs"]} == {
        "IFLA_VXLAN_ID", "IFLA_VXLAN_PORT", "IFLA_VXLAN_LEARNING",
    }  # fmt: skip


@pytest.mark.parametrize(("text", "nodad", "family"), [("10.0.0.2/16", False, 2), ("fd00::2/64", True, 10)])
def test_an_address(text: str, nodad: bool, family: int):
    kind, how, message = read(packing.new_address(3, ip_interface(text), nodad))
    assert (kind, how, message["family"], message["index"]) == (20, 0x605, family, 3)
    found = attributes(message)
    assert f"{found['LOCAL']}/{message['prefixlen']}" == f"{found['ADDRESS']}/{message['prefixlen']}" == text
    assert found.get("FLAGS") == (2 if nodad else None)


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
    _, _, message = read(requests.new_route(3, route, onlink=True))
    assert attributes(message) == said | {"GATEWAY": gateway}
    assert (message["table"], message["flags"], message["type"]) == (header, 4, 1)


def test_metrics_are_inside_their_attribute():
    route = KernelRoute("10.9.0.0/16", "", 254, 0, 1400, 1360, 253)
    metrics = read(requests.new_route(3, route, onlink=False))[2].get("metrics")
    assert (metrics.get("RTAX_MTU"), metrics.get("RTAX_ADVMSS")) == (1400, 1360)


def test_a_bridge_port_keeps_its_settings_inside_the_link():
    message = read(requests.port_change(3, {"mode": 1, "isolated": 0}))[2]
    port = message.get(("linkinfo", "slave_data"))
    assert (port.get("IFLA_BRPORT_MODE"), port.get("IFLA_BRPORT_ISOLATED")) == (1, 0)


def test_a_dump_names_what_it_is_about():
    kind, how, message = read(requests.neighbours(5, of_bridge=True))
    assert (kind, how, message["family"], attributes(message)) == (30, 0x305, 7, {"IFINDEX": 5})


def test_a_default_route_is_seen_before_it_is_decoded():
    for dst, expected in (("0.0.0.0/0", True), ("10.0.0.0/8", False)):
        route = KernelRoute(dst, "10.0.0.1", 254, 0, 0, 0, 0)
        assert codec.is_default_route(bytes(requests.new_route(3, route, onlink=False))) is expected
