"""Pods of real calls that are probed: on their own host, and told to the others of a cluster."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, Node, Placed, conf
from lab import AGENT_CNI, Host, Lab, eventually
from names import Names, Web, asked

INTERVAL = 0.5


def probed(mode: str) -> dict[str, Any]:
    health = {"http": ":8080/healthz", "interval": INTERVAL, "timeout": INTERVAL, "failures": 2, "passes": 2}
    return conf(mode, block=16) | {"names": {}, "health": health}


def attached(cluster: Cluster, node: Node, net: dict[str, Any], name: str) -> Placed:
    return cluster.add(node, net, CNI_ARGS=f"IgnoreUnknown=1;K8S_POD_NAME={name}")


def answers(placed: Placed, name: str) -> list[str]:
    try:
        return asked(placed.pod, placed.result["dns"]["nameservers"][0], name)
    except TimeoutError:
        return []


def shown(host: Host) -> dict[str, str]:
    rows = json.loads(host.run(AGENT_CNI, "show", "--json").stdout)["names"]
    return {row["pod"] or row["names"][0]: row["health"] for row in rows}


@pytest.mark.parametrize("mode", ["l2", "l3"])
def test_a_pod_that_is_not_well_is_answered_on_no_host(lab: Lab, mode: str, tmp_path: Path):
    with Cluster(lab, 2) as cluster, ExitStack() as held:
        cluster.join()
        one, two = cluster.nodes
        daemons = [held.enter_context(Names(node)) for node in cluster.nodes]
        net = probed(mode)
        asking = attached(cluster, one, net | {"health": {}}, "asking")
        web = attached(cluster, two, net, "web")
        time.sleep(3 * INTERVAL)
        assert answers(asking, "web") == [], "nothing serves there yet"
        served = held.enter_context(Web(web.pod, tmp_path / "web"))
        address = web.address(4)
        assert eventually(lambda: answers(asking, "web") == [address])

        for status, there in (
            ("503 Service Unavailable", False),
            ("200 OK", True),
            ("silent", False),
            ("204 No Content", True),
        ):
            began = time.monotonic()
            served.say(status, address)
            assert eventually(lambda is_=there: answers(asking, "web") == [address] * is_)
            took = time.monotonic() - began
            # two probes count: the first may be an interval away, the second is after another, and waits for its timeout
            print(f"{mode}: {status}: told to the other host after {took:.2f} s")
            assert took < 3 * INTERVAL + INTERVAL + 1
            assert answers(asking, "asking") == [asking.address(4)]

        served.say("500 Internal Server Error", address)
        assert eventually(lambda: answers(asking, "web") == [])
        daemons[1].kill()
        two.kill()
        served.say("200 OK", address)
        cluster.join(two)
        daemons[1].start()
        assert eventually(lambda: answers(asking, "web") == [address])
        cluster.remove(web)
        assert eventually(lambda: answers(asking, "web") == [])


def test_health_of_a_configuration_and_of_a_pods_annotation(host: Host, lab: Lab, conf: dict[str, Any], tmp_path: Path):
    conf |= {
        "names": {},
        "health": {"tcp": 8080, "interval": 0.2},
        "capabilities": {"io.kubernetes.cri.pod-annotations": True},
    }
    said = {"names.agent-cni.dev/health": '{"http": "/own", "port": 8080, "interval": "1s", "failures": 1}'}
    annotated = conf | {"runtimeConfig": {"io.kubernetes.cri.pod-annotations": said}}
    one, two, none = (lab.pod() for _ in range(3))
    host.add(conf, one, CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAMESPACE=a;K8S_POD_NAME=one")
    result = host.add(annotated, two, CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAMESPACE=a;K8S_POD_NAME=two")
    assert shown(host) == {"a/one": "not yet", "a/two": "not yet"}
    with ExitStack() as held:
        webs = [held.enter_context(Web(pod, tmp_path / pod.name)) for pod in (one, two)]
        held.enter_context(Names(host))
        assert eventually(lambda: shown(host) == {"a/one": "healthy", "a/two": "healthy"})
        assert eventually(lambda: asked(host, "10.1.0.1", "two.a.net") == ["10.1.0.3"])
        assert {line.split()[1] for line in webs[1].asked()} == {"/own"}
        webs[1].say("500 Internal Server Error", "10.1.0.3")
        assert eventually(lambda: shown(host) == {"a/one": "healthy", "a/two": "unhealthy"})
        assert asked(host, "10.1.0.1", "two.a.net") == []
        host.check(annotated, two, result, CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAMESPACE=a;K8S_POD_NAME=two").ok()
        host.run(AGENT_CNI, "refresh")
        assert shown(host)["a/two"] == "unhealthy", "a refresh makes nobody well"
        doctor = json.loads(host.run(AGENT_CNI, "doctor", "--json", "--config", "/nowhere", check=False).stdout)
        assert [item for area in ("attachments", "names") for item in doctor[area]] == []
        metrics = host.run(AGENT_CNI, "metrics").stdout
        assert 'agent_cni_names_unhealthy{network="net"} 1' in metrics
        host.delete_pod(annotated, two)
        host.add(
            conf | {"name": "net", "health": {}}, none, CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAMESPACE=a;K8S_POD_NAME=two"
        )
        assert eventually(lambda: asked(host, "10.1.0.1", "two.a.net") != [])
    for pod, with_ in ((one, conf), (none, conf)):
        host.delete_pod(with_, pod)
    assert [file for file in host.names.rglob("*") if file.is_file()] == []


def test_pods_come_and_go_while_they_are_probed(host: Host, lab: Lab, conf: dict[str, Any], tmp_path: Path):
    """Whatever falls together, who is gone is answered no more, and who is there is."""
    conf |= {
        "names": {},
        "health": {"tcp": 8080, "interval": 0.1, "failures": 1, "passes": 1},
        "ipam": {"subnet": "10.1.0.0/24"},
    }
    pods = [lab.pod() for _ in range(6)]
    words = {pod.name: f"IgnoreUnknown=1;K8S_POD_NAME=p{number}" for number, pod in enumerate(pods)}
    with Names(host) as names, ExitStack() as webs:
        for turn in range(3):
            for pod in pods:
                host.add(conf, pod, CNI_ARGS=words[pod.name])
            served = [Web(pod, tmp_path / f"{pod.name}-{turn}") for pod in pods[::2]]
            for web in served:
                webs.enter_context(web)
            assert eventually(lambda: list(shown(host).values()).count("healthy") == 3)
            if turn == 1:
                names.kill()
                names.start()
            for pod in pods:
                host.delete_pod(conf, pod)
            webs.close()
            time.sleep(0.3)
            assert shown(host) == {}
            assert [file for file in host.names.rglob("*") if file.is_file()] == []
        assert eventually(lambda: not names.servers())
