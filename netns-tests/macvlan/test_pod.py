"""What a pod gets from macvlan: its own MAC and address on the physical network; DEL takes all of it away."""

from __future__ import annotations

import pytest
from lab import Host, Lab, Pod, Site, sh


def way_out(pod: Pod, family: int = 4) -> list[str]:
    return [route["gateway"] for route in pod.routes(family) if route["dst"] == "default"]


def uplink(site: Site, pod: Pod, name: str = "up0") -> None:
    """A link of the pod's own on the physical network."""
    peer = ("peer", "name", name, "netns", pod.name)
    sh("ip", "-n", site.switch.name, "link", "add", "podport", "up", "master", "sw0", "type", "veth", *peer)
    sh("ip", "-n", pod.name, "link", "set", name, "up")


def test_a_pod_is_on_the_physical_network(site: Site, pod: Pod, net: dict):
    result = site.host.add(net, pod)
    assert result["interfaces"] == [
        {"name": "eth0", "mac": "0a:58:c0:00:02:64", "mtu": 1500, "sandbox": pod.path},
    ]
    assert result["ips"] == [{"address": "192.0.2.100/24", "gateway": "192.0.2.1", "interface": 0}]
    assert pod.addresses("eth0") == {"192.0.2.100/24"}
    assert (way_out(pod), pod.link("eth0")["linkinfo"]["info_data"]["mode"]) == ([], "bridge")
    assert pod.pings("192.0.2.12")
    assert site.outside.pings("192.0.2.100")
    site.host.check(net, pod, result).ok()
    site.host.delete_pod(net, pod)
    assert [link["ifname"] for link in pod.ip("link", "show")] == ["lo"]


def test_pods_on_one_master_reach_each_other(site: Site, lab: Lab, net: dict):
    one, two = lab.pod(), lab.pod()
    for pod in (one, two):
        site.host.add(net, pod)
    assert one.pings("192.0.2.101")
    assert two.pings("192.0.2.100")
    site.host.delete_pod(net, one)
    assert two.pings("192.0.2.12")
    site.host.delete_pod(net, two)


def test_without_a_master_the_default_routes_link_is_it(site: Site, pod: Pod, net: dict):
    del net["master"]
    result = site.host.add(net, pod)
    assert pod.pings("192.0.2.12")
    site.host.check(net, pod, result).ok()
    site.host.delete_pod(net, pod)


def test_without_a_master_and_a_default_route_the_error_says_so(host: Host, pod: Pod, net: dict):
    del net["master"]
    before = host.snapshot()
    assert "no default route" in host.cni("ADD", net, pod).failed(7)
    assert host.snapshot() == before


def test_a_master_that_is_not_there_is_named(site: Site, pod: Pod, net: dict):
    assert "'eth7'" in site.host.cni("ADD", net | {"master": "eth7"}, pod).failed(7)


@pytest.mark.parametrize("named", [True, False], ids=["named", "the pod's default route's"])
def test_with_link_in_container_the_master_is_in_the_pod(site: Site, pod: Pod, net: dict, named: bool):
    uplink(site, pod)
    inside = net | {"master": "up0", "linkInContainer": True}
    if not named:
        del inside["master"]
        pod.run("ip", "addr", "add", "192.0.2.90/24", "dev", "up0")
        pod.run("ip", "route", "add", "default", "via", "192.0.2.1")
    result = site.host.add(inside, pod, ifname="net1")
    assert pod.link("net1")["link"] == "up0"
    assert site.outside.pings("192.0.2.100")
    site.host.check(inside, pod, result, ifname="net1").ok()
    site.host.delete_pod(inside, pod, ifname="net1")
    assert not pod.link("net1")
    assert pod.link("up0")


def test_with_link_in_container_the_hosts_links_are_no_masters(site: Site, pod: Pod, net: dict):
    assert "the pod has no link" in site.host.cni("ADD", net | {"linkInContainer": True}, pod).failed(7)


@pytest.mark.parametrize(("asked", "given"), [(0, 1500), (1400, 1400), (1500, 1500)])
def test_the_mtu_is_the_masters_or_the_one_asked_for(site: Site, pod: Pod, net: dict, asked: int, given: int):
    result = site.host.add(net | {"mtu": asked}, pod)
    assert (pod.link("eth0")["mtu"], result["interfaces"][0]["mtu"]) == (given, given)
    site.host.delete_pod(net, pod)


