"""The proxy's own IPv6 address serves the proxy's way to the application, and is nobody's source address otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from interception import APP_UID, BACKENDS, IN, NET, OUT, WEB, address_of, chained, remains
from lab import Host, Lab, Pod, Site, sh
from traffic import PROXY, Actor

ULA, GLOBAL = "fd00:81::/64", "2001:db8:81::/64"
#: An address of each kind the kernel labels, all of them outside the pod's subnet.
ELSEWHERE = (
    "2001:db8:9::9",
    "fd00:9::9",
    "64:ff9b::9",
    "2002:9::9",
    "2001::9",
    "2001:10::9",
    "fec0::9",
    "3ffe::9",
    "::9",
)
OWN = "::6"


@dataclass
class Place:
    """A pod with a proxy, and a machine outside that has an address of every kind."""

    host: Host
    pod: Pod
    conf: dict[str, Any]
    result: dict[str, Any]
    app: Actor
    proxy: Actor

    @property
    def address(self) -> str:
        return address_of(self.result, 6)

    def sources(self, *flags: str) -> set[str]:
        """The source the kernel takes for each destination."""
        routes = [self.pod.ip("route", "get", target, *flags, family=6)[0] for target in ELSEWHERE]
        return {route["prefsrc"] for route in routes}


def network(subnet: str, **keys: Any) -> dict[str, Any]:
    return NET | {"ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": subnet}]]}, **keys}


@pytest.fixture
def held() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def attached(lab: Lab, held: ExitStack, conf: dict[str, Any], host: Host | None = None) -> Place:
    """The pod, its proxy and application; who is outside stands on the host."""
    host, pod = host or lab.host(), lab.pod()
    result = host.add(conf, pod)
    for target in ELSEWHERE:
        sh("ip", "-n", host.name, "addr", "add", f"{target}/128", "dev", "lo", "nodad")
    outside, app, proxy = (held.enter_context(Actor(*who)) for who in ((host,), (pod, APP_UID), (pod, PROXY)))
    outside.listen("outside", 80)
    outside.listen("outside", 123, udp=True)
    app.listen("app", WEB)
    proxy.listen("outbound", OUT)
    proxy.listen("inbound", IN, transparent=True)
    return Place(host, pod, conf, result, app, proxy)


def all_is_well(place: Place) -> None:
    """Everything that leaves the pod uncaptured has the pod's address; the proxy reaches the application from its own."""
    for target in ELSEWHERE[:-1]:
        seen = place.proxy.connect(target, 80)
        assert (seen["who"], seen["peer"][0]) == ("outside", place.address), target
        said = place.app.ask(target, 123)
        assert (said["who"], said["peer"][0]) == ("outside", place.address), target
    ping = "setpriv --reuid {} --regid {} --clear-groups --inh-caps +net_raw --ambient-caps +net_raw ping -c 1 -W 60"
    for uid in (PROXY, APP_UID):
        for target in ELSEWHERE[:2]:
            place.pod.run(*ping.format(uid, uid).split(), target)
    assert place.sources() == {place.address}
    seen = place.proxy.connect(place.address, WEB, source=[OWN, 0])
    assert (seen["who"], seen["peer"][0]) == ("app", OWN)
    place.host.check(place.conf, place.pod, place.result).ok()


@pytest.mark.tried(
    "pods with unique local or global addresses to nine kinds of IPv6 destination, by proxy, application and ping",
    "the source is the pod's address, never `::6`",
)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", ["redirect", "tproxy"])
@pytest.mark.parametrize("subnet", [ULA, GLOBAL])
def test_what_leaves_the_pod_has_the_pods_address(lab: Lab, held: ExitStack, subnet: str, mode: str, backend: str):
    sidecar = {"inboundPort": IN, "mode": mode, "backend": backend}
    all_is_well(attached(lab, held, network(subnet, sidecar=sidecar)))


@pytest.mark.parametrize("subnet", [ULA, GLOBAL])
def test_an_excluded_destination_sees_the_pods_address(lab: Lab, held: ExitStack, subnet: str):
    excluded = [f"{target}/128" for target in ELSEWHERE[:2]]
    place = attached(lab, held, network(subnet, sidecar={"excludeOutboundCIDRs": excluded}))
    for target in ELSEWHERE[:2]:
        seen = place.app.connect(target, 80)
        assert (seen["who"], seen["peer"][0]) == ("outside", place.address)
    assert place.app.reaches(ELSEWHERE[2], 80) == "outbound", "somebody is captured"


