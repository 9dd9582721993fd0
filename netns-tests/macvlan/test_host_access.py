"""hostAccess: the host and its pods reach each other, nobody on the wire notices, and it goes with the last pod."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from lab import AGENT_CNI, Host, Lab, Pod, Site, eventually, sh

HOST, POD = ("192.0.2.11", "fd00:2::11"), ("192.0.2.100", "fd00:2::100")


@pytest.fixture
def shared(dual: dict) -> dict:
    return dual | {"hostAccess": True}


def shims(host: Host) -> list[str]:
    return [
        link["ifname"] for link in host.ip("link", "show") if link.get("linkinfo", {}).get("info_kind") == "macvlan"
    ]


def learned(host: Host, address: str) -> str:
    family = 6 if ":" in address else 4
    return next((item.get("lladdr", "") for item in host.ip("neigh", "show", address, family=family)), "")


def host_routes(host: Host, link: str) -> set[str]:
    routes = [route for family in (4, 6) for route in host.routes(family)]
    return {route["dst"] for route in routes if route.get("dev") == link and not route["dst"].startswith("fe80")}


def wired(lab: Lab, host: Host, name: str, address: str) -> None:
    """One more link of the host, to a wire of its own."""
    far = lab.pod()
    host.run("ip", "link", "add", name, "up", "type", "veth", "peer", "name", "wire", "netns", far.name)
    far.run("ip", "link", "set", "wire", "up")
    host.run("ip", "addr", "add", address, "dev", name)


@pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
def test_without_host_access_host_and_pod_do_not_reach_each_other(site: Site, pod: Pod, dual: dict, family: int):
    site.host.add(dual, pod)
    assert site.outside.pings(HOST[family])
    assert site.outside.pings(POD[family])
    assert not site.host.pings(POD[family], 1)
    assert not pod.pings(HOST[family], 1)
    assert shims(site.host) == []
    site.host.delete_pod(dual, pod)


@pytest.mark.parametrize("first", ["host", "pod"])
@pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
def test_with_host_access_they_do_whoever_speaks_first(site: Site, pod: Pod, shared: dict, family: int, first: str):
    result = site.host.add(shared, pod)
    ways = [lambda: site.host.pings(POD[family]), lambda: pod.pings(HOST[family])]
    assert all(way() for way in (ways if first == "host" else reversed(ways)))
    assert site.outside.pings(POD[family])
    assert site.outside.pings(HOST[family])
    site.host.check(shared, pod, result).ok()
    site.host.delete_pod(shared, pod)


@pytest.mark.parametrize(
    "settings",
    [["net.ipv4.conf.all.arp_ignore=1", "net.ipv4.conf.all.arp_announce=2"], ["net.ipv4.conf.all.rp_filter=1"]],
    ids=["kube-proxy's in IPVS mode", "strict reverse path filtering"],
)
@pytest.mark.parametrize("first", ["host", "pod"])
def test_host_access_works_with_settings_nodes_often_have(
    site: Site, pod: Pod, shared: dict, settings: list[str], first: str
):
    site.host.run("sysctl", "-qw", *settings)
    site.host.add(shared, pod)
    assert site.outside.pings(POD[0])
    ways = [lambda: site.host.pings(POD[0]), lambda: pod.pings(HOST[0])]
    assert all(way() for way in (ways if first == "host" else reversed(ways)))
    site.host.delete_pod(shared, pod)


def test_pods_with_host_access_reach_each_other_and_outside(site: Site, lab: Lab, shared: dict):
    one, two = lab.pod(), lab.pod()
    for pod in (one, two):
        site.host.add(shared, pod)
    assert all(one.pings(address) for address in ("192.0.2.101", "fd00:2::101", "192.0.2.12", "fd00:2::12"))
    assert all(site.host.pings(address) for address in (*POD, "192.0.2.101", "fd00:2::101"))
    for pod in (one, two):
        site.host.delete_pod(shared, pod)


@pytest.mark.parametrize("address", HOST)
def test_who_asks_on_the_wire_hears_the_hosts_own_mac(site: Site, pod: Pod, shared: dict, address: str):
    site.host.add(shared, pod)
    mac = site.host.link("eth0")["address"]
    assert mac != site.host.link("mv-eth0")["address"]
    for _ in range(5):
        site.outside.run("ip", "neigh", "flush", "dev", "eth0")
        assert site.outside.pings(address)
        assert learned(site.outside, address) == mac
    site.host.delete_pod(shared, pod)


@pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
def test_who_knows_the_host_keeps_its_own_mac_when_host_and_pod_talk(site: Site, pod: Pod, shared: dict, family: int):
    """The host's own question for a pod is a broadcast that leaves through the master, too."""
    site.host.add(shared, pod)
    mac = site.host.link("eth0")["address"]
    assert site.outside.pings(HOST[family])
    site.outside.run("sysctl", "-qw", "net.ipv4.neigh.eth0.locktime=0", "net.ipv6.neigh.eth0.locktime=0")
    for asking in range(3):
        site.host.run("ip", "neigh", "flush", "dev", "mv-eth0")
        pod.run("ip", "neigh", "flush", "dev", "eth0")
        assert site.host.pings(POD[family])
        assert pod.pings(HOST[family])
        assert learned(site.outside, HOST[family]) == mac, f"after question {asking}"
    site.host.delete_pod(shared, pod)


