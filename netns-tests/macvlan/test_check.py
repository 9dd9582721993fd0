"""CHECK names what is not as ADD left it, and is content with what is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from lab import AGENT_CNI, Host, Lab, Pod, Site


@pytest.fixture
def spare(lab: Lab) -> Host:
    """A node with two masters that lead nowhere; one may be harmed."""
    host = lab.host()
    for number in (0, 1):
        host.run("ip", "link", "add", f"phy{number}", "up", "type", "veth", "peer", "name", f"wire{number}")
        host.run("ip", "link", "set", f"wire{number}", "up")
    return host


@pytest.fixture
def conf(dual: dict) -> dict:
    return dual | {"master": "phy0", "isDefaultGateway": True, "mtu": 1400}


def on_host(*argv: str) -> Callable[[Host, Pod], object]:
    return lambda host, pod: host.run("ip", *argv)


def in_pod(*argv: str) -> Callable[[Host, Pod], object]:
    return lambda host, pod: pod.run("ip", *argv)


def moved(host: Host, pod: Pod) -> None:
    """The same link, addresses and all, but on the other master."""
    mac = pod.link("eth0")["address"]
    pod.run("ip", "link", "del", "eth0")
    at = ("link", "phy1", "name", "eth0", "netns", pod.name, "address", mac, "mtu", "1400")
    host.run("ip", "link", "add", *at, "type", "macvlan", "mode", "bridge")
    pod.run("ip", "link", "set", "eth0", "up")


def moved_inside(host: Host, pod: Pod) -> None:
    """The same link on a master of the pod's own, which has the number the right one has on the host."""
    mac, index = pod.link("eth0")["address"], str(host.link("phy0")["ifindex"])
    pod.run("ip", "link", "del", "eth0")
    pod.run("ip", "link", "add", "phy0", "index", index, "up", "type", "veth", "peer", "name", "other", "index", "99")
    at = ("link", "phy0", "name", "eth0", "address", mac, "mtu", "1400")
    pod.run("ip", "link", "add", *at, "type", "macvlan", "mode", "bridge")


def replaced(host: Host, pod: Pod) -> None:
    pod.run("ip", "link", "del", "eth0")
    pod.run("ip", "link", "add", "eth0", "up", "type", "veth", "peer", "name", "other")


def arp_filter_off(host: Host, pod: Pod) -> None:
    host.run("sysctl", "-qw", "net.ipv4.conf.mv-eth0.arp_filter=0")


DRIFTS = {
    "master down": (on_host("link", "set", "phy0", "down"), "master phy0 is down"),
    "master missing": (on_host("link", "del", "phy0"), "master phy0 is missing"),
    "link missing": (in_pod("link", "del", "eth0"), "eth0 is missing in the pod"),
    "link down": (in_pod("link", "set", "eth0", "down"), "eth0 is down in the pod"),
    "other mode": (in_pod("link", "set", "eth0", "type", "macvlan", "mode", "vepa"), "in mode vepa, not bridge"),
    "other master": (moved, "another master than phy0"),
    "a master of the pod": (moved_inside, "another master than phy0"),
    "other kind": (replaced, "not a macvlan"),
    "other MTU": (in_pod("link", "set", "eth0", "mtu", "1450"), "MTU 1450, above 1400"),
    "other MAC": (in_pod("link", "set", "eth0", "address", "0a:00:00:00:00:09"), "MAC 0a:00:00:00:00:09"),
    "IPv4 address gone": (in_pod("addr", "del", "192.0.2.100/24", "dev", "eth0"), "address 192.0.2.100/24 is missing"),
    "IPv6 address gone": (in_pod("addr", "del", "fd00:2::100/64", "dev", "eth0"), "address fd00:2::100/64 is missing"),
    "IPv4 route gone": (in_pod("route", "del", "default"), "route 0.0.0.0/0 is missing"),
    "IPv6 route gone": (in_pod("-6", "route", "del", "default"), "route ::/0 is missing"),
    "other gateway": (in_pod("route", "replace", "default", "via", "192.0.2.9"), "route 0.0.0.0/0 in the pod is not"),
}


