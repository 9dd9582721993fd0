"""Calls that cannot succeed, calls that come twice, interfaces that are somebody else's, addresses used again."""

from __future__ import annotations

import pytest
from lab import Host, Lab, Pod, Site, eventually, sh


def spare_master(host: Host, name: str = "phy0", peer: str = "wire0") -> None:
    """A master of the node's own that leads nowhere."""
    host.run("ip", "link", "add", name, "up", "type", "veth", "peer", "name", peer)
    host.run("ip", "link", "set", peer, "up")


def neighbour(host: Host, address: str) -> str:
    family = 6 if ":" in address else 4
    return next((item.get("lladdr", "") for item in host.ip("neigh", "show", address, family=family)), "")


FORGOTTEN = "import sqlite3; d = sqlite3.connect('/run/agent-cni/state.db'); d.execute('DELETE FROM attachment'); d.execute('DELETE FROM lease'); d.execute('DELETE FROM uses'); d.commit()"
FOREIGN = {
    "a bridge": ["type", "bridge"],
    "a veth": ["type", "veth", "peer", "name", "other"],
}


def foreign_link(site: Site, pod: Pod, kind: str) -> None:
    if kind == "a macvlan":
        on = ("link", "eth0", "name", "eth0", "netns", pod.name)
        site.host.run("ip", "link", "add", *on, "type", "macvlan", "mode", "bridge")
    else:
        pod.run("ip", "link", "add", "eth0", *FOREIGN[kind])


@pytest.mark.parametrize("kind", [*FOREIGN, "a macvlan"])
def test_an_interface_of_that_name_is_never_touched(site: Site, pod: Pod, net: dict, kind: str):
    before = site.host.snapshot()
    foreign_link(site, pod, kind)
    link = pod.link("eth0")
    message = site.host.cni("ADD", net, pod).failed(101)
    assert "eth0 exists already" in message
    assert pod.link("eth0") == link
    site.host.delete_pod(net, pod)
    site.host.cni("DEL", net, pod, CNI_NETNS="").ok()
    assert pod.link("eth0") == link
    pod.run("ip", "link", "del", "eth0")
    assert site.host.snapshot() == before
    result = site.host.add(net, pod)
    assert site.outside.pings(result["ips"][0]["address"].split("/")[0])
    site.host.delete_pod(net, pod)


def test_a_foreign_interface_that_took_our_place_is_not_deleted(site: Site, pod: Pod, net: dict):
    site.host.add(net, pod)
    pod.run("ip", "link", "del", "eth0")
    foreign_link(site, pod, "a macvlan")
    site.host.delete_pod(net, pod)
    assert pod.link("eth0")
    pod.run("ip", "link", "del", "eth0")


def test_del_comes_twice_and_without_an_add(site: Site, pod: Pod, net: dict):
    site.host.delete_pod(net, pod)
    site.host.add(net, pod)
    for _ in range(2):
        site.host.delete_pod(net, pod)
        assert not pod.link("eth0")


@pytest.mark.parametrize("keys", [{}, {"hostAccess": True}], ids=["plain", "with host access"])
def test_del_after_the_netns_is_gone_frees_everything(site: Site, pod: Pod, net: dict, keys: dict):
    site.host.add(net | keys, pod)
    pod.delete()
    site.host.delete_pod(net | keys, pod)
    site.host.delete_pod(net | keys, pod)


def test_del_with_an_empty_netns_frees_everything_after_the_netns_is_gone(site: Site, pod: Pod, net: dict):
    site.host.add(net | {"hostAccess": True}, pod)
    pod.delete()
    for _ in range(2):
        site.host.cni("DEL", net | {"hostAccess": True}, pod, CNI_NETNS="").ok()