def test_outside_and_host_reach_each_other_still_after_the_last_pod_left(site: Site, pod: Pod, shared: dict):
    site.host.add(shared, pod)
    assert all(site.host.pings(address) for address in POD)
    assert all(site.outside.pings(address) for address in HOST)
    site.host.delete_pod(shared, pod)
    assert all(site.outside.pings(address) for address in HOST)
    assert site.host.pings("192.0.2.12")


def test_the_shim_and_the_route_go_with_the_last_pod(site: Site, lab: Lab, shared: dict):
    before = site.host.snapshot()
    one, two = lab.pod(), lab.pod()
    for pod in (one, two):
        site.host.add(shared, pod)
    assert shims(site.host) == ["mv-eth0"]
    assert host_routes(site.host, "mv-eth0") == {"192.0.2.100", "192.0.2.101", "fd00:2::100", "fd00:2::101"}
    site.host.delete_pod(shared, one)
    assert host_routes(site.host, "mv-eth0") == {"192.0.2.101", "fd00:2::101"}
    assert all(site.host.pings(address) for address in ("192.0.2.101", "fd00:2::101"))
    site.host.delete_pod(shared, two)
    assert (shims(site.host), site.host.snapshot()) == ([], before)


@pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
def test_the_host_reaches_an_addresss_next_pod_at_once(site: Site, lab: Lab, shared: dict, family: int):
    """Another pod keeps the shim, and with it whatever the host knew of the first."""
    keeper, first, second = lab.pod(), lab.pod(), lab.pod()
    ends = {"rangeStart": POD[family], "rangeEnd": POD[family]}
    span = {"subnet": ("192.0.2.0/24", "fd00:2::/64")[family]} | ends
    fixed = shared | {"name": "fixed", "ipam": {"ranges": [[span]]}}
    shared["ipam"]["ranges"][family][0] |= {"rangeStart": POD[family].replace("100", "150")}
    site.host.add(shared, keeper)
    site.host.add(fixed | {"mac": "0a:00:00:00:00:01"}, first)
    assert eventually(lambda: site.host.pings(POD[family], 1))
    site.host.delete_pod(fixed, first)
    site.host.add(fixed | {"mac": "0a:00:00:00:00:02"}, second)
    assert site.host.pings(POD[family])
    site.host.delete_pod(fixed, second)
    site.host.delete_pod(shared, keeper)


