"""The product as its manifest brings it to nodes that had none of it."""

from __future__ import annotations

from typing import Any

from api import condition
from asked import Asked
from shell import eventually

NAMESPACE, LABEL = "kube-system", "app.kubernetes.io%2Fname%3Dagent-cni"
NETWORKS = "cat /etc/cni/net.d/*.conflist"


def brought(ask: Asked) -> None:
    """Every node is ready soon after the manifest is applied, and says that all is well."""
    nodes = ask.cluster.nodes
    placed = eventually(lambda: all(has_conflist(ask).values()), 120)
    ask.report(
        "the manifest puts a conflist on every node", bool(placed), f"{ask.cluster.since_applied():.1f} s after it"
    )
    ready = eventually(lambda: len(ask.cluster.ready()) == len(nodes), 30)
    took = ask.cluster.since_applied()
    ask.report(
        "nodes Ready within 20 s of the manifest", bool(ready) and took < 20, f"{took:.1f} s, {ask.cluster.ready()}"
    )
    eventually(lambda: len(pods(ask)) == len(nodes) and all(condition(pod, "Ready") for pod in pods(ask)), 60)
    for pod in pods(ask):
        status = pod["status"]
        states = [
            str(item["state"]) for item in status.get("initContainerStatuses", []) + status.get("containerStatuses", [])
        ]
        ask.report(f"its pod on {pod['spec']['nodeName']}", condition(pod, "Ready"), " | ".join(states)[:400])
        ask.report("its words", None, words(ask, pod))
    for node in nodes:
        doctor = node.run("agent-cni", "doctor", check=False)
        said = " | ".join((doctor.stdout + doctor.stderr).split("\n"))[:600]
        ask.report(f"agent-cni doctor on {node.name}", doctor.returncode == 0, said)
        ask.report(
            f"an agent is on {node.name}", node.has("-S", "/run/agent-cni/agent.sock"), "socket in /run/agent-cni"
        )


def rollout(ask: Asked) -> None:
    """The DaemonSet is restarted while a pod of every node asks every other, each twentieth of a second: none is lost."""
    before = {pod["metadata"]["name"] for pod in pods(ask)}
    asking = ask.keep_asking()
    ask.cluster.kubectl("-n", NAMESPACE, "rollout", "restart", "daemonset", "-l", "app.kubernetes.io/name=agent-cni")
    done = eventually(lambda: renewed(ask, before), 180)
    ask.report(
        "the DaemonSet is rolled out",
        bool(done),
        ", ".join(words(ask, pod) for pod in pods(ask) if not condition(pod, "Ready"))[:300],
    )
    got, lost = asking()
    said = f"{got} of {got + len(lost)} answered; lost {lost[:9]}"
    ask.report("pods reach each other all the while", got > 0 and not lost, said)


def removal(ask: Asked) -> None:
    """What is deleted leaves nodes as they are: pods that run go on."""
    ask.cluster.kubectl("-n", NAMESPACE, "delete", "daemonset", "-l", "app.kubernetes.io/name=agent-cni", "--wait=true")
    eventually(lambda: not pods(ask), 60)
    ask.matrix("pod to pod without the DaemonSet", {p["metadata"]["name"]: ask.inside(p) for p in ask.pods()})
    places = "ls /etc/cni/net.d /opt/cni/bin /run/agent-cni /usr/local/bin/agent-cni; ls -d /opt/agent-cni"
    left = ask.cluster.nodes[0].run("sh", "-c", places, check=False).stdout
    ask.report("what is left on a node", None, " ".join(left.split()))


def has_conflist(ask: Asked) -> dict[str, bool]:
    return {node.name: node.run("sh", "-c", NETWORKS, check=False).returncode == 0 for node in ask.cluster.nodes}


def renewed(ask: Asked, before: set[str]) -> bool:
    """Whether each node has another pod of the DaemonSet, and it is ready."""
    now = pods(ask)
    others = not before & {pod["metadata"]["name"] for pod in now}
    return len(now) == len(ask.cluster.nodes) and others and all(condition(pod, "Ready") for pod in now)


def pods(ask: Asked) -> list[dict[str, Any]]:
    return ask.api.pods(f"?labelSelector={LABEL}", NAMESPACE)


def words(ask: Asked, pod: dict[str, Any]) -> str:
    logs = ask.cluster.kubectl("-n", NAMESPACE, "logs", pod["metadata"]["name"], "--all-containers", check=False)
    return " | ".join((logs.stdout + logs.stderr).split("\n"))[:500]
