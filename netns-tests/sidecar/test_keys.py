"""Each key of interception, with real traffic; what is not captured is seen to get through directly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from interception import APP_UID, BACKENDS, IN, WEB, Scene, network, staged
from lab import Lab
from traffic import PROXY, REFUSED, SHORTLY, TIMED_OUT

FAMILIES = (4, 6)
Stage = Callable[..., Scene]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def stage(lab: Lab, backend: str) -> Iterator[Stage]:
    """Put a scene up: a pod intercepted as the keys say, with its actors."""
    with ExitStack() as held:

        def put_up(**keys: Any) -> Scene:
            scene = staged(lab, {"backend": backend, **keys})
            held.enter_context(scene.held)
            scene.actors(transparent=keys.get("mode") == "tproxy")
            return scene

        yield put_up


def test_excluded_ports_connect_directly_both_ways(stage: Stage):
    scene = stage(excludeInboundPorts=[22], excludeOutboundPorts=[22])
    for family in FAMILIES:
        assert scene.outside.reaches(scene.address(family), 22) == "app"
        assert scene.outside.reaches(scene.address(family), WEB) == "inbound"
        assert scene.app.reaches(scene.far_address(family), 22) == "outside"
        assert scene.app.reaches(scene.far_address(family), 80) == "outbound"
        assert scene.proxy.reaches(scene.address(family), 22) == "inbound", "an excluded port is no excluded hairpin"


def test_excluded_inbound_ports_are_excluded_with_tproxy_too(stage: Stage):
    scene = stage(mode="tproxy", excludeInboundPorts=[22])
    for family in FAMILIES:
        assert scene.outside.reaches(scene.address(family), 22) == "app"
        assert scene.outside.reaches(scene.address(family), WEB) == "inbound"


def test_only_included_ports_are_captured(stage: Stage):
    scene = stage(includeInboundPorts=[WEB], includeOutboundCIDRs=[], includeOutboundPorts=[443])
    for family in FAMILIES:
        assert scene.outside.reaches(scene.address(family), WEB) == "inbound"
        assert scene.outside.reaches(scene.address(family), 22) == "app"
        assert scene.app.reaches(scene.far_address(family), 443) == "outbound"
        assert scene.app.reaches(scene.far_address(family), 80) == "outside"


def test_an_empty_list_captures_nothing(stage: Stage):
    scene = stage(includeInboundPorts=[], includeOutboundCIDRs=[])
    for family in FAMILIES:
        assert scene.outside.reaches(scene.address(family), WEB) == "app"
        assert scene.app.reaches(scene.far_address(family), 80) == "outside"
        assert scene.far.pings(scene.address(family)), "what follows drops this"
        assert scene.lines(family) == []


def test_the_single_rule_of_the_documents_can_be_said(stage: Stage):
    scene = stage(includeOutboundCIDRs=[], inboundPort=15001)
    assert scene.lines(4)[-2:] == [
        "-A ACNI_INBOUND -p tcp -j ACNI_IN_REDIRECT",
        "-A ACNI_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15001",
    ]
    assert scene.outside.reaches(scene.address(4), WEB) == "outbound"


def test_cidrs_include_and_exclude_and_exclusion_wins(stage: Stage):
    scene = stage(
        includeOutboundCIDRs=["10.1.0.0/16", "fd00:1::/64"],
        excludeOutboundCIDRs=["10.1.0.2/32", "fd00:1::2/128"],
        includeOutboundPorts=[443],
    )
    for family in FAMILIES:
        assert scene.far_address(family) in ("10.1.0.2", "fd00:1::2")
        assert scene.app.reaches(scene.far_address(family), 80) == "outside"
        assert scene.app.reaches(scene.far_address(family), 443) == "outside"
    assert scene.app.reaches("10.1.0.77", 80) == "outbound"
    assert scene.app.reaches("fd00:1::77", 80) == "outbound"
    assert scene.app.reaches("192.0.2.1", 443) == "outbound"


def test_excluded_interfaces_are_left_alone(stage: Stage):
    scene = stage(excludeInterfaces=["eth0"])
    for family in FAMILIES:
        assert scene.outside.reaches(scene.address(family), WEB) == "app"
        assert scene.app.reaches(scene.far_address(family), 80) == "outside"


def test_groups_include_and_exclude(stage: Stage):
    scene = stage(ownerGroups={"include": [2000, 2001], "exclude": [2001]})
    members = {gid: scene.actor(scene.pod, APP_UID, gid) for gid in (2000, 2001, 2002)}
    for family in FAMILIES:
        reached = {gid: actor.reaches(scene.far_address(family), 80) for gid, actor in members.items()}
        assert reached == {2000: "outbound", 2001: "outside", 2002: "outside"}


def test_several_proxies_have_their_hairpins_and_their_way_out(stage: Stage):
    scene = stage(proxyUIDs=[1337, 1338], proxyGIDs=[1339])
    proxies = [scene.actor(scene.pod, *ids) for ids in ((1337, 7), (1338, 7), (7, 1339))]
    for family in FAMILIES:
        for proxy in proxies:
            assert proxy.reaches(scene.address(family), WEB) == "inbound"
            assert proxy.reaches(scene.far_address(family), 80) == "outside"


def test_dns_goes_to_the_proxy_and_the_proxys_own_to_the_resolver(stage: Stage):
    scene = stage(captureDNS=True)
    scene.proxy.listen("dns", 15053, "127.0.0.1", "::1", udp=True)
    scene.proxy.listen("dns", 15053)
    for family in FAMILIES:
        resolver = scene.far_address(family)
        assert scene.app.ask(resolver, 53)["who"] == "dns"
        assert scene.app.ask(resolver, 53)["from"] == [resolver, 53], "the answer comes from where it was asked"
        assert scene.app.reaches(resolver, 53) == "dns"
        assert scene.proxy.ask(resolver, 53)["who"] == "outside"
        assert scene.app.ask(resolver, 123)["who"] == "outside"
        source = [scene.address(family), 45000]
        assert scene.app.ask(resolver, 53, source=source)["who"] == "dns"
        assert scene.proxy.ask(resolver, 53, source=source)["who"] == "outside", "two zones: no loop over one port"


def test_only_the_pods_resolvers_are_captured_where_they_are_known(lab: Lab, backend: str):
    scene = staged(lab, {"backend": backend, "captureDNS": True})
    host, pod = scene.host, lab.pod()
    dns = {"nameservers": ["10.1.0.99", "fd00:1::99"]}
    conf = network({"backend": backend, "captureDNS": True}) | {"dns": dns}
    scene.pod, scene.conf, scene.result = pod, conf, host.add(conf, pod)
    with scene.held:
        scene.actors()
        scene.proxy.listen("dns", 15053, "127.0.0.1", "::1", udp=True)
        for family in FAMILIES:
            assert scene.app.ask(dns["nameservers"][family == 6], 53)["who"] == "dns"
            assert scene.app.ask(scene.far_address(family), 53)["who"] == "outside"


@pytest.mark.tried("captureDNS with resolvers of one family", "DNS is captured, the proxy's own passes")
@pytest.mark.parametrize("said", ["runtimeConfig", "dns"])
def test_resolvers_of_one_family(lab: Lab, backend: str, said: str):
    """A cluster's DNS has IPv4 addresses only: there is nothing to capture in IPv6, and all else is as ever."""
    scene = staged(lab, {"backend": backend})
    for number, servers in enumerate((["10.1.0.2"], ["fd00:1::2"])):
        named = (
            {"runtimeConfig": {"dns": {"servers": servers}}}
            if said == "runtimeConfig"
            else {"dns": {"nameservers": servers}}
        )
        conf = network({"backend": backend, "captureDNS": True, "denyUncaptured": bool(number)}) | named
        scene.host.cni("STATUS", conf).ok()
        pod = lab.pod()
        scene.pod, scene.conf, scene.result = pod, conf, scene.host.add(conf, pod)
        scene.host.check(conf, pod, scene.result).ok()
        with scene.held:
            scene.actors()
            scene.proxy.listen("dns", 15053, "127.0.0.1", "::1", udp=True)
            for family in FAMILIES:
                captured = (":" in servers[0]) == (family == 6)
                assert scene.far_address(family) in ("10.1.0.2", "fd00:1::2")
                if captured or not number:
                    who = "dns" if captured else "outside"
                    assert scene.app.ask(scene.far_address(family), 53)["who"] == who
                else:
                    assert scene.app.ask(scene.far_address(family), 53, seconds=SHORTLY)["error"] in (
                        "TimeoutError",
                        "PermissionError",
                    )
                assert scene.proxy.ask(scene.far_address(family), 53)["who"] == "outside"
                assert scene.app.reaches(scene.far_address(family), 80) == "outbound"
        scene.host.delete_pod(conf, pod)