@pytest.mark.parametrize("mtu", [67, 1501])
def test_an_mtu_the_master_does_not_carry_is_refused(site: Site, pod: Pod, net: dict, mtu: int):
    assert f"$.mtu: {mtu}" in site.host.cni("ADD", net | {"mtu": mtu}, pod).failed(7)
    assert not pod.link("eth0")


ASKED = {
    "mac key": ({"mac": "0a:00:00:00:00:01"}, {}),
    "CNI_ARGS": ({}, {"CNI_ARGS": "IgnoreUnknown=1;MAC=0a:00:00:00:00:02"}),
    "args.cni": ({"args": {"cni": {"mac": "0a:00:00:00:00:03"}}}, {}),
    "runtimeConfig": ({"runtimeConfig": {"mac": "0a:00:00:00:00:04"}}, {}),
}


@pytest.mark.parametrize("layers", range(5), ids=["derived", *ASKED])
def test_each_place_of_a_mac_wins_over_the_ones_before(site: Site, pod: Pod, net: dict, layers: int):
    wanted, env = "0a:58:c0:00:02:64", {}
    for number, (keys, variables) in enumerate(list(ASKED.values())[:layers], 1):
        net, env, wanted = net | keys, env | variables, f"0a:00:00:00:00:0{number}"
    result = site.host.add(net, pod, **env)
    assert (pod.link("eth0")["address"], result["interfaces"][0]["mac"]) == (wanted, wanted)
    assert site.outside.pings("192.0.2.100")
    site.host.check(net, pod, result, **env).ok()
    site.host.delete_pod(net, pod, **env)


def test_a_pod_that_comes_back_with_its_address_has_its_mac_again(site: Site, lab: Lab, net: dict):
    fixed = net | {"ipam": net["ipam"] | {"rangeStart": "192.0.2.7", "rangeEnd": "192.0.2.7"}}
    seen = []
    for pod in (lab.pod(), lab.pod()):
        site.host.add(fixed, pod)
        seen.append(pod.link("eth0")["address"])
        site.host.delete_pod(fixed, pod)
    assert seen == ["0a:58:c0:00:02:07"] * 2


def test_the_broadcast_queue_is_as_long_as_asked(site: Site, pod: Pod, net: dict):
    site.host.add(net | {"bcqueuelen": 1234}, pod)
    assert pod.link("eth0")["linkinfo"]["info_data"]["bcqueuelen"] == 1234
    site.host.delete_pod(net, pod)


@pytest.mark.parametrize("ipam", [None, {}], ids=["absent", "empty"])
def test_without_ipam_the_pod_has_a_link_and_no_address(site: Site, pod: Pod, net: dict, ipam: dict | None):
    bare = {key: value for key, value in net.items() if key != "ipam"} | ({} if ipam is None else {"ipam": ipam})
    result = site.host.add(bare, pod)
    assert not result.get("ips")
    assert (pod.addresses("eth0"), pod.link("eth0")["operstate"]) == (set(), "UP")
    pod.run("ip", "addr", "add", "192.0.2.77/24", "dev", "eth0")
    assert site.outside.pings("192.0.2.77")
    site.host.check(bare, pod, result).ok()
    site.host.delete_pod(bare, pod)


def test_host_local_gives_addresses_and_gets_them_back(site: Site, pod: Pod, net: dict):
    folder = site.host.folder / "host-local"
    foreign = net | {"cniVersion": "1.0.0", "ipam": {**net["ipam"], "type": "host-local", "dataDir": str(folder)}}
    result = site.host.add(foreign, pod)
    assert (folder / "physical/192.0.2.100").exists()
    assert pod.link("eth0")["address"] == result["interfaces"][0]["mac"]
    assert site.outside.pings("192.0.2.100")
    site.host.check(foreign, pod, result).ok()
    site.host.delete_pod(foreign, pod)
    assert not (folder / "physical/192.0.2.100").exists()


