"""Which networks pods reach under their own addresses, though what leaves is masqueraded (`nonMasqueradeCIDRs`)."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from lab import Host, Lab, Namespace, Pod, eventually
from traffic import Actor

RANGES = [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]
PLUGINS = {
    "bridge-vxlan": {"type": "bridge-vxlan", "bridge": "br0", "isDefaultGateway": True},
    "custom-plugin": {"type": "custom-plugin"},
}
#: By family: where it is known who asks, and where not.
KNOWN, UNKNOWN = {4: "192.0.2.12", 6: "2001:db8:0:2::12"}, {4: "198.51.100.12", 6: "2001:db8:0:51::12"}
BACKENDS = pytest.mark.parametrize("backend", ["nftables", "iptables"])


def conf_of(plugin: str, backend: str, *networks: str, **more: Any) -> dict[str, Any]:
    said = {"nonMasqueradeCIDRs": list(networks)} if networks else {}
    head = {"cniVersion": "1.1.0", "name": "net", "ipMasq": True, "ipMasqBackend": backend, "ipam": {"ranges": RANGES}}
    return head | PLUGINS[plugin] | said | more


@pytest.fixture
def world(lab: Lab) -> tuple[Host, Namespace]:
    """A host, and somebody outside with several addresses who knows the way to its pods."""
    site = lab.site()
    for space, end in ((site.host, 11), (site.outside, 12)):
        for network in ("192.0.2", "198.51.100"):
            space.run("ip", "addr", "replace", f"{network}.{end}/24", "dev", "eth0")
        for network in ("2001:db8:0:2::", "2001:db8:0:51::"):
            space.run("ip", "addr", "replace", f"{network}{end}/64", "dev", "eth0", "nodad")
    # Who forwards asks for neighbours by its link-local address, and not while that is tentative.
    for space in (site.host, site.outside):
        assert eventually(partial(is_settled, space))
    site.outside.run("ip", "route", "add", "10.1.0.0/24", "via", "192.0.2.11")
    site.outside.run("ip", "-6", "route", "add", "fd00:1::/64", "via", "2001:db8:0:2::11")
    return site.host, site.outside


def is_settled(space: Namespace) -> bool:
    """Whether no address is tentative any more."""
    return not space.run("ip", "-6", "address", "show", "dev", "eth0", "tentative").stdout


def keeps_its_name(pod: Pod, outside: Namespace, address: str, own: list[str]) -> bool:
    with Actor(outside) as server, Actor(pod) as client:
        server.listen("outside", 8080)
        return client.connect(address, 8080)["peer"][0] in own


def addresses(result: dict[str, Any]) -> list[str]:
    return [ip["address"].split("/")[0] for ip in result["ips"]]


@BACKENDS
@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_pod_keeps_its_address_where_it_is_told(lab: Lab, world: tuple[Host, Namespace], plugin: str, backend: str):
    """The second of the networks has the pod's own within it, the last is of IPv6 alone."""
    host, outside = world
    conf = conf_of(plugin, backend, "192.0.2.0/24", "10.0.0.0/8", "2001:db8:0:2::/64")
    pod = lab.pod()
    before = host.snapshot()
    result = host.add(conf, pod)
    for family in (4, 6):
        assert keeps_its_name(pod, outside, KNOWN[family], addresses(result))
        assert not keeps_its_name(pod, outside, UNKNOWN[family], addresses(result))
    host.check(conf, pod, result).ok()
    host.check(conf_of(plugin, backend), pod, result).ok()  # what the record says counts
    host.delete_pod(conf, pod)
    assert "192.0.2.0/24" not in host.run("nft", "list", "ruleset").stdout
    assert [line for line in host.snapshot() if line not in before and "agent_cni" in line] == []


@pytest.mark.parametrize(
    ("backend", "lost"),
    [
        ("nftables", "nft delete element ip agent_cni near { 10.1.0.2 . 192.0.2.0/24 }"),
        ("iptables", "iptables-nft -t nat -D ACNI-MASQUERADE 2"),
    ],
)
def test_check_tells_one_that_is_lost(lab: Lab, host: Host, backend: str, lost: str):
    conf = conf_of("bridge-vxlan", backend, "192.0.2.0/24")
    conf["ipam"] = {"ranges": RANGES[:1]}
    pod = lab.pod()
    result = host.add(conf, pod)
    host.check(conf, pod, result).ok()
    host.run(*lost.split())
    assert "masquerading of 10.1.0.2 is missing" in host.check(conf, pod, result).failed(104)
    host.delete_pod(conf, pod)


@pytest.mark.tried(
    "`nonMasqueradeCIDRs` is edited; a pod comes with the address of one whose DEL is still to come",
    "it is masqueraded by the later list alone, and nothing of the earlier one is left",
)
@BACKENDS
@pytest.mark.parametrize("later", [("10.0.0.0/8",), ("10.1.0.0/25", "198.51.100.0/24"), ("192.0.0.0/8",), ()], ids=str)
def test_a_successor_goes_by_its_own_list(
    lab: Lab, world: tuple[Host, Namespace], backend: str, later: tuple[str, ...]
):
    """With the address of a pod whose DEL comes later, as in an edit between a pod and what replaces it."""
    host, outside = world
    fixed = {
        "cniVersion": "1.0.0",
        "ipam": {"type": "static", "addresses": [{"address": "10.1.0.9/24", "gateway": "10.1.0.1"}]},
    }
    old, new = lab.pod(), lab.pod()
    before = conf_of("bridge-vxlan", backend, "192.0.2.0/24", **fixed)
    conf = conf_of("bridge-vxlan", backend, *later, **fixed)
    host.add(before, old)
    result = host.add(conf, new)
    host.delete_pod(before, old)
    old.delete()
    own = ["10.1.0.9"]
    assert keeps_its_name(new, outside, KNOWN[4], own) == ("192.0.0.0/8" in later)
    assert keeps_its_name(new, outside, UNKNOWN[4], own) == ("198.51.100.0/24" in later)
    host.check(conf, new, result).ok()
    host.delete_pod(conf, new)
    assert "10.1.0.9" not in host.run("nft", "list", "ruleset").stdout


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"ipMasq": False, "nonMasqueradeCIDRs": ["10.0.0.0/8"]}, "nonMasqueradeCIDRs: belongs to ipMasq"),
        ({"nonMasqueradeCIDRs": ["10.0.0.1/8"]}, "nonMasqueradeCIDRs[0]"),
        ({"nonMasqueradeCIDRs": ["everywhere"]}, "nonMasqueradeCIDRs[0]"),
    ],
)
def test_what_cannot_be_meant_is_refused(host: Host, pod: Pod, more: dict[str, Any], said: str):
    assert said in host.cni("ADD", conf_of("bridge-vxlan", "nftables") | more, pod).failed(7)


@BACKENDS
def test_everywhere_is_nowhere_masqueraded(lab: Lab, world: tuple[Host, Namespace], backend: str):
    host, outside = world
    conf = conf_of("custom-plugin", backend, "0.0.0.0/0", "::/0")
    pod = lab.pod()
    result = host.add(conf, pod)
    assert keeps_its_name(pod, outside, UNKNOWN[4], addresses(result))
    host.check(conf, pod, result).ok()
    host.delete_pod(conf, pod)
    assert "10.1.0.2" not in host.run("nft", "list", "ruleset").stdout
