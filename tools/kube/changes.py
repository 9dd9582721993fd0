"""What a cluster goes through: pods, daemons, policies and nodes that come and go."""

from __future__ import annotations

import time

from addressing import CONTROL_PLANE, on_wire
from api import condition
from asked import Asked, addresses
from node import Node
from shell import eventually
from workloads import web


def deletion(ask: Asked) -> None:
    """A pod that is deleted: how soon it is gone, another one is there, and the Service knows."""
    pod = ask.pods()[0]
    name, address = pod["metadata"]["name"], pod["status"]["podIP"]
    begun = time.monotonic()
    ask.api("DELETE", f"/api/v1/namespaces/default/pods/{name}")
    out = eventually(lambda: address not in ask.endpoints("web"), 30)
    left = time.monotonic() - begun
    gone = eventually(lambda: name not in {p["metadata"]["name"] for p in ask.api.pods()}, 60)
    took = time.monotonic() - begun
    ask.wait("web", 6)
    ask.report(
        "a pod deleted",
        bool(out and gone),
        f"out of the Service after {left:.1f} s, gone after {took:.1f} s, replaced after {time.monotonic() - begun:.1f} s",
    )
    ask.matrix("pod to pod after it", {p["metadata"]["name"]: ask.inside(p) for p in ask.pods()})


def churn(ask: Asked) -> None:
    """6 pods to many and back: addresses stay unique, and what a node holds is what runs on it."""
    begun, many = time.monotonic(), ask.many
    ask.scale("web", many)
    pods = ask.wait("web", many, 180 + 2 * many)
    up = time.monotonic() - begun
    unique = len({address for p in pods for address in addresses(p)})
    ask.scale("web", 6)
    down = eventually(lambda: len(ask.api.pods("?labelSelector=app%3Dweb")) == 6, 120 + many)
    ask.report(
        f"{many} pods and back",
        unique == many * len(ask.cluster.families) and bool(down),
        f"{up:.1f} s up ({unique} addresses), {time.monotonic() - begun - up:.1f} s down",
    )
    for node in ask.cluster.nodes:
        ask.settle(node)
        ask.report(
            f"addresses held on {node.name}",
            ask.held(node) == ask.meant(node),
            f"held {sorted(ask.held(node))}, running {sorted(ask.meant(node))}",
        )


def daemons_restarted(ask: Asked) -> None:
    """containerd, kubelet and kube-proxy of a node end and come back; its pods go on."""
    node = ask.cluster.nodes[1]
    before = {p["metadata"]["uid"]: p["status"]["podIP"] for p in ask.pods()}
    for name in ("kubelet", "kube-proxy", "containerd"):
        node.stop(name)
    ask.matrix(
        "pod to pod without kubelet and containerd",
        {p["metadata"]["name"]: ask.inside(p) for p in ask.pods() if p["spec"]["nodeName"] != node.name},
    )
    node.start_all()
    eventually(lambda: node.name in ask.cluster.ready(), 60)
    time.sleep(5)
    after = {p["metadata"]["uid"]: p["status"]["podIP"] for p in ask.pods()}
    ask.report(
        "daemons of a node restarted",
        before == after,
        f"{len(set(before) & set(after))} of {len(before)} pods are the same",
    )
    ask.matrix("pod to pod after it", {p["metadata"]["name"]: ask.inside(p) for p in ask.pods()})


def policy(ask: Asked) -> None:
    """A NetworkPolicy in the API that shuts all pods off. Who still gets through? Then it goes again."""
    deny = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "deny"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    }
    path = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"
    ask.api("POST", path, deny)
    time.sleep(8)
    pods = ask.pods()
    got = sum(ask.answers(ask.inside(p), pods)[0] for p in pods)
    ready = sum(condition(pod, "Ready") for pod in ask.pods())
    ask.report("kubelet's probes get through all the same", ready == len(pods), f"{ready} of {len(pods)} ready")
    themselves = sum(len(addresses(pod)) for pod in pods)
    said = f"{got} of {len(pods) * themselves} pairs still connect ({themselves} are pods to themselves)"
    ask.report("NetworkPolicy deny-all in the API is enforced", got == themselves, said)
    ask.api("DELETE", f"{path}/deny")
    time.sleep(8)
    ask.matrix("pod to pod after the policy went", {p["metadata"]["name"]: ask.inside(p) for p in pods})


def reboot(ask: Asked) -> None:
    """A node loses power and comes back with its disk: new sandboxes, no lost or doubled address."""
    node = ask.cluster.nodes[2]
    before = ask.held(node)
    node.power_off()
    gone = eventually(lambda: node.name not in ask.cluster.ready(), 90, 0.5)
    ask.report("the cluster sees a dead node", bool(gone), "NotReady")
    begun = time.monotonic()
    node.power_on()
    ask.cluster.network.configure(node)
    node.start_all()
    back = eventually(lambda: node.name in ask.cluster.ready(), 90)
    ready = time.monotonic() - begun
    ask.wait("web", 6, 120)
    ask.settle(node)
    ask.report(
        "a node rebooted",
        bool(back),
        f"Ready {ready:.1f} s, all pods ready {time.monotonic() - begun:.1f} s after power came back; held before {len(before)}",
    )
    ask.report(
        "addresses held after it",
        ask.held(node) == ask.meant(node),
        f"held {sorted(ask.held(node))}, running {sorted(ask.meant(node))}",
    )
    ask.matrix("pod to pod after it", {p["metadata"]["name"]: ask.inside(p) for p in ask.pods()})
    if (node.root / "usr/local/bin/agent-cni").is_file():
        doctor = node.run("agent-cni", "doctor", check=False)
        ask.report(
            "agent-cni doctor after it",
            doctor.returncode == 0,
            " | ".join((doctor.stdout + doctor.stderr).split("\n"))[:700],
        )