def test_what_comes_from_a_virtual_interface_is_outbound(stage: Stage):
    scene = stage(virtInterfaces=["vm0"], excludeOutboundPorts=[22])
    machine = scene.host.__class__(f"vm-{scene.pod.name}")
    machine.create()
    try:
        pod, far = scene.pod.name, scene.far
        for line in (
            f"-n {pod} link add vm0 type veth peer name eth0 netns {machine.name}",
            f"-n {pod} addr add 172.30.0.1/24 dev vm0",
            f"-n {pod} link set vm0 up",
            f"-n {machine.name} addr add 172.30.0.2/24 dev eth0",
            f"-n {machine.name} link set eth0 up",
            f"-n {machine.name} route add default via 172.30.0.1",
            f"-n {far.name} route add 172.30.0.0/24 via {scene.address(4)}",
        ):
            scene.pod.run("ip", *line.split())
        scene.pod.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        inside = scene.actor(machine)
        assert inside.reaches(scene.far_address(4), 80) == "outbound"
        assert inside.reaches(scene.far_address(4), 22) == "outside"
    finally:
        machine.delete()


def test_invalid_packets_are_dropped(stage: Stage):
    scene = stage(dropInvalid=True)
    for family in FAMILIES:
        assert any("--ctstate INVALID -j DROP" in line for line in scene.lines(family))
        assert scene.outside.reaches(scene.address(family), WEB) == "inbound"


