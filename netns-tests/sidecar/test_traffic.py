"""What traffic must do in a pod with interception: the list in docs/sidecar.md, line by line, with real traffic."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from interception import BACKENDS, IN, OUT, WEB, Scene, staged
from lab import Lab
from traffic import PROXY

FAMILIES = (4, 6)
LOCAL = {4: "127.0.0.1", 6: "::1"}
PASSTHROUGH = {4: "127.0.0.6", 6: "::6"}


@pytest.fixture(scope="module", params=[(b, m) for b in BACKENDS for m in ("redirect", "tproxy")], ids="-".join)
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    backend, mode = request.param
    lab = Lab(f"{__name__}[{backend}-{mode}] {os.environ.get('PYTEST_XDIST_WORKER')}")  # each worker has its own
    try:
        made = staged(lab, {"backend": backend, "mode": mode})
        made.transparent = mode == "tproxy"
        with made.held:
            made.actors(transparent=made.transparent)
            yield made
    finally:
        lab.close()


@pytest.fixture(params=FAMILIES, ids=["IPv4", "IPv6"])
def family(request: pytest.FixtureRequest) -> int:
    return request.param


def test_inbound_meets_the_proxy_and_knows_where_it_was_going(scene: Scene, family: int):
    seen = scene.outside.connect(scene.address(family), WEB)
    assert seen["who"] == "inbound"
    assert (seen["local"] if scene.transparent else seen["original"]) == [scene.address(family), WEB]
    assert seen["peer"][0] == scene.far_address(family)


def test_inbound_to_any_port_meets_the_proxy(scene: Scene, family: int):
    assert scene.outside.reaches(scene.address(family), 22) == "inbound"
    assert scene.outside.reaches(scene.address(family), 4711) == "inbound"


def test_outbound_meets_the_proxy_and_knows_where_it_was_going(scene: Scene, family: int):
    seen = scene.app.connect(scene.far_address(family), 80)
    assert (seen["who"], seen["original"]) == ("outbound", [scene.far_address(family), 80])


def test_the_proxy_itself_reaches_the_outside(scene: Scene, family: int):
    seen = scene.proxy.connect(scene.far_address(family), 80)
    assert (seen["who"], seen["peer"][0]) == ("outside", scene.address(family))


@pytest.mark.parametrize(("uid", "gid"), [(PROXY, 5), (5, PROXY)])
def test_one_id_of_the_proxy_is_enough(scene: Scene, family: int, uid: int, gid: int):
    with scene.held.enter_context(scene.actor(scene.pod, uid, gid)) as other:
        assert other.reaches(scene.far_address(family), 80) == "outside"
        assert other.reaches(scene.address(family), WEB) == "inbound"


def test_loopback_is_local(scene: Scene, family: int):
    assert scene.app.reaches(LOCAL[family], 9000) == "local"
    assert scene.proxy.reaches(LOCAL[family], 9000) == "local"


def test_the_pods_own_address_is_local_to_the_application(scene: Scene, family: int):
    assert scene.app.reaches(scene.address(family), WEB) == "app"


def test_the_proxy_calling_the_pods_own_address_is_inbound(scene: Scene, family: int):
    seen = scene.proxy.connect(scene.address(family), WEB)
    assert seen["who"] == "inbound"
    assert (seen["local"] if scene.transparent else seen["original"]) == [scene.address(family), WEB]


def test_the_proxy_reaches_the_application_from_the_passthrough_address(scene: Scene, family: int):
    seen = scene.proxy.connect(scene.address(family), WEB, source=[PASSTHROUGH[family], 0])
    assert (seen["who"], seen["peer"][0]) == ("app", PASSTHROUGH[family])
    assert scene.proxy.reaches(LOCAL[family], 9000, source=[PASSTHROUGH[family], 0]) == "local"


def test_udp_is_untouched(scene: Scene, family: int):
    said = scene.app.ask(scene.far_address(family), 123)
    assert (said["who"], said["peer"][0]) == ("outside", scene.address(family))
    assert scene.app.ask(scene.far_address(family), 53)["who"] == "outside"


@pytest.mark.parametrize("scene", [(b, "tproxy") for b in BACKENDS], ids="-".join, indirect=True)
def test_a_transparent_proxy_speaks_to_the_application_with_the_clients_address(scene: Scene, family: int):
    client = scene.far_address(family)
    seen = scene.proxy.connect(scene.address(family), WEB, source=[client, 40000], mark=PROXY, transparent=True)
    assert (seen["who"], seen["peer"]) == ("app", [client, 40000])


def test_the_rules_are_those_of_the_backend_and_no_other(scene: Scene, family: int):
    other = next(name for name in BACKENDS if name != scene.conf["sidecar"]["backend"])
    assert len(scene.lines(family)) > 10
    if other == "iptables-nft":
        assert scene.pod.run("nft", "list", "ruleset").stdout == ""
    else:
        assert scene.pod.run("cat", "/proc/net/ip_tables_names").stdout == ""


def test_check_is_content(scene: Scene):
    scene.host.check(scene.conf, scene.pod, scene.result).ok()


def test_ports_are_what_was_asked(scene: Scene):
    text = "\n".join(scene.lines(4))
    assert f"--to-ports {OUT}" in text
    assert f"{'--on-port' if scene.transparent else '--to-ports'} {IN}" in text
