"""Pods in a real Consul agent: registered, found unhealthy by its own checks, asked over HTTP and DNS, and gone with them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from consul import CONSUL, Consul
from lab import Host, Lab, Pod, eventually
from names import Names, Web, asked

pytestmark = [
    pytest.mark.sweep,
    pytest.mark.skipif(not CONSUL.exists(), reason="there is no Consul: make consul-test builds it"),
]


@pytest.fixture
def conf(conf: dict[str, Any]) -> dict[str, Any]:
    health = {"http": "/healthz", "port": 8080, "interval": 1, "failures": 1, "passes": 1}
    return conf | {"names": {"consul": Consul.url}, "health": health, "ipam": {"subnet": "10.1.0.0/24"}}


@pytest.fixture
def consul(node: Host) -> Iterator[Consul]:
    with Consul(node) as made:
        yield made


def started(node: Host, conf: dict[str, Any], pod: Pod, name: str) -> str:
    """A pod with a name; its address."""
    return node.add(conf, pod, CNI_ARGS=f"IgnoreUnknown=1;K8S_POD_NAME={name}")["ips"][0]["address"].split("/")[0]


def test_a_pod_is_a_service_that_consul_itself_finds_critical(
    node: Host, lab: Lab, conf: dict[str, Any], consul: Consul, tmp_path: Path
):
    pod = lab.pod()
    address = started(node, conf, pod, "web")
    with Web(pod, tmp_path / "web") as web, Names(node):
        assert eventually(lambda: consul.health("web") == [(address, 8080, ["passing"])])
        assert asked(node, "127.0.0.1", "web.service.consul", port=8600) == [address]
        web.say("500 Internal Server Error", address)
        assert eventually(lambda: consul.health("web") == [(address, 8080, ["critical"])])
        assert asked(node, "127.0.0.1", "web.service.consul", port=8600) == []
        assert {line.split()[1] for line in web.asked()} == {"/healthz"}
        (service,) = consul.services().values()
        assert service["Meta"]["network"] == "net"
        web.say("200 OK", address)
        assert eventually(lambda: consul.health("web") == [(address, 8080, ["passing"])])
        node.delete_pod(conf, pod)
        assert eventually(lambda: consul.services() == {})


def test_a_redirection_is_led_nowhere(node: Host, lab: Lab, conf: dict[str, Any], consul: Consul, tmp_path: Path):
    pod = lab.pod()
    address = started(node, conf, pod, "web")
    with Web(pod, tmp_path / "web") as web, Names(node):
        web.say("302 Found", address)
        assert eventually(lambda: consul.health("web"))
        time.sleep(3)
        assert not [line for line in web.asked() if "elsewhere" in line]
        node.delete_pod(conf, pod)
        assert eventually(lambda: consul.services() == {})


def test_what_consul_lost_it_is_told_again_and_others_services_are_left(
    node: Host, lab: Lab, conf: dict[str, Any], consul: Consul
):
    """A `-dev` agent knows nothing when it begins anew."""
    conf.pop("health")
    pods = [lab.pod() for _ in range(3)]
    for number, pod in enumerate(pods):
        started(node, conf, pod, f"web{number}")
    consul.register(
        {"ID": "other", "Name": "other", "Meta": {"external-source": "agent-cni", "agent-cni-node": "elsewhere"}}
    )
    with Names(node) as names:
        assert eventually(
            lambda: {it["Service"] for it in consul.services().values()} == {"web0", "web1", "web2", "other"}
        )
        lost = next(key for key, it in consul.services().items() if it["Service"] == "web1")
        consul.deregister(lost)
        assert eventually(lambda: lost in consul.services())
        consul.kill()
        began = time.monotonic()
        node.delete_pod(conf, pods[0])
        assert time.monotonic() - began < 10, "nobody waits for it"
        assert eventually(lambda: "127.0.0.1:8500" in names.said())
        consul.start()
        assert eventually(lambda: {it["Service"] for it in consul.services().values()} == {"web1", "web2"})
        for pod in pods[1:]:
            node.delete_pod(conf, pod)
        assert eventually(lambda: consul.services() == {})


def test_what_went_while_no_daemon_ran_is_told_by_the_next(node: Host, lab: Lab, conf: dict[str, Any], consul: Consul):
    """Also of the last pod, with which goes what says where Consul is."""
    conf.pop("health")
    pod = lab.pod()
    started(node, conf, pod, "web")
    with Names(node) as names:
        assert eventually(lambda: len(consul.services()) == 1)
        names.kill()
        node.delete_pod(conf, pod)
        assert len(consul.services()) == 1
        names.start()
        assert eventually(lambda: consul.services() == {})