@pytest.mark.parametrize(("harm", "words"), DRIFTS.values(), ids=DRIFTS)
def test_check_names_a_drift(spare: Host, pod: Pod, conf: dict, harm: Callable, words: str):
    result = spare.add(conf, pod)
    spare.check(conf, pod, result).ok()
    harm(spare, pod)
    assert words in spare.check(conf, pod, result).failed(104)
    spare.delete_pod(conf, pod)
    assert spare.state() == {"attachments": [], "leases": []}


def test_check_names_every_drift_at_once(spare: Host, pod: Pod, conf: dict):
    result = spare.add(conf, pod)
    for name in ("other mode", "other MTU", "IPv6 address gone", "IPv4 route gone"):
        DRIFTS[name][0](spare, pod)
    message = spare.check(conf, pod, result).failed(104)
    assert all(DRIFTS[name][1] in message for name in ("other mode", "other MTU", "IPv6 address gone"))
    assert DRIFTS["IPv4 route gone"][1] in message
    spare.delete_pod(conf, pod)


def test_check_accepts_what_a_later_plugin_changed_and_reported(spare: Host, pod: Pod, conf: dict):
    result = spare.add(conf, pod)
    pod.run("ip", "link", "set", "eth0", "mtu", "1450")
    spare.check(conf, pod, result).failed(104)
    result["interfaces"][0]["mtu"] = 1450
    spare.check(conf, pod, result).ok()
    spare.delete_pod(conf, pod)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (on_host("link", "del", "mv-eth0"), "host access link mv-eth0 is missing"),
        (on_host("link", "set", "mv-eth0", "down"), "host access link mv-eth0 is down"),
        (on_host("route", "del", "192.0.2.100/32"), "host route 192.0.2.100/32 dev mv-eth0 is missing"),
        (on_host("-6", "route", "del", "fd00:2::100"), "host route fd00:2::100/128 dev mv-eth0 is missing"),
        (
            on_host("link", "set", "mv-eth0", "address", "0a:00:00:00:00:99"),
            "link mv-eth0 has MAC 0a:00:00:00:00:99, not 0e:",
        ),
        (on_host("link", "set", "mv-eth0", "mtu", "1400"), "link mv-eth0 has MTU 1400, below 1500"),
        (arp_filter_off, "sysctl net.ipv4.conf.mv-eth0.arp_filter is not 1"),
        (on_host("neigh", "del", "192.0.2.100", "dev", "mv-eth0"), "host neighbour 192.0.2.100 at 0a:"),
        (in_pod("neigh", "del", "192.0.2.11", "dev", "eth0"), "neighbour 192.0.2.11 at 0e:"),
        (in_pod("neigh", "del", "fd00:2::11", "dev", "eth0"), "neighbour fd00:2::11 at 0e:"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_check_names_lost_host_access(site: Site, pod: Pod, dual: dict, harm: Callable, words: str):
    shared = dual | {"hostAccess": True}
    result = site.host.add(shared, pod)
    site.host.check(shared, pod, result).ok()
    harm(site.host, pod)
    assert words in site.host.check(shared, pod, result).failed(104)
    assert site.outside.pings("192.0.2.100")
    site.host.run(AGENT_CNI, "refresh")
    site.host.check(shared, pod, result).ok()
    assert (site.host.pings("192.0.2.100"), pod.pings("fd00:2::11")) == (True, True)
    site.host.delete_pod(shared, pod)


def test_check_of_what_was_never_added_fails(spare: Host, lab: Lab, conf: dict):
    pod = lab.pod()
    result = spare.add(conf, pod)
    assert "no completed attachment" in spare.check(conf, lab.pod(), result).failed(104)
    spare.delete_pod(conf, pod)