# --- zero trust


def test_what_is_not_captured_is_dropped(stage: Stage):
    scene = stage(denyUncaptured=True, includeInboundPorts=[WEB], excludeOutboundPorts=[22], excludeInboundPorts=[22])
    scene.app.listen("app", 9999, udp=True)
    for family in FAMILIES:
        far, own = scene.far_address(family), scene.address(family)
        assert scene.app.reaches(far, 80) == "outbound"
        assert scene.app.reaches(far, 22) == "outside"
        assert scene.app.ask(far, 123, seconds=SHORTLY)["error"] in ("TimeoutError", "PermissionError")
        assert scene.app.ask(far, 53)["who"] == "outside"
        assert scene.app.reaches(own, WEB) == "app"
        assert scene.proxy.ask(far, 123)["who"] == "outside"
        assert scene.outside.reaches(own, WEB) == "inbound"
        assert scene.outside.reaches(own, 22) == "app"
        assert scene.outside.connect(own, 9000) == TIMED_OUT
        assert scene.outside.ask(own, 9999, seconds=SHORTLY) == TIMED_OUT
        assert not scene.far.pings(own, 1)


@pytest.mark.parametrize("mode", ["redirect", "tproxy"])
def test_an_excluded_port_is_excluded_for_tcp_and_udp(stage: Stage, mode: str):
    scene = stage(denyUncaptured=True, excludeOutboundPorts=[123, 22], excludeInboundPorts=[9999, 22], mode=mode)
    for port in (9998, 9999):
        scene.app.listen("app", port, udp=True)
    for family in FAMILIES:
        far, own = scene.far_address(family), scene.address(family)
        assert scene.app.ask(far, 123)["who"] == "outside"
        assert scene.app.reaches(far, 22) == "outside"
        assert scene.outside.ask(own, 9999)["who"] == "app"
        assert scene.outside.reaches(own, 22) == "app"
        assert scene.outside.ask(own, 9998, seconds=SHORTLY) == TIMED_OUT
        assert scene.app.ask(far, 124, seconds=SHORTLY)["error"] in ("TimeoutError", "PermissionError")


