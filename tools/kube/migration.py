"""A cluster that has flannel is moved to the product node by node, as docs/kubernetes.md says, while pods of all nodes talk."""

from __future__ import annotations

from typing import Any

import brought
import build
import reach
from api import condition
from asked import Asked, addresses
from node import Node
from shell import ROOT, eventually
from workloads import everywhere, service, web

LABEL = "agent-cni.dev/moved=yes"
#: What flannel leaves on a node, taken away as the reader is told to.
LEFT = """ip link delete flannel.1
for program in iptables ip6tables; do
  $program -D FORWARD -m comment --comment 'flanneld forward' -j FLANNEL-FWD && $program -F FLANNEL-FWD && $program -X FLANNEL-FWD
  $program -t nat -D POSTROUTING -m comment --comment 'flanneld masq' -j FLANNEL-POSTRTG && $program -t nat -F FLANNEL-POSTRTG && $program -t nat -X FLANNEL-POSTRTG
done
rm -rf /etc/cni/net.d/10-flannel.conflist /opt/cni/bin/flannel /run/flannel /var/lib/cni/flannel /var/lib/cni/networks/cbr0
"""


def migrated(ask: Asked) -> None:
    """No request is lost between pods, moved or not, but those to a pod that is deleted meanwhile; in the end nothing of flannel is left."""
    reach.nodes(ask)
    ask.api("POST", "/apis/apps/v1/namespaces/default/daemonsets", everywhere("each"))
    ask.make(web("web", 6))
    ask.api("POST", "/api/v1/namespaces/default/services", service("web", "web"))
    ask.wait("web", 6)
    ask.wait("each", len(ask.cluster.nodes))
    _everybody(ask, "with flannel")
    ask.cluster.kubectl("apply", "-k", ROOT / "deploy/node-by-node")
    for node in ask.cluster.nodes:
        _move(ask, node, drained=node is not ask.cluster.nodes[-1])
        _everybody(ask, f"once {node.name} is moved")
    _finish(ask)
    _everybody(ask, "once flannel is gone")
    for node in ask.cluster.nodes:
        doctor = node.run("agent-cni", "doctor", check=False)
        ask.report(
            f"agent-cni doctor on {node.name}", doctor.returncode == 0, " | ".join(doctor.stdout.split("\n"))[:600]
        )


def _move(ask: Asked, node: Node, drained: bool) -> None:
    """A node is drained, or not, and is ours with the pods that are there still; these are made anew, and it takes pods again."""
    kubectl = ask.cluster.kubectl
    asking = ask.keep_asking("each")
    if drained:
        kubectl("drain", node.name, "--ignore-daemonsets", "--delete-emptydir-data")
    kubectl("label", "node", node.name, LABEL)
    can = eventually(lambda: any(condition(pod, "Ready") for pod in _ours(ask, node)), 120)
    ask.report(
        f"{node.name} can serve", bool(can), " ".join(brought.words(ask, pod) for pod in _ours(ask, node) if not can)
    )
    if not drained:
        _beside(ask, node)
    _said(ask, f"nobody is cut off while {node.name} is moved", asking())
    asking = ask.keep_asking("each", [pod for pod in ask.pods("each") if pod["spec"].get("nodeName") != node.name])
    kubectl("delete", "pod", f"--field-selector=spec.nodeName={node.name}")
    ask.wait("each", len(ask.cluster.nodes))
    kubectl("uncordon", node.name)
    kubectl("rollout", "restart", "deployment", "web")
    kubectl("rollout", "status", "deployment", "web", "--timeout=120s")
    _said(ask, f"nor while pods of {node.name} are made anew", asking())
    ask.settle(node)
    held, meant = ask.held(node), ask.meant(node)
    ask.report(f"addresses held on {node.name}", held == meant, f"held {sorted(held)}, running {sorted(meant)}")


def _beside(ask: Asked, node: Node) -> None:
    """New pods beside those that flannel made: each has an address of its own, and doctor names the old ones."""
    ask.scale("web", 18)
    pods = [*ask.wait("web", 18), *ask.pods("each")]
    given = {address for pod in pods for address in addresses(pod)}
    ask.report(
        f"one address each on {node.name}, which was not drained", len(given) == len(pods), " ".join(sorted(given))
    )
    _everybody(ask, "beside pods of flannel", 18)
    doctor = node.run("agent-cni", "doctor", check=False).stdout
    ask.report("doctor names these", "a pod's of another network" in doctor, " | ".join(doctor.split("\n"))[:400])
    ask.scale("web", 6)
    ask.wait("web", 6)


def _finish(ask: Asked) -> None:
    """flannel goes, then what it left, then the label counts no more."""
    asking = ask.keep_asking("each")
    ask.cluster.kubectl("delete", "-f", build.FLANNEL_MANIFEST)
    for node in ask.cluster.nodes:
        node.run("sh", "-c", LEFT, check=False)
    before = {pod["metadata"]["name"] for pod in brought.pods(ask)}
    ask.cluster.kubectl("apply", "-f", ROOT / "deploy/agent-cni.yaml")
    done = eventually(lambda: brought.renewed(ask, before), 180)
    ask.report("the DaemonSet is everywhere", bool(done), "")
    _said(ask, "nobody is cut off while flannel goes", asking())
    places = "ip link; ip route; iptables-save; ls /etc/cni/net.d /run /var/lib/cni /var/lib/cni/networks"
    for node in ask.cluster.nodes:
        left = [
            line for line in node.run("sh", "-c", places, check=False).stdout.splitlines() if "flannel" in line.lower()
        ]
        ask.report(f"of flannel nothing is left on {node.name}", not left, " | ".join(left)[:300])


def _everybody(ask: Asked, when: str, number: int = 6) -> None:
    """Pods, nodes and a Service, wherever they are."""
    names = {pod["metadata"]["name"]: ask.inside(pod) for pod in [*ask.pods("each"), *ask.wait("web", number)]}
    ask.matrix(f"pod to pods of a DaemonSet {when}", names, "each")
    ask.matrix(f"pod to pod {when}", names)
    ask.matrix(f"node to pod {when}", {node.name: ask.on(node) for node in ask.cluster.nodes})
    address = ask.api("GET", "/api/v1/namespaces/default/services/web")["spec"]["clusterIP"]
    ask.spread(f"ClusterIP {when}", {pod["spec"]["nodeName"]: ask.inside(pod) for pod in ask.pods("each")}, address)


def _said(ask: Asked, what: str, answered: tuple[int, list[str]]) -> None:
    got, lost = answered
    ask.report(what, got > 0 and not lost, f"{got} of {got + len(lost)} answered; lost {lost[:9]}")


def _ours(ask: Asked, node: Node) -> list[dict[str, Any]]:
    return [pod for pod in brought.pods(ask) if pod["spec"].get("nodeName") == node.name]
