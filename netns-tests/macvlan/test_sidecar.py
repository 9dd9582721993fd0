"""Interception in a macvlan pod: its rules sit in the pod, and the wire is the physical one."""

from __future__ import annotations

import pytest
from interception import APP_UID, BACKENDS, IN, NOTHING, OUT, WEB, address_of, remains
from lab import Pod, Site
from traffic import PROXY, Actor


@pytest.mark.parametrize("backend", BACKENDS)
def test_both_directions_meet_the_proxy(site: Site, pod: Pod, dual: dict, backend: str):
    conf = dual | {"sidecar": {"inboundPort": IN, "backend": backend}}
    result = site.host.add(conf, pod)
    with Actor(pod, APP_UID) as app, Actor(pod, PROXY) as proxy, Actor(site.outside) as outside:
        app.listen("app", WEB)
        proxy.listen("inbound", IN)
        proxy.listen("outbound", OUT)
        outside.listen("outside", 80)
        for family, far in ((4, "192.0.2.12"), (6, "fd00:2::12")):
            own = address_of(result, family)
            assert outside.connect(own, WEB)["original"] == [own, WEB]
            assert app.connect(far, 80)["original"] == [far, 80]
            assert proxy.reaches(far, 80) == "outside"
    site.host.check(conf, pod, result).ok()
    pod.run(backend, "-t", "nat", "-F", "ACNI_OUTPUT")
    assert "ACNI_OUTPUT" in site.host.check(conf, pod, result).failed(104)
    site.host.delete_pod(conf, pod)
    assert remains(pod) == NOTHING


def test_a_failed_add_leaves_no_rules(site: Site, pod: Pod, net: dict):
    conf = net | {"sidecar": {"denyUncaptured": True}, "mtu": 1500}
    pod.run("ip", "link", "add", "eth0", "type", "bridge")
    site.host.cni("ADD", conf, pod).failed(101)
    assert remains(pod) == NOTHING


def test_status_knows_whether_the_rules_can_be_made(site: Site, net: dict):
    site.host.cni("STATUS", net | {"sidecar": {"mode": "tproxy", "captureDNS": True, "denyUncaptured": True}}).ok()
