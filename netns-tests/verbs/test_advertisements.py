"""What the node learned from routers' advertisements stays its own, and no pod's router is believed by a bridge of ours."""

from __future__ import annotations

from typing import Any

import pytest
from forge import IPV6, router_advertisement, send
from lab import Host, Lab, Namespace, Pod, eventually, sh

ALL_NODES = "33:33:00:00:00:01"
DUAL = {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]}
KINDS: dict[str, dict[str, Any]] = {
    "bridge-vxlan": {"type": "bridge-vxlan", "isDefaultGateway": True, "ipam": DUAL},
    "a bare custom-plugin": {"type": "custom-plugin"},
    "masquerading": {"type": "bridge-vxlan", "isDefaultGateway": True, "ipMasq": True, "ipam": DUAL},
}


def setting(host: Host, link: str, value: str = "") -> str:
    key = f"net.ipv6.conf.{link}.accept_ra"
    if value:
        host.run("sysctl", "-qw", f"{key}={value}")
    return host.run("sysctl", "-n", key).stdout.strip()


def advertised(host: Host, router: Namespace, link: str = "eth0") -> None:
    """A router on the wire says who it is, and the host has a default route by it."""
    held = [info for item in router.ip("addr", "show", "dev", "sw0", family=6) for info in item["addr_info"]]
    own = next(info["local"] for info in held if info["scope"] == "link")
    send(router, IPV6, ALL_NODES, router.link("sw0")["address"], router_advertisement(own, "fd00:77::"), "sw0")
    assert eventually(lambda: default(host, link))


def default(host: Host, link: str = "eth0") -> list[dict[str, Any]]:
    return [route for route in host.routes(6) if (route["dst"], route["dev"]) == ("default", link)]


def conf(**keys: Any) -> dict[str, Any]:
    return {"cniVersion": "1.1.0", "name": "net", "bridge": "br0"} | keys


@pytest.mark.parametrize("kind", KINDS)
def test_the_nodes_default_route_outlives_the_first_pod(lab: Lab, pod: Pod, kind: str):
    host = lab.host()
    router = lab.underlay(host)
    wanted = {
        key: value for key, value in conf(**KINDS[kind]).items() if kind != "a bare custom-plugin" or key != "bridge"
    }
    for link, value in (
        ("quiet", "1"),
        ("handled", "0"),
    ):  # where nobody advertises, and where a program listens itself
        host.run("ip", "link", "add", link, "up", "type", "veth", "peer", "name", f"far-{link}")
        host.run("ip", "link", "set", f"far-{link}", "up")
        setting(host, link, value)
    host.run("ip", "-6", "route", "add", "default", "via", "fe80::9", "dev", "handled", "proto", "ra", "metric", "2048")
    advertised(host, router)
    result = host.add(wanted, pod)
    assert host.run("sysctl", "-n", "net.ipv6.conf.all.forwarding").stdout == "1\n"
    assert [route["protocol"] for route in default(host)] == ["ra"]
    assert [setting(host, link) for link in ("eth0", "quiet", "handled")] == ["2", "1", "0"]
    host.run("ip", "-6", "route", "del", "default", "dev", "eth0")
    advertised(host, router)
    host.check(wanted, pod, result).ok()
    host.delete_pod(wanted, pod)
    assert default(host)


@pytest.mark.parametrize("routed", [False, True], ids=["layer 2", "gateway"])
def test_a_bridge_of_the_administrators_goes_on_hearing_routers(lab: Lab, routed: bool):
    host = lab.host()
    router = lab.underlay(host)
    for words in ("link add brlan type bridge", "link set eth0 master brlan", "link set brlan up"):
        host.run("ip", *words.split())
    eventually(lambda: host.link("brlan")["operstate"] == "UP")
    advertised(host, router, "brlan")
    keys = {"isGateway": True, "ipam": DUAL} if routed else {"ipam": {}}
    for bridge, accepted in (("brlan", "2" if routed else "1"), ("br0", "0")):
        pod, wanted = lab.pod(), conf(type="bridge-vxlan", **keys) | {"bridge": bridge, "name": bridge}
        if routed and bridge == "br0":
            wanted["ipam"] = {"subnet": "10.2.0.0/24"}
        result = host.add(wanted, pod)
        assert setting(host, bridge) == accepted
        host.check(wanted, pod, result).ok()
        host.delete_pod(wanted, pod)
    assert default(host, "brlan")
    assert setting(host, "brlan") == ("2" if routed else "1")


def test_a_bridge_of_ours_that_hears_routers_is_a_drift(lab: Lab, pod: Pod):
    host, wanted = lab.host(), conf(type="bridge-vxlan", ipam=DUAL)
    result = host.add(wanted, pod)
    setting(host, "br0", "1")
    assert "sysctl net.ipv6.conf.br0.accept_ra is 1, not 0" in host.check(wanted, pod, result).failed(104)
    sh("ip", "-n", host.name, "link", "set", "br0", "alias", "somebody's")
    host.check(wanted, pod, result).ok()