def test_static_gives_the_address_and_routes_it_names(site: Site, pod: Pod, net: dict):
    fixed = {"address": "192.0.2.55/24", "gateway": "192.0.2.1"}
    ipam = {"type": "static", "addresses": [fixed], "routes": [{"dst": "0.0.0.0/0"}]}
    foreign = net | {"cniVersion": "1.0.0", "ipam": ipam}
    result = site.host.add(foreign, pod)
    assert (pod.addresses("eth0"), way_out(pod)) == ({"192.0.2.55/24"}, ["192.0.2.1"])
    site.host.check(foreign, pod, result).ok()
    site.host.delete_pod(foreign, pod)


GATEWAYS = {
    "the ipam's": ({"isDefaultGateway": True}, ["192.0.2.1"]),
    "a named one": ({"gateway": "192.0.2.12"}, ["192.0.2.12"]),
    "a named one of each family": ({"gateway": ["192.0.2.12", "fd00:2::12"]}, ["192.0.2.12"]),
    "a named one, no default route": ({"gateway": "192.0.2.12", "isDefaultGateway": False}, []),
    "none": ({}, []),
}


@pytest.mark.parametrize(("keys", "ways"), GATEWAYS.values(), ids=GATEWAYS)
def test_the_default_route_goes_to_the_gateway(site: Site, pod: Pod, net: dict, keys: dict, ways: list):
    result = site.host.add(net | keys, pod)
    assert way_out(pod) == ways
    assert result["ips"][0]["gateway"] == (ways or ["192.0.2.12" if keys else "192.0.2.1"])[0]
    site.host.check(net | keys, pod, result).ok()
    site.host.delete_pod(net | keys, pod)


def test_a_default_route_of_the_ipam_is_not_added_twice(site: Site, pod: Pod, net: dict):
    twice = net | {"isDefaultGateway": True, "ipam": net["ipam"] | {"routes": [{"dst": "0.0.0.0/0"}]}}
    site.host.add(twice, pod)
    assert way_out(pod) == ["192.0.2.1"]
    site.host.delete_pod(twice, pod)


def test_a_dual_stack_pod_is_reached_by_both_families(site: Site, pod: Pod, dual: dict):
    result = site.host.add(dual | {"isDefaultGateway": True}, pod)
    assert pod.addresses("eth0") == {"192.0.2.100/24", "fd00:2::100/64"}
    assert (way_out(pod), way_out(pod, 6)) == (["192.0.2.1"], ["fd00:2::1"])
    assert pod.link("eth0")["address"] == "0a:58:c0:00:02:64"
    assert all(site.outside.pings(address) for address in ("192.0.2.100", "fd00:2::100"))
    assert all(pod.pings(address) for address in ("192.0.2.12", "fd00:2::12"))
    site.host.check(dual, pod, result).ok()
    site.host.delete_pod(dual, pod)


@pytest.mark.parametrize("dad", [False, True], ids=["without detection", "after detection"])
def test_an_ipv6_address_is_usable_at_return(site: Site, pod: Pod, dual: dict, dad: bool):
    six = dual | {"ipam": {"ranges": dual["ipam"]["ranges"][1:]}, "enabledad": dad}
    site.host.add(six, pod)
    assert "tentative" not in sh("ip", "-n", pod.name, "-6", "addr", "show", "scope", "global").stdout
    assert pod.pings("fd00:2::12")
    site.host.delete_pod(six, pod)


def test_detection_finds_an_ipv6_address_that_is_in_use(site: Site, pod: Pod, dual: dict):
    six = dual | {"ipam": {"ranges": dual["ipam"]["ranges"][1:]}, "enabledad": True}
    site.outside.run("ip", "addr", "add", "fd00:2::100/64", "dev", "eth0", "nodad")
    assert "in use" in site.host.cni("ADD", six, pod).failed(101)
    assert not pod.link("eth0")


def test_the_flat_form_names_address_and_gateway(site: Site, pod: Pod, net: dict):
    del net["ipam"]
    flat = net | {"ip": "192.0.2.50/24", "gateway": "192.0.2.1"}
    result = site.host.add(flat, pod)
    assert (pod.addresses("eth0"), way_out(pod)) == ({"192.0.2.50/24"}, ["192.0.2.1"])
    assert pod.pings("192.0.2.12")
    site.host.check(flat, pod, result).ok()
    site.host.delete_pod(flat, pod)
