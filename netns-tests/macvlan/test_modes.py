"""Who reaches whom in each mode. Every "does not" stands beside a "does" that uses the same links."""

from __future__ import annotations

import pytest
from lab import PATIENCE, Host, Lab, Pod, Site, eventually


def mode_of(pod: Pod) -> str:
    return pod.link("eth0")["linkinfo"]["info_data"]["mode"]


def two_pods(site: Site, lab: Lab, conf: dict) -> tuple[Pod, Pod]:
    """Pods at .100 and .101 that CHECK finds as they should be."""
    pods = lab.pod(), lab.pod()
    for pod in pods:
        site.host.check(conf, pod, site.host.add(conf, pod)).ok()
        assert mode_of(pod) == conf["mode"]
    return pods


def reach_each_other(one: Pod, two: Pod, seconds: int) -> bool:
    there, back = one.pings("192.0.2.101", seconds), two.pings("192.0.2.100", seconds)
    assert there == back
    return there


def reached_from_outside(site: Site, *pods: Pod) -> bool:
    return all(pod.pings("192.0.2.12") for pod in pods) and all(
        site.outside.pings(f"192.0.2.{100 + number}") for number, _ in enumerate(pods)
    )


def foreign_macvlan(host: Host, mode: str) -> None:
    host.run("ip", "link", "add", "link", "eth0", "name", "foreign", "type", "macvlan", "mode", mode)


CASES = {
    "bridge": ("bridge", False, True),
    "private": ("private", False, False),
    "private with a hairpin port": ("private", True, False),
    "vepa without a hairpin port": ("vepa", False, False),
    "vepa with a hairpin port": ("vepa", True, True),
}


@pytest.mark.parametrize(("mode", "hairpin", "reached"), CASES.values(), ids=CASES)
def test_a_mode_decides_whether_pods_reach_each_other(
    site: Site, lab: Lab, net: dict, mode: str, hairpin: bool, reached: bool
):
    site.hairpin(hairpin)
    one, two = two_pods(site, lab, net | {"mode": mode})
    assert reached_from_outside(site, one, two)
    assert reach_each_other(one, two, PATIENCE if reached else 1) == reached
    for pod in (one, two):
        site.host.delete_pod(net | {"mode": mode}, pod)


def test_an_empty_mode_is_bridge(site: Site, pod: Pod, net: dict):
    site.host.add(net | {"mode": ""}, pod)
    assert mode_of(pod) == "bridge"
    site.host.delete_pod(net, pod)


def test_an_unknown_mode_is_refused(site: Site, pod: Pod, net: dict):
    assert "$.mode" in site.host.cni("ADD", net | {"mode": "brigde"}, pod).failed(7)


def test_source_mode_hears_only_the_macs_it_lists(site: Site, pod: Pod, net: dict):
    listening = net | {"mode": "source"}
    result = site.host.add(listening, pod)
    assert mode_of(pod) == "source"
    assert not pod.pings("192.0.2.12", 1)
    friend = site.outside.link("eth0")["address"]
    pod.run("ip", "link", "set", "eth0", "type", "macvlan", "macaddr", "add", friend)
    assert pod.pings("192.0.2.12")
    site.host.check(listening, pod, result).ok()
    site.host.delete_pod(listening, pod)


def test_passthru_has_its_masters_mac_and_traffic(site: Site, pod: Pod, net: dict):
    alone = net | {"mode": "passthru", "mac": "0a:00:00:00:00:01"}
    mac, before = site.host.link("eth0")["address"], site.host.link("eth0")["flags"]
    result = site.host.add(alone, pod)
    assert (mode_of(pod), pod.link("eth0")["address"]) == ("passthru", mac)
    assert result["interfaces"][0]["mac"] == mac
    assert reached_from_outside(site, pod)
    site.host.check(alone, pod, result).ok()
    site.host.delete_pod(alone, pod)
    assert site.host.link("eth0")["flags"] == before
    assert eventually(lambda: site.outside.pings("192.0.2.11", 1))


@pytest.mark.parametrize(("first", "second"), [("passthru", "bridge"), ("bridge", "passthru"), ("passthru",) * 2])
def test_passthru_shares_its_master_with_nobody_and_says_with_whom_not(
    site: Site, lab: Lab, net: dict, first: str, second: str
):
    one, two = lab.pod(), lab.pod()
    site.host.add(net | {"mode": first}, one)
    held = site.host.state()
    message = site.host.cni("ADD", net | {"mode": second}, two).failed(101)
    assert f"physical/{one.container}/eth0" in message
    assert f"mode {first}" in message
    assert (two.link("eth0"), site.host.state()) == (None, held)
    assert reached_from_outside(site, one)
    site.host.delete_pod(net, one)
    site.host.add(net | {"mode": second}, two)
    site.host.delete_pod(net, two)


def test_two_networks_may_not_share_a_passthru_master_either(site: Site, lab: Lab, net: dict):
    one, two = lab.pod(), lab.pod()
    site.host.add(net | {"mode": "passthru"}, one)
    message = site.host.cni("ADD", net | {"name": "other"}, two).failed(101)
    assert f"physical/{one.container}/eth0" in message
    site.host.delete_pod(net, one)


@pytest.mark.parametrize(("foreign", "ours"), [("passthru", "bridge"), ("bridge", "passthru")])
def test_a_foreign_macvlan_on_the_master_is_a_conflict_that_is_said(
    site: Site, pod: Pod, net: dict, foreign: str, ours: str
):
    foreign_macvlan(site.host, foreign)
    before = site.host.snapshot()
    message = site.host.cni("ADD", net | {"mode": ours}, pod).failed(101)
    assert "eth0 is taken" in message
    assert "passthru" in message
    assert (pod.link("eth0"), site.host.snapshot()) == (None, before)
    site.host.run("ip", "link", "del", "foreign")
    site.host.add(net | {"mode": ours}, pod)
    site.host.delete_pod(net, pod)


def test_a_foreign_macvlan_in_a_mode_that_shares_disturbs_nobody(site: Site, pod: Pod, net: dict):
    foreign_macvlan(site.host, "bridge")
    site.host.add(net, pod)
    assert reached_from_outside(site, pod)
    site.host.delete_pod(net, pod)
    assert site.host.link("foreign")
    site.host.run("ip", "link", "del", "foreign")