def test_del_with_an_empty_netns_frees_no_address_the_pod_still_answers_for(site: Site, lab: Lab, net: dict):
    pod, heir = lab.pod(), lab.pod()
    fixed = net | {"ipam": net["ipam"] | {"rangeEnd": "192.0.2.100"}}
    site.host.add(fixed, pod)
    assert site.outside.pings("192.0.2.100")
    site.host.cni("DEL", fixed, pod, CNI_NETNS="").ok()
    leased = bool(site.host.state()["leases"])
    assert leased or not site.outside.pings("192.0.2.100", 1)
    site.host.delete_pod(fixed, pod)
    site.host.add(fixed, heir)
    site.host.delete_pod(fixed, heir)


def test_del_uses_what_was_recorded_and_not_todays_configuration(site: Site, pod: Pod, net: dict):
    site.host.add(net | {"hostAccess": True}, pod)
    site.host.delete_pod(net | {"master": "eth9", "mode": "vepa", "mtu": 1300}, pod)
    assert not pod.link("eth0")


def test_gc_takes_what_the_runtime_does_not_list(site: Site, lab: Lab, net: dict):
    kept, stale = lab.pod(), lab.pod()
    shared = net | {"hostAccess": True}
    for pod in (kept, stale):
        site.host.add(shared, pod)
    site.host.cni("GC", shared).ok()
    assert stale.link("eth0")
    valid = [{"containerID": kept.container, "ifname": "eth0"}]
    site.host.cni("GC", shared | {"cni.dev/valid-attachments": valid}).ok()
    assert (bool(kept.link("eth0")), stale.link("eth0")) == (True, None)
    assert site.host.pings("192.0.2.100")
    site.host.cni("GC", shared | {"cni.dev/valid-attachments": []}).ok()
    assert not kept.link("eth0")


def test_status_says_when_the_master_is_missing(site: Site, net: dict):
    site.host.cni("STATUS", net).ok()
    assert "'eth7'" in site.host.cni("STATUS", net | {"master": "eth7"}).failed(50)


@pytest.mark.parametrize("keys", [{}, {"enabledad": True}, {"hostAccess": True}], ids="+".join)
def test_a_pod_on_a_master_that_is_down_works_as_soon_as_that_is_up(site: Site, pod: Pod, dual: dict, keys: dict):
    conf = dual | keys | {"isDefaultGateway": True}
    site.host.run("ip", "link", "set", "eth0", "down")
    result = site.host.add(conf, pod)
    site.host.check(conf, pod, result).ok()
    site.host.run("ip", "link", "set", "eth0", "up")
    # what went with the link
    site.host.run("ip", "route", "add", "default", "via", "192.0.2.1")
    site.host.run("ip", "addr", "replace", "fd00:2::11/64", "dev", "eth0", "nodad")
    reached = ["192.0.2.12", "fd00:2::12"] + (["192.0.2.11"] if "hostAccess" in keys else [])
    assert all(eventually(lambda address=address: pod.pings(address, 1)) for address in reached)
    assert site.outside.pings("192.0.2.100")
    site.host.check(conf, pod, result).ok()
    site.host.delete_pod(conf, pod)


def test_a_master_that_is_a_bridges_port_is_named(host: Host, pod: Pod, net: dict):
    spare_master(host)
    host.run("ip", "link", "add", "br7", "type", "bridge")
    host.run("ip", "link", "set", "phy0", "master", "br7")
    before = host.snapshot()
    said = host.cni("ADD", net | {"master": "phy0"}, pod).failed(101)
    assert "master phy0 is a port of br7" in said
    assert (pod.link("eth0"), host.snapshot()) == (None, before)
    host.add(net | {"master": "br7"}, pod)
    host.delete_pod(net | {"master": "br7"}, pod)


