"""The documents' flat form works as written, through the plugin and through cnitool."""

from __future__ import annotations

import pytest
from lab import Host, Lab, Pod

FLAT = {"bridge": "br0", "ip": "192.168.10.10/24", "gateway": "192.168.10.1", "vxlan": {"id": 100, "dstport": 4789}}
CONF = {"cniVersion": "1.0.0", "name": "fixed", "type": "bridge-vxlan"} | FLAT


@pytest.mark.parametrize("uplink", [False, True], ids=["alone", "with an underlay"])
def test_the_documents_form(lab: Lab, host: Host, pod: Pod, uplink: bool):
    if uplink:
        lab.underlay(host)
    result = host.add(CONF, pod)
    assert result["ips"] == [{"address": "192.168.10.10/24", "gateway": "192.168.10.1", "interface": 2}]
    assert pod.addresses("eth0") == {"192.168.10.10/24"}
    assert pod.routes()[0]["gateway"] == "192.168.10.1"
    tunnel = host.link("vxlan100")
    assert (tunnel["master"], tunnel["linkinfo"]["info_data"]["port"], tunnel["mtu"]) == ("br0", 4789, 1450)
    assert pod.pings("192.168.10.1")
    host.check(CONF, pod, result).ok()
    host.delete_pod(CONF, pod)
    assert host.state() == {"attachments": [], "leases": []}


def test_a_second_pod_is_told_who_holds_the_address_and_gets_it_later(host: Host, lab: Lab):
    first, second = lab.pod(), lab.pod()
    host.add(CONF, first)
    message = host.cni("ADD", CONF, second).failed(102)
    assert "192.168.10.10" in message
    assert first.container in message
    assert second.link("eth0") is None
    host.delete_pod(CONF, first)
    host.add(CONF, second)
    assert second.pings("192.168.10.1")


def test_one_address_of_each_family(host: Host, pod: Pod):
    both = CONF | {"ip": ["192.168.10.10/24", "fd00:10::10/64"], "gateway": ["192.168.10.1", "fd00:10::1"]}
    host.add(both, pod)
    assert pod.addresses("eth0") == {"192.168.10.10/24", "fd00:10::10/64"}
    assert pod.pings("fd00:10::1")


def test_without_gateway_or_default_route_the_bridge_stays_layer_2(host: Host, pod: Pod):
    host.add({key: value for key, value in CONF.items() if key != "gateway"}, pod)
    assert host.addresses("br0") == set()
    assert [route["dst"] for route in pod.routes()] == ["192.168.10.0/24"]


def test_a_gateway_that_is_somewhere_else(host: Host, pod: Pod):
    host.add(CONF | {"isDefaultGateway": False}, pod)
    assert host.addresses("br0") == set()


@pytest.mark.parametrize(
    ("keys", "path"),
    [
        ({"ipam": {"subnet": "10.1.0.0/24"}}, "$.ip"),
        ({"ip": "192.168.10.10"}, "$.ip"),
        ({"ip": "192.168.10.1/24"}, "$.ip"),
        ({"ip": ["192.168.10.10/24", "192.168.10.11/24"]}, "$.ip[1]"),
        ({"gateway": "x"}, "$.gateway"),
        ({"vxlan": {"dstport": 4789}}, "$.vxlan"),
        ({"vxlan": {"id": 0}}, "$.vxlan.id"),
        ({"vxlan": {"id": 16777216}}, "$.vxlan.id"),
    ],
)
def test_what_cannot_be_is_code_7_with_its_path(host: Host, pod: Pod, keys: dict, path: str):
    assert path in host.cni("ADD", CONF | keys, pod).failed(7)
    assert host.link("br0") is None
