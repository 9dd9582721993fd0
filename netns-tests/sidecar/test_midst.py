"""Connections whose conntrack entry ran out: captured ones go on through the proxy, the others go on as they were."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from conntrack import forget
from interception import BACKENDS, IN, WEB, Scene, chained, network, staged
from lab import Lab, Pod, eventually
from traffic import PROXY, SHORTLY, Actor
from wire import Wire

FAMILIES = (4, 6)
HALF_CLOSED = {"fin_wait": 120, "close_wait": 60, "time_wait": 120}
SECRET = "for the proxy only"


@pytest.fixture(scope="module", params=[(b, m) for b in BACKENDS for m in ("redirect", "tproxy")], ids="-".join)
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    backend, mode = request.param
    lab = Lab(f"{__name__}[{backend}-{mode}] {os.environ.get('PYTEST_XDIST_WORKER')}")
    try:
        excluded = {"excludeOutboundPorts": [22], "excludeInboundPorts": [22]}
        made = staged(lab, {"backend": backend, "mode": mode, **excluded})
        with made.held:
            made.actors(transparent=mode == "tproxy")
            yield made
    finally:
        lab.close()


@pytest.fixture(params=FAMILIES, ids=["IPv4", "IPv6"])
def family(request: pytest.FixtureRequest) -> int:
    return request.param


def forget_before_the_answer(pod: Pod, speaker: Actor, listener: Actor, kept: str, text: str = "held") -> None:
    """Say something over a kept connection, and let the other end be the first that speaks after conntrack forgot it."""
    speaker.say(kept, text)
    assert eventually(lambda: text in [heard for _, heard in listener.heard()])
    forget(pod)
    listener.answer()


def test_the_application_speaks_first(scene: Scene, family: int):
    seen = scene.app.connect(scene.far_address(family), 80, keep="out")
    assert seen["who"] == "outbound"
    for _ in range(2):
        forget(scene.pod)
        with Wire(scene.far, "eth0") as wire:
            assert scene.app.echo("out", SECRET) == SECRET
        assert not wire.carried(SECRET.encode())


def test_the_client_speaks_first(scene: Scene, family: int):
    assert scene.outside.connect(scene.address(family), WEB, keep="in")["who"] == "inbound"
    for _ in range(2):
        forget(scene.pod)
        assert scene.outside.echo("in") == "still there"


@pytest.mark.tried(
    "the proxy half-closes, conntrack forgets, the application writes", "it reaches the proxy, never the wire"
)
def test_the_application_speaks_after_the_proxy_half_closed(scene: Scene, family: int):
    """The kernel forgets such a connection after a minute or two; here after a second."""
    keys = {f"net.netfilter.nf_conntrack_tcp_timeout_{state}": usual for state, usual in HALF_CLOSED.items()}
    scene.pod.run("sysctl", "-qw", *(f"{key}=1" for key in keys))
    try:
        assert scene.app.connect(scene.far_address(family), 80, keep="half")["who"] == "outbound"
        scene.app.say("half", "half")
        assert scene.app.hear("half") == "half"
        assert scene.app.hear("half") == "", "the proxy has said all it will"
        time.sleep(2.5)
        scene.proxy.heard()
        with Wire(scene.far, "eth0") as wire:
            scene.app.say("half", SECRET)
            assert SECRET in [text for _, text in scene.proxy.heard(1)]
        assert not wire.carried(SECRET.encode())
    finally:
        scene.pod.run("sysctl", "-qw", *(f"{key}={usual}" for key, usual in keys.items()))


@pytest.mark.tried("a connection idles longer than conntrack remembers", "it goes on through the proxy")
def test_it_idled_longer_than_the_kernel_remembers(scene: Scene, family: int):
    key = "net.netfilter.nf_conntrack_tcp_timeout_established"
    scene.pod.run("sysctl", "-qw", f"{key}=1")
    try:
        assert scene.app.connect(scene.far_address(family), 80, keep="idle")["who"] == "outbound"
        assert scene.outside.connect(scene.address(family), WEB, keep="idle")["who"] == "inbound"
        time.sleep(2.5)
        with Wire(scene.far, "eth0") as wire:
            assert scene.app.echo("idle", SECRET) == SECRET
        assert not wire.carried(SECRET.encode())
        assert scene.outside.echo("idle") == "still there"
    finally:
        scene.pod.run("sysctl", "-qw", f"{key}=432000")


def test_the_proxys_own_connection(scene: Scene, family: int):
    assert scene.proxy.connect(scene.far_address(family), 80, keep="own")["who"] == "outside"
    forget(scene.pod)
    with Wire(scene.far, "eth0") as wire:
        assert scene.proxy.echo("own", SECRET) == SECRET
    assert wire.carried(SECRET.encode()), "what is not captured is read on the wire"
    forget_before_the_answer(scene.pod, scene.proxy, scene.outside, "own")
    assert scene.proxy.hear("own") == "held", "the other end speaks first"


def test_an_excluded_connection_outbound(scene: Scene, family: int):
    assert scene.app.connect(scene.far_address(family), 22, keep="excluded")["who"] == "outside"
    forget(scene.pod)
    assert scene.app.echo("excluded") == "still there"
    forget_before_the_answer(scene.pod, scene.app, scene.outside, "excluded")
    assert scene.app.hear("excluded") == "held", "the other end speaks first"


def test_an_excluded_connection_inbound(scene: Scene, family: int):
    assert scene.outside.connect(scene.address(family), 22, keep="excluded")["who"] == "app"
    forget(scene.pod)
    assert scene.outside.echo("excluded") == "still there"
    forget_before_the_answer(scene.pod, scene.outside, scene.app, "excluded")
    assert scene.outside.hear("excluded") == "held", "the application speaks first"


def test_the_proxys_way_to_the_application(scene: Scene, family: int):
    source = {4: "127.0.0.6", 6: "::6"}[family]
    assert scene.proxy.connect(scene.address(family), WEB, source=[source, 0], keep="way")["who"] == "app"
    forget(scene.pod)
    assert scene.proxy.echo("way") == "still there"
    forget_before_the_answer(scene.pod, scene.proxy, scene.app, "way")
    assert scene.proxy.hear("way") == "held", "the application speaks first"


def test_the_pods_own_address(scene: Scene, family: int):
    assert scene.app.connect(scene.address(family), WEB, keep="self")["who"] == "app"
    forget(scene.pod)
    assert scene.app.echo("self") == "still there"
    forget_before_the_answer(scene.pod, scene.app, scene.app, "self")
    assert scene.app.hear("self") == "held"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", ["redirect", "tproxy"])
def test_the_guard_knows_a_captured_connection_again(lab: Lab, mode: str, backend: str):
    scene = staged(lab, {"backend": backend, "mode": mode, "denyUncaptured": True})
    with scene.held:
        scene.actors(transparent=mode == "tproxy")
        for family in FAMILIES:
            assert scene.app.connect(scene.far_address(family), 80, keep=f"out{family}")["who"] == "outbound"
            assert scene.outside.connect(scene.address(family), WEB, keep=f"in{family}")["who"] == "inbound"
            forget(scene.pod)
            assert scene.app.echo(f"out{family}") == scene.outside.echo(f"in{family}") == "still there"


@pytest.mark.parametrize("backend", BACKENDS)
def test_connections_from_before_a_hot_plugged_network_go_on(lab: Lab, backend: str):
    """The pod has run for long; its second network is its first with a sidecar."""
    scene = staged(lab, {"backend": backend})
    pod = lab.pod()
    scene.pod, scene.result = pod, scene.host.add(network(), pod)
    second = network({"backend": backend}) | {"name": "second", "bridge": "br1", "isDefaultGateway": False}
    second["ipam"]["ranges"] = [[{"subnet": "10.2.0.0/24"}]]
    with scene.held:
        scene.actors()
        for family in FAMILIES:
            assert scene.app.connect(scene.far_address(family), 80, keep=f"out{family}")["who"] == "outside"
            assert scene.outside.connect(scene.address(family), WEB, keep=f"in{family}")["who"] == "app"
        scene.host.add(second, pod, ifname="net1")
        for family in FAMILIES:
            assert scene.app.echo(f"out{family}") == scene.outside.echo(f"in{family}") == "still there"
            assert scene.app.reaches(scene.far_address(family), 80) == "outbound"
        scene.host.delete_pod(second, pod, ifname="net1")


@pytest.mark.parametrize("backend", BACKENDS)
def test_add_again_spares_no_captured_connection(lab: Lab, backend: str):
    """When it comes again, what is captured and forgotten looks like a connection from before."""
    host, pod, far, plain = lab.host(), lab.pod(), lab.pod(), network()
    scene = Scene(host, pod, far, network({"backend": backend}), host.add(plain, pod), host.add(plain, far))
    conf = chained(plain, backend=backend, inboundPort=IN, prevResult=scene.result)
    host.add(conf, pod)
    with scene.held:
        scene.actors()
        for family in FAMILIES:
            assert scene.app.connect(scene.far_address(family), 80, keep=f"out{family}")["who"] == "outbound"
        forget(pod)
        host.add(conf | {"excludeOutboundPorts": [22]}, pod)
        for family in FAMILIES:
            with Wire(far, "eth0") as wire:
                assert scene.app.echo(f"out{family}", SECRET) == SECRET
            assert not wire.carried(SECRET.encode())


@pytest.mark.parametrize("scene", [(b, "tproxy") for b in BACKENDS], ids="-".join, indirect=True)
def test_an_answer_to_a_transparent_proxy_never_reaches_the_client_itself(scene: Scene, family: int):
    """Conntrack knew it for the proxy's. The proxy speaking first mends it; the application speaking first ends it."""
    how = {"source": [scene.far_address(family), 41000 + family], "mark": PROXY, "transparent": True, "keep": "client"}
    assert scene.proxy.connect(scene.address(family), WEB, **how)["who"] == "app"
    forget(scene.pod)
    assert scene.proxy.echo("client") == "still there"
    with Wire(scene.far, "eth0") as wire:
        forget_before_the_answer(scene.pod, scene.proxy, scene.app, "client", f"held {SECRET}")
        assert scene.proxy.hear("client", seconds=SHORTLY) in (
            "",
            {"error": "ConnectionResetError"},
            {"error": "TimeoutError"},
        )
    assert not wire.carried(SECRET.encode())
