"""IPv6 that is off, on, or switched in between: it is captured wherever the pod can speak it, and fails nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from interception import APP_UID, BACKENDS, IN, NOTHING, OUT, WEB, address_of, chained, network, remains
from lab import Host, Lab, Pod, eventually
from traffic import PROXY, SHORTLY, Actor

IPV4_ONLY = {"ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}]]}}


@pytest.fixture
def held() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


def switch(pod: Pod, where: str, off: bool) -> None:
    pod.run("sysctl", "-qw", f"net.ipv6.conf.{where}.disable_ipv6={int(off)}")


def rules(pod: Pod, backend: str) -> str:
    return pod.run(f"{backend.replace('iptables', 'ip6tables')}-save").stdout


def link_local(where: Any, link: str) -> str:
    """A link's own address, once it may be used."""

    def usable() -> list[str]:
        infos = [i for item in where.ip("addr", "show", "dev", link, family=6) for i in item["addr_info"]]
        return [info["local"] for info in infos if info["scope"] == "link" and not info.get("tentative")]

    return f"{eventually(usable)[0]}"


@pytest.mark.tried("IPv6 off by default in the pod while an interface speaks it", "captured and guarded")
def test_link_local_traffic_is_captured_where_ipv6_is_off_by_default(
    host: Host, pod: Pod, lab: Lab, held: ExitStack, backend: str
):
    """The node's default for new interfaces is off; eth0 speaks IPv6 all the same, by whoever switched it on."""
    sidecar = {"inboundPort": IN, "denyUncaptured": True, "backend": backend}
    switch(pod, "default", off=True)
    conf = network(sidecar) | IPV4_ONLY
    result = host.add(conf, pod)
    far = lab.pod()
    host.add(network() | IPV4_ONLY, far)
    switch(pod, "eth0", off=False)
    own, other = link_local(pod, "eth0"), link_local(far, "eth0")
    app, outside = held.enter_context(Actor(pod, APP_UID)), held.enter_context(Actor(far))
    app.listen("app", 9999, udp=True)
    app.listen("app", WEB)
    outside.listen("outside", 123, udp=True)
    assert app.ask(f"{other}%eth0", 123, seconds=SHORTLY)["error"] in ("TimeoutError", "PermissionError")
    assert outside.ask(f"{own}%eth0", 9999, seconds=SHORTLY)["error"] == "TimeoutError"
    scope = far.link("eth0")["ifindex"]
    assert outside.reaches(own, WEB, scope=scope) == "ConnectionRefusedError", "no proxy listens"
    with Actor(pod, PROXY) as proxy:
        assert proxy.ask(f"{other}%eth0", 123)["who"] == "outside"
    assert "ACNI_GUARD_OUT" in rules(pod, backend)
    words = host.check(conf, pod, result).failed(104)
    assert words.endswith("address ::6/128 is missing on eth0 in the pod"), words


@pytest.mark.parametrize("mode", ["redirect", "tproxy"])
@pytest.mark.parametrize("where", ["eth0", "all"])
def test_ipv6_switched_off_before_the_chained_plugin(
    host: Host, pod: Pod, lab: Lab, held: ExitStack, where: str, mode: str, backend: str
):
    result, far = host.add(network(), pod), lab.pod()
    target = address_of(host.add(network(), far), 4)
    switch(pod, where, off=True)
    given = result | {"ips": [ip for ip in result["ips"] if ":" not in ip["address"]]}
    conf = chained(network(), mode=mode, inboundPort=IN, backend=backend, prevResult=given)
    host.add(conf, pod)
    host.check(conf, pod, given).ok()
    assert "ACNI_OUTPUT" in rules(pod, backend)
    app, outside, proxy = (held.enter_context(Actor(*who)) for who in ((pod, APP_UID), (far,), (pod, PROXY)))
    outside.listen("outside", 80)
    proxy.listen("outbound", OUT, "0.0.0.0")
    proxy.listen("inbound", IN, "0.0.0.0", transparent=True)
    assert app.reaches(target, 80) == "outbound"
    assert proxy.reaches(target, 80) == "outside"
    assert outside.reaches(address_of(result, 4), WEB) == "inbound"
    host.delete_pod(conf, pod)
    assert remains(pod) == NOTHING


@pytest.mark.parametrize("mode", ["redirect", "tproxy"])
def test_ipv6_switched_off_after_add_is_no_drift(host: Host, pod: Pod, mode: str):
    conf = network({"mode": mode}) | IPV4_ONLY
    result = host.add(conf, pod)
    host.check(conf, pod, result).ok()
    switch(pod, "all", off=True)
    host.check(conf, pod, result).ok()
    switch(pod, "all", off=False)
    assert "address ::6/128 is missing" in host.check(conf, pod, result).failed(104)
    host.delete_pod(conf, pod)


def test_a_pod_whose_mtu_is_too_small_for_ipv6(host: Host, pod: Pod):
    conf = network({}) | IPV4_ONLY | {"mtu": 1000}
    result = host.add(conf, pod)
    host.check(conf, pod, result).ok()
    assert "ACNI_OUTPUT" in rules(pod, "iptables-nft")
    host.delete_pod(conf, pod)


def test_a_pod_without_ipv6_at_all_has_rules_of_both_families(host: Host, pod: Pod):
    switch(pod, "default", off=True)
    switch(pod, "all", off=True)
    conf = network({}) | IPV4_ONLY
    result = host.add(conf, pod)
    host.check(conf, pod, result).ok()
    assert "ACNI_OUTPUT" in rules(pod, "iptables-nft")
    host.delete_pod(conf, pod)
    assert remains(pod) == NOTHING