@pytest.mark.parametrize("same", ["address", "MAC"])
@pytest.mark.parametrize("known", [True, False], ids=["on record", "without a record"])
def test_who_has_a_pods_mac_on_its_master_is_named(site: Site, lab: Lab, net: dict, same: str, known: bool):
    """A MAC follows from an address, so it is one pod's too if two networks give one address."""
    first, second = lab.pod(), lab.pod()
    one = net | {"mac": "0a:00:00:00:00:07"} if same == "MAC" else net
    other = one | {"name": "other"}
    if same == "MAC":
        other |= {"ipam": net["ipam"] | {"rangeStart": "192.0.2.150"}}
    result = site.host.add(one, first)
    if not known:
        site.host.run("python3", "-c", FORGOTTEN)
    said = site.host.cni("ADD", other, second).failed(101)
    assert result["interfaces"][0]["mac"] in said
    assert "eth0" in said
    if known:
        assert first.container in said
        assert ("give 192.0.2.100" in said) is (same == "address")
    assert second.link("eth0") is None
    first.run("ip", "link", "del", "eth0")
    site.host.delete_pod(one, first)


@pytest.mark.parametrize("address", ["192.0.2.100", "fd00:2::100"])
def test_a_peer_with_a_stale_neighbour_reaches_the_addresss_next_pod_at_once(
    site: Site, lab: Lab, dual: dict, address: str
):
    dual["ipam"]["ranges"][0][0] |= {"rangeEnd": "192.0.2.100"}
    dual["ipam"]["ranges"][1][0] |= {"rangeEnd": "fd00:2::100"}
    first, second = lab.pod(), lab.pod()
    site.host.add(dual | {"mac": "0a:00:00:00:00:01"}, first)
    assert site.outside.pings(address)
    site.host.delete_pod(dual, first)
    assert neighbour(site.outside, address) == "0a:00:00:00:00:01"
    site.host.add(dual | {"mac": "0a:00:00:00:00:02"}, second)
    assert eventually(lambda: neighbour(site.outside, address) == "0a:00:00:00:00:02")
    assert site.outside.pings(address)
    site.host.delete_pod(dual, second)


def test_the_switch_learns_at_once_where_an_addresss_mac_is_now(site: Site, pod: Pod, net: dict):
    def port() -> str:
        lines = sh("bridge", "-n", site.switch.name, "fdb", "show", "br", "sw0").stdout.splitlines()
        return next((line for line in lines if line.startswith("0a:58:c0:00:02:64")), "")

    assert not port()
    site.host.add(net, pod)
    assert eventually(lambda: "port11" in port())
    site.host.delete_pod(net, pod)


def test_an_ipam_that_cannot_speak_the_version_leaves_nothing(site: Site, pod: Pod, net: dict):
    """Debian's host-local stops at 1.0.0; a DEL that fails for ever keeps a pod Terminating."""
    foreign = net | {"cniVersion": "1.1.0", "ipam": {**net["ipam"], "type": "host-local"}}
    assert "host-local" in site.host.cni("ADD", foreign, pod).failed(1)
    assert not pod.link("eth0")
    site.host.delete_pod(foreign, pod)


@pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
def test_an_address_another_node_gave_is_seen_with_enabledad(site: Site, lab: Lab, dual: dict, family: int):
    """Its MAC follows from its address, and is the same there."""
    span = dual["ipam"]["ranges"][family][0]
    conf = dual | {"ipam": {"ranges": [[span | {"rangeEnd": span["rangeStart"]}]]}, "enabledad": True}
    theirs, ours = lab.pod(), lab.pod()
    first = site.outside.add(conf, theirs)
    said = site.host.cni("ADD", conf, ours).failed(101)
    assert f"{first['ips'][0]['address'].split('/')[0]}" in said
    assert "is in use by another host on this network" in said
    assert ours.link("eth0") is None
    site.outside.delete_pod(conf, theirs)
    result = site.host.add(conf, ours)
    assert result["interfaces"][0]["mac"] == first["interfaces"][0]["mac"] == ours.link("eth0")["address"]
    assert site.outside.pings(result["ips"][0]["address"].split("/")[0])
    site.host.check(conf, ours, result).ok()
    shown = ours.run("ip", "-6", "addr", "show", "dev", "eth0", "scope", "link").stdout
    mac = bytes.fromhex(first["interfaces"][0]["mac"].replace(":", ""))
    assert f"{mac[4] << 8 | mac[5]:x}/64" in shown
    site.host.delete_pod(conf, ours)
