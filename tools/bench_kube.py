"""make bench, kube: what a member asks of the Kubernetes API, and what it is told, by how many pods there are.

The API is the tests' own, which counts; the objects are as large as those of a real one, which say beside what they are who wrote
which field of them. The figures are bytes of bodies, long lists packed as the API packs them, before TLS.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / place) for place in ("netns-tests/scenes", "tests/fakes")]

from bench_cluster import pss  # noqa: E402
from cluster import conf  # noqa: E402
from kube_api import KubeApi, namespace, node, pod, policy  # noqa: E402
from kubernetes import KubeCluster, Played  # noqa: E402
from lab import Lab, eventually  # noqa: E402

from cni.cluster.kubernetes import items  # noqa: E402
from cni.cluster.model import Node as Host  # noqa: E402

SIZES, PODS_OF_A_NODE, SPACES = (500, 5_000), 100, 20
CHANGES, PAUSE = 50, 0.02
#: Of a node that nothing happens to, how often its kubelet says so all the same, in seconds (nodeStatusReportFrequency).
SAID = 300
#: Seconds that are looked at while nothing happens, and after which nothing more is to come.
MINUTE, STILL = 60.0, 1.5
FIRST = 40
Json = dict[str, Any]
#: What goes by it: a network, and whether there are policies.
WAYS = {
    "l3": (conf("l3", families="4", block=256), False),
    "l3, policies": (conf("l3", families="4", block=256) | {"policy": {"cluster": True}}, True),
    "l2": (conf("l2", families="4", block=256), False),
}


class Spent(NamedTuple):
    """Requests, and bytes of answers."""

    requests: int
    bytes: int


def run(lab: Lab) -> None:
    """Each network at each size."""
    print(f"\n{'a node among':<34}{'start':>20}{'a changed pod':>16}{'a quiet minute':>22}{'PSS MiB':>9}")
    for pods in SIZES:
        for way, (network, policies) in WAYS.items():
            with KubeCluster(lab, hosts=1) as town:
                assert isinstance(town.api, Played)
                print(f"{f'{pods} pods, {pods // PODS_OF_A_NODE} nodes, {way}':<34}", end="", flush=True)
                crowd(town.api.api, pods, policies=policies)
                measured(town, town.api.api, network, pods // PODS_OF_A_NODE)


def measured(town: KubeCluster, api: KubeApi, network: Json, nodes: int) -> None:
    """One row."""
    (host,) = town.nodes
    api.put(large(node(host.name, "10.10.11.0/24", address=host.underlay())))
    town.join()
    town.add(host, network, CNI_ARGS="K8S_POD_NAMESPACE=space-1;K8S_POD_NAME=own")
    host.stop()
    start = spent(api, lambda: begin(town, api))
    changed = spent(api, lambda: (change(api), still(api)))
    minute = spent(api, lambda: pass_quietly(api, nodes))
    assert host.member
    each = (changed.requests / CHANGES, changed.bytes / CHANGES)
    print(
        f"{start.requests:>7} x {start.bytes / 1024:>7.0f} KiB{each[0]:>5.0f} x {each[1] / 1024:>5.1f} KiB"
        f"{minute.requests:>9} x {minute.bytes / 1024:>6.0f} KiB{pss(host.member.pid):>9.1f}"
    )


def spent(api: KubeApi, done: Callable[[], object]) -> Spent:
    """What something costs."""
    requests, sent = len(api.requests), api.sent
    done()
    return Spent(len(api.requests) - requests, api.sent - sent)


def begin(town: KubeCluster, api: KubeApi) -> None:
    """Start the member, and wait until it has heard all."""
    before = len(api.requests)
    town.join()
    assert eventually(lambda: len(api.requests) > before)
    still(api)


def still(api: KubeApi) -> None:
    """Wait until nothing more is said."""
    last = -1
    while last != api.sent:
        last = api.sent
        time.sleep(STILL)


# --- what there is, and happens


def crowd(api: KubeApi, pods: int, *, policies: bool) -> None:
    """Other nodes with their pods, and namespaces."""
    for number in range(SPACES):
        api.put(namespace(f"space-{number}", team=f"t{number % 5}"))
    for number in range(pods // PODS_OF_A_NODE):
        api.put(far_node(number))
    for number in range(pods):
        api.put(far_pod(number))
    for number in range(SPACES if policies else 0):
        ingress = [{"from": [{"podSelector": {"matchLabels": {"app": f"a{number % 7}"}}}]}]
        api.put(policy(f"p{number}", f"space-{number}", podSelector={"matchLabels": {"app": "a1"}}, ingress=ingress))


def far_node(number: int) -> Json:
    """A node of the cluster that is a host of it."""
    name, address = f"far-{number}", f"192.0.2.{FIRST + number}"
    made = node(name, f"10.10.{FIRST + number}.0/24", address=address)
    host = Host(name, f"{number:032x}", address, f"02:fe:00:00:00:{number:02x}")
    made["metadata"]["annotations"] = {key: value for key, value in items.annotated(host, "far:1").items() if value}
    return large(made)


def far_pod(number: int, **labels: str) -> Json:
    """A pod of one of them."""
    at, place = divmod(number, PODS_OF_A_NODE)
    labels = {"app": f"a{number % 10}", "pod-template-hash": f"{number:010x}"} | labels
    made = pod(
        f"pod-{number}", f"far-{at}", f"10.10.{FIRST + at}.{2 + place}", namespace=f"space-{number % SPACES}", **labels
    )
    return large(made)


def change(api: KubeApi) -> None:
    """Pods change a label, one after the other."""
    for number in range(CHANGES):
        api.put(far_pod(number, seen=f"{time.monotonic()}"))
        time.sleep(PAUSE)


def pass_quietly(api: KubeApi, nodes: int) -> None:
    """A minute in which kubelets say that all is well, and the API how far it is."""
    until = time.monotonic() + MINUTE
    for number in range(round(nodes * MINUTE / SAID)):
        api.put(far_node(number))
    api.mark()
    time.sleep(until - time.monotonic())


def large(made: Json) -> Json:
    """An object with what a real one has besides: who wrote which fields, and a status that says what it waits for no more."""
    made = copy.deepcopy(made)
    kept = {f"f:field-{number}": {".": {}, "f:name": {}, "f:value": {}} for number in range(24)}
    made["metadata"]["managedFields"] = [
        {
            "manager": manager, "operation": "Update", "apiVersion": "v1", "time": "2026-11-29T12:00:00Z",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:metadata": kept, "f:spec": kept},
        }
        for manager in ("kube-controller-manager", "kubelet")
    ]  # fmt: skip
    if made["kind"] == "Node":
        names = [f"registry.example/team/image-{number}@sha256:{number:064x}" for number in range(50)]
        made["status"]["images"] = [{"names": [name], "sizeBytes": 123456789} for name in names]
    return made


if __name__ == "__main__":
    print(f"{len(str(far_pod(1)))} bytes a pod, {len(str(far_node(1)))} a node")