def test_the_guard_holds_without_the_redirect(stage: Stage, backend: str):
    scene = stage(denyUncaptured=True)
    program = backend.replace("-", "-", 1)
    for family in FAMILIES:
        tables = program if family == 4 else program.replace("iptables", "ip6tables")
        assert scene.app.reaches(scene.far_address(family), 80) == "outbound"
        scene.pod.run(tables, "-t", "nat", "-F")
        assert scene.app.connect(scene.far_address(family), 80)["error"] in ("TimeoutError", "PermissionError")
        assert scene.outside.connect(scene.address(family), WEB) == TIMED_OUT
        assert scene.proxy.reaches(scene.far_address(family), 80) == "outside"


def test_the_inbound_port_itself_is_no_way_in(stage: Stage):
    scene = stage(denyUncaptured=True, includeInboundPorts=[WEB])
    for family in FAMILIES:
        assert scene.outside.reaches(scene.address(family), WEB) == "inbound"
        assert scene.outside.connect(scene.address(family), IN) == TIMED_OUT


def test_the_guard_and_a_transparent_proxy(stage: Stage):
    scene = stage(denyUncaptured=True, mode="tproxy", excludeInboundPorts=[22])
    for family in FAMILIES:
        assert scene.outside.reaches(scene.address(family), WEB) == "inbound"
        assert scene.outside.reaches(scene.address(family), 22) == "app"
        assert scene.app.reaches(scene.far_address(family), 80) == "outbound"
        assert not scene.far.pings(scene.address(family), 1)


def test_the_guard_drops_what_virtual_machines_send_around_the_proxy(stage: Stage):
    scene = stage(denyUncaptured=True, virtInterfaces=["vm0"])
    for family in FAMILIES:
        assert "-A ACNI_GUARD_FORWARD -i vm0 -j DROP" in scene.lines(family)


# --- the proxy is not there, or comes later


def test_until_the_proxy_listens_connections_are_refused(lab: Lab, backend: str):
    scene = staged(lab, {"backend": backend})
    with scene.actor(scene.pod, APP_UID) as app, scene.actor(scene.far) as outside:
        app.listen("app", WEB)
        outside.listen("outside", 80)
        for family in FAMILIES:
            assert app.connect(scene.far_address(family), 80) == REFUSED
            assert outside.connect(scene.address(family), WEB) == REFUSED
        with scene.actor(scene.pod, PROXY) as proxy:
            assert proxy.reaches(scene.far_address(4), 80) == "outside", "somebody was listening"


@pytest.mark.parametrize("mode", ["redirect", "tproxy"])
def test_connections_from_before_the_rules_go_on(lab: Lab, backend: str, mode: str):
    host, plain = lab.host(), network()
    chained = {"cniVersion": "1.1.0", "name": "mesh", "type": "sidecar-redirect", "backend": backend, "mode": mode}
    pod, far = lab.pod(), lab.pod()
    scene = Scene(host, pod, far, network({"backend": backend}), host.add(plain, pod), host.add(plain, far))
    with scene.held:
        scene.actors(transparent=mode == "tproxy")
        for family in FAMILIES:
            assert scene.app.connect(scene.far_address(family), 80, keep=f"out{family}")["who"] == "outside"
            assert scene.outside.connect(scene.address(family), WEB, keep=f"in{family}")["who"] == "app"
        host.add(chained | {"prevResult": scene.result, "inboundPort": IN}, pod)
        for family in FAMILIES:
            assert scene.app.echo(f"out{family}") == scene.outside.echo(f"in{family}") == "still there"
            assert scene.app.reaches(scene.far_address(family), 80) == "outbound"
            assert scene.outside.reaches(scene.address(family), WEB) == "inbound"