def lost_node(ask: Asked) -> None:
    """A node dies, its pods are deleted by force and start elsewhere; it comes back: nothing of them is held there any more."""
    node = ask.cluster.nodes[1]
    node.power_off()
    eventually(lambda: node.name not in ask.cluster.ready(), 90, 0.5)
    begun = time.monotonic()
    for pod in ask.api.pods():
        if pod["spec"].get("nodeName") == node.name:
            ask.api("DELETE", f"/api/v1/namespaces/default/pods/{pod['metadata']['name']}?gracePeriodSeconds=0")
    pods = ask.wait("web", 6, 120)
    ask.report(
        "pods of a dead node start elsewhere",
        all(p["spec"]["nodeName"] != node.name for p in pods),
        f"ready after {time.monotonic() - begun:.1f} s",
    )
    ask.matrix("pod to pod meanwhile", {p["metadata"]["name"]: ask.inside(p) for p in pods})
    node.power_on()
    ask.cluster.network.configure(node)
    node.start_all()
    eventually(lambda: node.name in ask.cluster.ready(), 90)
    ask.settle(node)
    ask.report(
        "a lost node comes back and holds nothing of theirs",
        ask.held(node) == ask.meant(node),
        f"held {sorted(ask.held(node))}, running {sorted(ask.meant(node))}",
    )


def partition(ask: Asked) -> None:
    """A node does not reach the API for a while, and is deleted there meanwhile; then it does, and its kubelet begins anew."""
    node = ask.cluster.nodes[1]
    before, blocks = ask.pods(), node.blocks
    drops = "".join(
        f"add rule inet cut out ip{'6' * (family == 6)} daddr {on_wire(CONTROL_PLANE, family)} drop\n"
        for family in (4, 6)
    )
    node.run(
        "nft",
        "-f",
        "-",
        input=f"add table inet cut\nadd chain inet cut out {{ type filter hook output priority 0; }}\n{drops}",
    )
    eventually(lambda: node.name not in ask.cluster.ready(), 90, 0.5)
    ask.matrix("pod to pod while a node does not reach the API", {p["metadata"]["name"]: ask.inside(p) for p in before})
    ask.api("DELETE", f"/api/v1/nodes/{node.name}")
    time.sleep(5)
    lost = sum(len(ask.answers(ask.inside(one), before)[1]) for one in before)
    ask.report("and once it is deleted there", not lost, f"{lost} of {len(before) ** 2} lost")
    node.run("nft", "delete", "table", "inet", "cut")
    node.stop("kubelet")
    node.start_kubelet()
    back = eventually(lambda: node.name in ask.cluster.ready() and node.has_blocks(), 120, 0.5)
    ask.report("it comes back", bool(back), f"{node.name} {node.blocks}")
    ask.report("doctor on it", None, _doctor(node)[:300])
    for pod in ask.pods():
        if pod["spec"]["nodeName"] == node.name and node.blocks != blocks:
            ask.api("DELETE", f"/api/v1/namespaces/default/pods/{pod['metadata']['name']}")
    pods = ask.wait("web", 6, 180)
    ask.settle(node)
    held, meant = ask.held(node), ask.meant(node)
    ask.report("addresses held after it", held == meant, f"held {sorted(held)}, running {sorted(meant)}")
    ask.matrix("pod to pod after it", {p["metadata"]["name"]: ask.inside(p) for p in pods})


def _doctor(node: Node) -> str:
    done = node.run("agent-cni", "doctor", check=False)
    return " | ".join((done.stdout + done.stderr).split("\n"))


def late_node(ask: Asked) -> None:
    """A fourth node joins; pods there and on the others reach each other before anything else is started on the others."""
    node = ask.cluster.join()
    ready = eventually(lambda: node.name in ask.cluster.ready(), 60)
    ask.report("a fourth node joins", bool(ready), f"{node.name} {node.block}")
    ask.make(web("late", 1, nodeSelector={"kubernetes.io/hostname": node.name}))
    (late,) = ask.wait("late", 1)
    old = ask.pods()
    failed = [lost for pod in old for lost in ask.answers(ask.inside(pod), [late])[1]]
    ask.report("pods of the old nodes reach one of the new node", not failed, f"{len(failed)} of {len(old)} do not")
    got, failed = ask.answers(ask.inside(late), old)
    ask.report("it reaches them", not failed, f"{got} of {got + len(failed)}")
    ask.scale("web", 12)
    ask.wait("web", 12, 120)
    got, failed = ask.answers(ask.inside(late), ask.pods())
    ask.report("the same once each node had a new pod", not failed, f"{got} of {got + len(failed)}")
    ask.scale("web", 6)
