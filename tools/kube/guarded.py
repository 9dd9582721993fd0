"""What a mode promises beside reaching: that nobody reads along (deploy/encrypted), that all is shut unless it is allowed (deploy/strict)."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dns
from asked import Asked, addresses
from node import Node
from shell import eventually

_LISTENING = """import socket
frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
frames.bind(("eth0", 0))
print(flush=True)
while True:
    print(frames.recv(1 << 16).hex(), flush=True)
"""
_POLICIES = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"


@contextmanager
def overhearing(node: Node) -> Iterator[list[bytes]]:
    """What passes a node's link meanwhile, frame by frame; there when it is over."""
    file, frames = node.folder / "wire", list[bytes]()
    with file.open("wb") as out:
        program = subprocess.Popen(node.entering("python3", "-uc", _LISTENING), stdout=out)
    assert eventually(lambda: file.stat().st_size > 0, 20), "nobody listens"
    try:
        yield frames
    finally:
        program.terminate()
        program.wait(10)
        frames += map(bytes.fromhex, _lines(file))


def _lines(file: Path) -> list[str]:
    """Those that were written to their end."""
    return file.read_text().split("\n")[:-1]


def encrypted(ask: Asked) -> None:
    """Pods of different nodes talk, and between the nodes neither what they say nor their addresses are to be read."""
    pods = ask.pods()
    here = ask.cluster.nodes[0]
    with overhearing(here) as frames:
        ask.matrix("pod to pod", {pod["metadata"]["name"]: ask.inside(pod) for pod in pods})
    names = [pod["metadata"]["name"].encode() for pod in pods]
    told = [frame for frame in frames if any(name in frame for name in names)]
    port = (51820).to_bytes(2)
    tunnelled = sum(frame[36:38] == port for frame in frames)
    said = f"{len(frames)} frames, {tunnelled} of WireGuard, {len(told)} with a pod's answer"
    ask.report("between nodes nothing of pods is readable", tunnelled > 0 and not told, said)


def tunnel(ask: Asked) -> None:
    """What serves the nodes' tunnels is deleted and comes again, node by node: how long nobody gets through, and that all do afterwards."""
    label, namespace = "app.kubernetes.io%2Fname%3Dagent-cni-tunnel", "kube-system"
    for node in ask.cluster.nodes:
        (pod,) = ask.api.pods(f"?labelSelector={label}&fieldSelector=spec.nodeName%3D{node.name}", namespace)
        asking = ask.keep_asking()
        ask.cluster.kubectl("-n", namespace, "delete", "pod", pod["metadata"]["name"])
        time.sleep(10)
        got, lost = asking()
        ask.report(
            f"the tunnel's pod of {node.name} made anew", None, f"{got} of {got + len(lost)} answered; lost {lost[:9]}"
        )
    ask.matrix("pod to pod after it", {pod["metadata"]["name"]: ask.inside(pod) for pod in ask.pods()})


def strict(ask: Asked) -> None:
    """No pod is reached but by itself, and names are known all the same; what a NetworkPolicy allows is open."""
    dns.ready(ask.cluster)
    pods = ask.pods()
    askers = {pod["metadata"]["name"]: ask.inside(pod) for pod in pods}
    themselves = sum(len(addresses(pod)) for pod in pods)
    got = sum(ask.answers(inside, pods)[0] for inside in askers.values())
    ask.report(
        "without a policy a pod reaches itself alone",
        got == themselves,
        f"{got} of {themselves * len(pods)} pairs connect",
    )
    said = [
        inside("nslookup kubernetes.default.svc.cluster.local >/dev/null 2>&1; echo $?").strip()
        for inside in askers.values()
    ]
    ask.report("names are known", set(said) == {"0"}, " ".join(said))
    spec = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [{}], "egress": [{}]}
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "all"}, "spec": spec}
    ask.api("POST", _POLICIES, policy)
    eventually(lambda: all(not ask.answers(inside, pods)[1] for inside in askers.values()), 20)
    ask.matrix("with a policy that allows all", askers)
    ask.api("DELETE", f"{_POLICIES}/all")
    eventually(lambda: not any(ask.answers(inside, pods)[0] > 1 for inside in askers.values()), 20)
    got = sum(ask.answers(inside, pods)[0] for inside in askers.values())
    ask.report("and once it is gone", got == themselves, f"{got} of {themselves * len(pods)} pairs connect")