@pytest.mark.parametrize("subnet", [ULA, GLOBAL])
def test_chained_too(lab: Lab, held: ExitStack, subnet: str):
    conf = network(subnet)
    place = attached(lab, held, conf)
    mesh = chained(conf, inboundPort=IN, prevResult=place.result)
    place.host.add(mesh, place.pod)
    place.conf = mesh
    all_is_well(place)
    before = place.pod.run("ip", "addrlabel").stdout
    place.host.delete_pod(mesh, place.pod)
    assert "1337" in before
    assert "1337" not in place.pod.run("ip", "addrlabel").stdout
    assert remains(place.pod)["rules"] == []


@pytest.mark.parametrize(("subnet", "later"), [(ULA, "2001:db8:81::77/64"), (GLOBAL, "fd00:81::77/64")])
def test_addresses_that_come_later_are_chosen_as_ever(lab: Lab, held: ExitStack, subnet: str, later: str):
    place = attached(lab, held, network(subnet, sidecar={}))
    place.pod.run("ip", "addr", "add", later, "dev", "eth0", "nodad")
    own = {place.address, later.partition("/")[0]}
    ula, everywhere = sorted(own, reverse=True)
    assert place.pod.ip("route", "get", "fd00:9::9", family=6)[0]["prefsrc"] == ula
    assert place.pod.ip("route", "get", "2001:db8:9::9", family=6)[0]["prefsrc"] == everywhere
    assert place.sources() == own
    place.pod.run("ip", "addr", "del", f"{place.address}/64", "dev", "eth0")
    place.pod.run("ip", "-6", "route", "add", "default", "via", "fe80::1", "dev", "eth0", check=False)
    assert place.sources() == {later.partition("/")[0]}


def test_link_local_destinations_are_called_from_a_link_local_address(lab: Lab, held: ExitStack):
    place = attached(lab, held, network(ULA, sidecar={}))
    (own,) = [
        i["local"]
        for i in place.pod.ip("addr", "show", "dev", "eth0", family=6)[0]["addr_info"]
        if i["scope"] == "link"
    ]
    for target in ("fe80::9", "ff02::1"):
        assert place.pod.ip("route", "get", target, "dev", "eth0", family=6)[0]["prefsrc"] == own


def test_a_second_network_has_its_own_address(lab: Lab, held: ExitStack):
    place = attached(lab, held, network(ULA, sidecar={}))
    second = network("2001:db8:82::/64", sidecar={}, name="second", bridge="br1", isDefaultGateway=False)
    second["ipam"]["ranges"][0][0]["subnet"] = "10.2.0.0/24"
    result = place.host.add(second, place.pod, ifname="net1")
    assert place.pod.ip("route", "get", "2001:db8:82::9", family=6)[0]["prefsrc"] == address_of(result, 6)
    assert place.sources() == {place.address}
    place.host.delete_pod(second, place.pod, ifname="net1")
    assert place.sources() == {place.address}
    place.host.check(place.conf, place.pod, place.result).ok()


def test_check_names_a_label_that_is_lost(lab: Lab, held: ExitStack):
    place = attached(lab, held, network(ULA, sidecar={}))
    place.pod.run("ip", "addrlabel", "del", "prefix", "fd00::/8", "label", "1")
    words = "ip addrlabel prefix fd00::/8 label 1 is missing in the pod"
    assert words in place.host.check(place.conf, place.pod, place.result).failed(104)


@pytest.mark.parametrize("subnet", ["fd00:2::/64", "2001:db8:2::/64"])
def test_a_macvlan_pod_too(site: Site, pod: Pod, net: dict, held: ExitStack, subnet: str):
    span = {"subnet": subnet, "rangeStart": f"{subnet[:-3]}100", "rangeEnd": f"{subnet[:-3]}199"}
    route = {"dst": "::/0", "gw": f"{subnet[:-3]}12"}
    conf = net | {"ipam": {"ranges": [[net["ipam"]], [span]], "routes": [route]}, "sidecar": {"inboundPort": IN}}
    outside = site.outside
    sh("ip", "-n", outside.name, "addr", "add", f"{subnet[:-3]}12/64", "dev", "eth0", "nodad", check=False)
    for target in ELSEWHERE[:2]:
        sh("ip", "-n", outside.name, "addr", "add", f"{target}/128", "dev", "lo", "nodad")
    own = address_of(site.host.add(conf, pod), 6)
    far, proxy = held.enter_context(Actor(outside)), held.enter_context(Actor(pod, PROXY))
    far.listen("outside", 80)
    for target in ELSEWHERE[:2]:
        seen = proxy.connect(target, 80)
        assert (seen["who"], seen["peer"][0]) == ("outside", own)
    held.close()
    site.host.delete_pod(conf, pod)
