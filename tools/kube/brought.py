"""The product as its manifest brings it to nodes that had none of it."""

from __future__ import annotations

from typing import Any

from api import Api, condition
from asked import Asked
from shell import eventually

NAMESPACE, LABEL = "kube-system", "app.kubernetes.io%2Fname%3Dagent-cni"
NETWORKS = "cat /etc/cni/net.d/*.conflist"
TOKEN = "cat /proc/$(pgrep -of 'agent-cni join')/root/run/secrets/kubernetes.io/serviceaccount/token"
MERGE, STRATEGIC = "application/merge-patch+json", "application/strategic-merge-patch+json"
#: What a member may say of a Node, and what not, each with how its patch is merged.
MAY: dict[str, tuple[str, str, dict[str, Any]]] = {
    "an annotation agent-cni.dev/": ("", MERGE, {"metadata": {"annotations": {"agent-cni.dev/tried": "yes"}}}),
    "that it goes again": ("", MERGE, {"metadata": {"annotations": {"agent-cni.dev/tried": None}}}),
    "the condition NetworkUnavailable": (
        "/status", STRATEGIC, {"status": {"conditions": [{"type": "NetworkUnavailable", "status": "False", "reason": "Tried"}]}},
    ),
}  # fmt: skip
MAY_NOT: dict[str, tuple[str, str, dict[str, Any]]] = {
    "another annotation": ("", MERGE, {"metadata": {"annotations": {"example.com/tried": "yes"}}}),
    "another annotation by its status": ("/status", MERGE, {"metadata": {"annotations": {"example.com/tried": "yes"}}}),
    "that an annotation goes": ("", MERGE, {"metadata": {"annotations": {"node.alpha.kubernetes.io/ttl": None}}}),
    "a label": ("", MERGE, {"metadata": {"labels": {"tried": "yes"}}}),
    "a finalizer": ("", MERGE, {"metadata": {"finalizers": ["example.com/tried"]}}),
    "a taint": ("", MERGE, {"spec": {"taints": [{"key": "tried", "effect": "NoSchedule"}]}}),
    "that it is cordoned": ("", MERGE, {"spec": {"unschedulable": True}}),
    "an address": ("/status", MERGE, {"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.99"}]}}),
    "a capacity": ("/status", MERGE, {"status": {"capacity": {"example.com/tried": "1"}}}),
    "the condition Ready": ("/status", STRATEGIC, {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}),
}


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


def rights(ask: Asked) -> None:
    """Who has the token of a node's member may say of that Node what a member says, and of another nothing."""
    own, other = ask.cluster.nodes[:2]
    member = Api(ask.cluster.keys, own.run("sh", "-c", TOKEN).stdout.strip())

    def refused(name: str, part: str, kind: str, patch: dict[str, Any]) -> str:
        try:
            member("PATCH", f"/api/v1/nodes/{name}{part}", patch, kind)
        except RuntimeError as error:
            return str(error)
        return ""

    of_own = {what: refused(own.name, *how) for what, how in MAY.items()}
    ask.report("a member says of its own Node", not any(of_own.values()), f"{of_own}")
    for where, tried in ((own, MAY_NOT), (other, MAY | MAY_NOT)):
        let = [what for what, how in tried.items() if " 403 " not in refused(where.name, *how)]
        ask.report(f"and of {where.name} nothing else", not let, f"{len(tried)} tried; let through {let}")
    said = [refused(other.name, *MAY["an annotation agent-cni.dev/"]), refused(own.name, *MAY_NOT["a label"])]
    ask.report("what it is told", None, " | ".join(said)[:600])


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
