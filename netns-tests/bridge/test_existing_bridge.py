"""A bridge that was there before: it is somebody's, and keeps what he gave it."""

from __future__ import annotations

import pytest
from lab import Host, Lab, eventually, sh

LAYER_2 = {"ipam": {}, "ipMasq": False, "isDefaultGateway": False}


def mac_of(host: Host, link: str = "br0") -> str:
    return host.link(link)["address"]


def bridge(host: Host, *words: object) -> None:
    host.run("ip", "link", "add", "br0", *words, "type", "bridge")


@pytest.mark.parametrize("keys", [{}, LAYER_2], ids=["gateway", "layer 2"])
@pytest.mark.parametrize("before", ["down", "up", "emptied"])
def test_the_mac_nobody_set_stays_with_our_ports(host: Host, lab: Lab, conf: dict, keys: dict, before: str):
    """A bridge takes the lowest of its ports' MACs until it is given one (br_stp_recalculate_bridge_id in net/bridge)."""
    bridge(host)
    if before != "down":
        host.run("ip", "link", "set", "br0", "up")
    if before == "emptied":  # and after its last port it has none at all
        host.run("ip", "link", "add", "port0", "master", "br0", "type", "veth", "peer", "name", "far0")
        host.run("ip", "link", "del", "port0")
        assert mac_of(host) == "00:00:00:00:00:00"
    was, pods = mac_of(host), [lab.pod() for _ in range(4)]
    said = [host.add(conf | keys, pod)["interfaces"][0]["mac"] for pod in pods]
    assert set(said) == {mac_of(host)}
    assert before == "emptied" or said[0] == was
    for pod in pods[:3]:
        host.delete_pod(conf | keys, pod)
        assert mac_of(host) == said[0]
        assert keys or pods[3].pings("10.1.0.1", 2)
    host.delete_pod(conf | keys, pods[3])
    assert mac_of(host) == said[0]


@pytest.mark.parametrize("keys", [{}, LAYER_2], ids=["gateway", "layer 2"])
def test_an_administrators_bridge_keeps_its_uplinks_mac(host: Host, lab: Lab, conf: dict, keys: dict):
    bridge(host, "up")
    uplink = ("uplink", "address", "f4:00:00:00:00:01", "master", "br0")
    host.run("ip", "link", "add", *uplink, "type", "veth", "peer", "name", "far0")
    for end in ("far0", "uplink"):
        host.run("ip", "link", "set", end, "up")
    assert eventually(lambda: host.link("br0")["operstate"] == "UP")
    overlay = {"vxlan": {"id": 7, "remotes": []}, "mtu": 1400}
    pods = [lab.pod() for _ in range(3)]
    results = [host.add(conf | keys | extra, pod) for pod, extra in zip(pods, ({}, {}, overlay), strict=True)]
    assert {result["interfaces"][0]["mac"] for result in results} == {"f4:00:00:00:00:01"} == {mac_of(host)}
    assert all(result["interfaces"][1]["mac"].startswith("fe:") for result in results)
    for pod in pods:
        host.delete_pod(conf | keys, pod)
    assert mac_of(host) == "f4:00:00:00:00:01"
    sh("ip", "-n", host.name, "link", "del", "vxlan7")


@pytest.mark.parametrize("second", [False, True], ids=["one network", "two networks"])
def test_a_mac_of_ours_that_was_changed_is_named_and_put_right(host: Host, lab: Lab, conf: dict, second: bool):
    one, two, other = lab.pod(), lab.pod(), lab.pod()
    result = host.add(conf, one)
    assert mac_of(host) == result["interfaces"][0]["mac"]
    if second:  # whose pods leave the MAC as it is
        ipam = {"ranges": [[{"subnet": "fd00:2::/64"}]]}
        second_result = host.add(conf | {"name": "second", "ipam": ipam}, other)
        host.check(conf | {"name": "second", "ipam": ipam}, other, second_result).ok()
    assert mac_of(host) == result["interfaces"][0]["mac"]
    host.check(conf, one, result).ok()
    assert one.pings("10.1.0.1")
    host.run("ip", "link", "set", "br0", "address", "0a:00:00:00:00:99")
    assert "bridge br0 has MAC 0a:00:00:00:00:99, not 0a:58:0a:01:00:01" in host.check(conf, one, result).failed(104)
    assert host.add(conf, two)["interfaces"][0]["mac"] == mac_of(host) == "0a:58:0a:01:00:01"
    assert all(one.pings(address, 2) for address in ("10.1.0.1", "fd00:1::1"))
    host.check(conf, one, result).ok()


@pytest.mark.parametrize("overlay", [False, True], ids=["one node", "overlay"])
def test_our_bridge_is_as_large_as_the_largest_pod_on_it(host: Host, lab: Lab, conf: dict, overlay: bool):
    """As when `mtu` is edited, or the default route moves to a link with another one."""
    lab.underlay(host, mtu=9000)
    sizes = conf | ({"vxlan": {"id": 7, "dev": "eth0", "remotes": []}} if overlay else {})
    small, large, last = lab.pod(), lab.pod(), lab.pod()
    results = {pod.name: host.add(sizes | {"mtu": mtu}, pod) for pod, mtu in ((small, 1400), (large, 8000))}
    assert (host.link("br0")["mtu"], results[large.name]["interfaces"][0]["mtu"]) == (8000, 8000)
    for pod, mtu in ((small, 1400), (large, 8000)):
        host.check(sizes | {"mtu": mtu}, pod, results[pod.name]).ok()
    assert large.run("ping", "-c1", "-W20", "-Mdo", "-s7900", "10.1.0.1", check=False).returncode == 0
    host.add(sizes | {"mtu": 1400}, last)
    assert host.link("br0")["mtu"] == 8000
    for pod in (large, last):
        host.delete_pod(sizes, pod)
    result = host.add(sizes | {"mtu": 1400}, last)
    assert host.link("br0")["mtu"] == 1400
    assert result["interfaces"][0]["mtu"] == 1400
    host.check(sizes | {"mtu": 1400}, last, result).ok()
    assert all(pod.pings("10.1.0.1") for pod in (small, last))


def test_on_somebody_elses_bridge_a_pod_has_no_larger_mtu_than_that(host: Host, lab: Lab, conf: dict):
    lab.underlay(host, mtu=9000)
    bridge(host)
    host.run("ip", "link", "set", "br0", "mtu", "1300")
    for keys in ({}, {"mtu": 8000}, {"mtu": 1280}, LAYER_2):
        pod = lab.pod()
        result = host.add(conf | keys, pod)
        assert pod.link("eth0")["mtu"] == min(keys.get("mtu", 1300), 1300)
        assert host.link("br0")["mtu"] == 1300
        host.check(conf | keys, pod, result).ok()
        host.delete_pod(conf | keys, pod)