def test_pods_without_host_access_do_not_keep_the_shim(site: Site, lab: Lab, shared: dict):
    one, two = lab.pod(), lab.pod()
    site.host.add(shared, one)
    site.host.add(shared | {"hostAccess": False}, two)
    site.host.delete_pod(shared, one)
    assert shims(site.host) == []
    site.host.delete_pod(shared, two)


def test_two_networks_on_one_master_share_its_shim(site: Site, lab: Lab, shared: dict):
    one, two = lab.pod(), lab.pod()
    span = {"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.201", "rangeEnd": "192.0.2.201"}
    other = shared | {"name": "other", "ipam": span}
    site.host.add(shared, one)
    site.host.add(other, two)
    assert shims(site.host) == ["mv-eth0"]
    site.host.delete_pod(shared, one)
    assert site.host.pings("192.0.2.201")
    site.host.delete_pod(other, two)


def test_two_masters_have_two_shims(site: Site, lab: Lab, shared: dict):
    """The host has an address on each wire; to a pod it speaks from the one that pod's subnet has."""
    wired(lab, site.host, "phy0", "198.51.100.1/24")
    one, two = lab.pod(), lab.pod()
    second = shared | {"name": "second", "master": "phy0", "ipam": {"subnet": "198.51.100.0/24"}}
    site.host.add(shared, one)
    address = site.host.add(second, two)["ips"][0]["address"].split("/")[0]
    assert sorted(shims(site.host)) == ["mv-eth0", "mv-phy0"]
    assert (site.host.pings("192.0.2.100"), site.host.pings(address)) == (True, True)
    site.host.delete_pod(shared, one)
    assert (shims(site.host), site.host.pings(address)) == (["mv-phy0"], True)
    site.host.delete_pod(second, two)
    site.host.run("ip", "link", "del", "phy0")


@pytest.mark.parametrize("pair", [("fifteen-bytes-a", "fifteen-bytes-b"), ("dotted.100", "dotted.200")], ids=str)
def test_masters_of_any_name_have_shims_of_their_own(host: Host, lab: Lab, shared: dict, pair: tuple[str, str]):
    for number, name in enumerate(pair):
        wired(lab, host, name, f"198.51.10{number}.1/24")
    before = host.snapshot()
    held = []
    for number, name in enumerate(pair):
        conf, pod = shared | {"master": name, "name": name, "ipam": {"subnet": f"198.51.10{number}.0/24"}}, lab.pod()
        result = host.add(conf, pod)
        assert host.pings(result["ips"][0]["address"].split("/")[0])
        host.check(conf, pod, result).ok()
        held.append((conf, pod))
    assert len(set(shims(host))) == 2
    for conf, pod in held:
        host.delete_pod(conf, pod)
    assert host.snapshot() == before


@pytest.mark.parametrize("keys", [{"mode": "private"}, {"mode": "passthru"}, {"linkInContainer": True}], ids=str)
def test_host_access_where_it_cannot_be_is_refused(site: Site, pod: Pod, shared: dict, keys: dict):
    assert "$.hostAccess" in site.host.cni("ADD", shared | keys, pod).failed(7)


def test_a_pod_whose_mac_was_chosen_is_reached_too(site: Site, pod: Pod, shared: dict):
    site.host.add(shared | {"mac": "0a:00:00:00:00:07"}, pod)
    assert all(site.host.pings(address) for address in POD)
    site.host.delete_pod(shared, pod)


def test_an_address_the_host_routes_elsewhere_is_a_conflict_and_leaves_nothing(site: Site, pod: Pod, shared: dict):
    site.host.run("ip", "route", "add", "192.0.2.100/32", "via", "192.0.2.1")
    before = site.host.snapshot()
    assert "192.0.2.100/32" in site.host.cni("ADD", shared, pod).failed(101)
    assert (pod.link("eth0"), site.host.snapshot()) == (None, before)
    site.host.run("ip", "route", "del", "192.0.2.100/32")


def test_a_foreign_link_of_the_shims_name_is_not_ours(site: Site, pod: Pod, shared: dict):
    site.host.run("ip", "link", "add", "mv-eth0", "type", "bridge")
    before = site.host.snapshot()
    assert "mv-eth0" in site.host.cni("ADD", shared, pod).failed(101)
    assert (pod.link("eth0"), site.host.snapshot()) == (None, before)
    site.host.delete_pod(shared, pod)
    assert site.host.snapshot() == before
    site.host.run("ip", "link", "del", "mv-eth0")


def test_a_lost_shim_comes_back_with_the_next_pod(site: Site, lab: Lab, shared: dict):
    one, two = lab.pod(), lab.pod()
    site.host.add(shared, one)
    sh("ip", "-n", site.host.name, "link", "del", "mv-eth0")
    site.host.add(shared, two)
    assert site.host.pings("192.0.2.101")
    for pod in (one, two):
        site.host.delete_pod(shared, pod)


def away(host: Host, link: str) -> None:
    """The host's address is taken away and given again, as a renewed lease or an administrator does."""
    for verb in ("del", "add"):
        host.run("ip", "addr", verb, "192.0.2.11/24", "dev", link)
        host.run("ip", "addr", verb, "fd00:2::11/64", "dev", link, *(["nodad"] if verb == "add" else []))
    host.run("ip", "route", "replace", "default", "via", "192.0.2.1")


LOST = {
    "another MAC": lambda host: host.run("ip", "link", "set", "mv-eth0", "address", "0a:00:00:00:00:99"),
    "another MAC of the master": lambda host: host.run("ip", "link", "set", "eth0", "address", "0a:00:00:00:00:98"),
    "no link": lambda host: host.run("ip", "link", "del", "mv-eth0"),
    "no address for a while": lambda host: away(host, "eth0"),
}


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize("mended", ["ADD", "refresh", "DEL"])
def test_lost_host_access_is_mended_for_all_and_goes_with_the_last_pod(
    site: Site, lab: Lab, shared: dict, lost: str, mended: str
):
    own = site.host.link("eth0")["address"]
    pods = [lab.pod() for _ in range(3)]
    results = [site.host.add(shared, pod) for pod in pods[:2]]
    LOST[lost](site.host)
    if mended == "ADD":
        results.append(site.host.add(shared, pods[2]))
    if mended == "refresh":
        site.host.run(AGENT_CNI, "refresh")
    for pod, result in zip(pods, results if mended != "DEL" else (), strict=False):
        address = result["ips"][0]["address"].split("/")[0]
        assert (site.host.pings(address), pod.pings("192.0.2.11"), pod.pings("fd00:2::11")) == (True, True, True)
        if (mended, lost) != (
            "ADD",
            "no address for a while",
        ):  # IPv6 keeps its routes, and the source they lost is refresh's
            site.host.check(shared, pod, result).ok()
    for pod in pods:
        site.host.delete_pod(shared, pod)
    assert shims(site.host) == []
    site.host.run("ip", "link", "set", "eth0", "address", own)


def test_pods_that_come_and_go_at_once_never_lose_the_shim_of_those_who_stay(site: Site, lab: Lab, shared: dict):
    for _ in range(3):
        going, coming = [lab.pod() for _ in range(4)], [lab.pod() for _ in range(4)]
        for pod in going:
            site.host.add(shared, pod)
        with ThreadPoolExecutor(8) as pool:
            gone = [pool.submit(site.host.delete_pod, shared, pod) for pod in going]
            come = [pool.submit(site.host.add, shared, pod) for pod in coming]
            results = [future.result() for future in come]
            assert all(future.result() is None for future in gone)
        for pod, result in zip(coming, results, strict=True):
            site.host.check(shared, pod, result).ok()
            assert eventually(lambda result=result: site.host.pings(result["ips"][0]["address"].split("/")[0], 1))
            site.host.delete_pod(shared, pod)
        assert shims(site.host) == []
