"""Who reaches whom in a cluster where nothing happens: pods, nodes, Services, names, an operator."""

from __future__ import annotations

import collections
import re
import statistics
import time
from pathlib import Path

import dns
from addressing import API, RIG, at, on_wire
from api import condition
from asked import Asked, addresses, outside, plain, same
from shell import eventually
from workloads import service, web


def nodes(ask: Asked) -> None:
    """All nodes become ready, each with a block of its own."""
    ready = eventually(lambda: len(ask.cluster.ready()) == len(ask.cluster.nodes), 90)
    ask.report(
        "nodes Ready",
        bool(ready),
        f"{ask.cluster.age():.1f} s after the rig began; "
        + ", ".join(f"{n.name} {' '.join(n.blocks)}" for n in ask.cluster.nodes),
    )


def empty_node(ask: Asked) -> None:
    """Asked before any pod was on the last node: its NodePort and the node itself reach pods elsewhere all the same."""
    empty = ask.cluster.nodes[-1]
    others = [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "NotIn", "values": [empty.name]}]}]
    spec = {
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": others}}}
    }
    ask.make(web("away", 2, **spec))
    pods = ask.wait("away", 2)
    ask.api(
        "POST",
        "/api/v1/namespaces/default/services",
        service("away", "away", "NodePort", ports=[{"port": 80, "targetPort": 8080, "nodePort": 30090}]),
    )
    eventually(lambda: ask.endpoints("away") == {item for pod in pods for item in addresses(pod)}, 20)
    time.sleep(3)
    got, lost = ask.answers(ask.on(empty), pods)
    ask.report("a node that never had a pod reaches pods elsewhere", not lost, f"{got} of {got + len(lost)}")
    for address in empty.addresses:
        ask.spread(f"NodePort of {empty.name}, which never had a pod", {"outside": outside}, at(address, 30090), 10)
    ask.api("DELETE", "/apis/apps/v1/namespaces/default/deployments/away")
    eventually(lambda: not ask.api.pods("?labelSelector=app%3Daway"), 60)


def deployment(ask: Asked) -> None:
    """Six replicas, spread over all nodes, each with an address of its own."""
    begun = time.monotonic()
    ask.api("POST", "/apis/apps/v1/namespaces/default/deployments", web("web", 6))
    seen: dict[str, dict[str, float]] = collections.defaultdict(dict)
    for when, _, pod in ask.api.watch("/api/v1/namespaces/default/pods?labelSelector=app%3Dweb", 90):
        marks = seen[pod["metadata"]["name"]]
        marks.setdefault("made", when)
        if pod["status"].get("phase") == "Running":
            marks.setdefault("running", when)
        if condition(pod, "Ready"):
            marks.setdefault("ready", when)
        if sum("ready" in item for item in seen.values()) == 6:
            break
    times = [item["running"] - item["made"] for item in seen.values() if "running" in item]
    pods = ask.pods()
    spread = collections.Counter(pod["spec"].get("nodeName") for pod in pods)
    said = f"all ready {time.monotonic() - begun:.1f} s after the request; made to Running median {statistics.median(times or [0]):.1f}, worst {max(times or [0]):.1f} s; {dict(spread)}"
    ask.report("Deployment of 6", len(times) == 6 and len(spread) == len(ask.cluster.nodes), said)
    given = sorted(address for pod in pods for address in addresses(pod))
    expected = 6 * len(ask.cluster.families)
    ask.report("one address each", len(set(given)) == len(given) == expected, ", ".join(given))


def pods_to_pods(ask: Asked) -> None:
    """Every pod asks every pod by address."""
    ask.matrix("pod to pod", {p["metadata"]["name"]: ask.inside(p) for p in ask.pods()})


def nodes_to_pods(ask: Asked) -> None:
    """Every node asks every pod: what probes, webhooks and host-network pods do."""
    ask.matrix("node to pod", {node.name: ask.on(node) for node in ask.cluster.nodes})


def large(ask: Asked) -> None:
    """20 MB between two pods on different nodes."""
    pods = ask.pods()
    first = pods[0]
    other = next(p for p in pods if p["spec"]["nodeName"] != first["spec"]["nodeName"])
    for address in addresses(other):
        begun = time.monotonic()
        got = ask.inside(first)(f"curl -sm 10 http://{at(address, 8080)}/big | wc -c").strip()
        said = f"{got} bytes in {time.monotonic() - begun:.1f} s"
        ask.report("20 MB across nodes", got == str(20 << 20), said)


def who_asks(ask: Asked) -> None:
    """A pod on another node sees the asking pod's own address."""
    pods = ask.pods()
    first = pods[0]
    other = next(p for p in pods if p["spec"]["nodeName"] != first["spec"]["nodeName"])
    for own, address in zip(addresses(first), addresses(other), strict=True):
        seen = plain(ask.inside(first)(f"curl -sm 3 http://{at(address, 8080)}/cgi-bin/who"))
        ask.report("source address is kept between nodes", same(seen, own), f"{own} is seen as {seen}")


def cluster_ip(ask: Asked) -> None:
    """A Service's address, from a pod on each node and from each node."""
    ask.api("POST", "/api/v1/namespaces/default/services", service("web", "web"))
    eventually(lambda: len(ask.endpoints("web")) == 6 * len(ask.cluster.families), 20)
    time.sleep(2)
    by_node = {pod["spec"]["nodeName"]: pod for pod in ask.pods()}
    for address in ask.api("GET", "/api/v1/namespaces/default/services/web")["spec"]["clusterIPs"]:
        ask.spread("ClusterIP from pods", {name: ask.inside(pod) for name, pod in by_node.items()}, at(address, 80))
        ask.spread("ClusterIP from nodes", {node.name: ask.on(node) for node in ask.cluster.nodes}, at(address, 80))


def node_port(ask: Asked) -> None:
    """A port of every node, from outside; and with externalTrafficPolicy Local, who is seen to ask."""
    ask.api(
        "POST",
        "/api/v1/namespaces/default/services",
        service("port", "web", "NodePort", ports=[{"port": 80, "targetPort": 8080, "nodePort": 30080}]),
    )
    local = [{"port": 80, "targetPort": 8080, "nodePort": 30081}]
    ask.api(
        "POST",
        "/api/v1/namespaces/default/services",
        service("local", "web", "NodePort", ports=local, externalTrafficPolicy="Local"),
    )
    time.sleep(3)
    for number, family in enumerate(ask.cluster.families):
        every = [node.addresses[number] for node in ask.cluster.nodes]
        for node, address in zip(ask.cluster.nodes, every, strict=True):
            ask.spread(f"NodePort of {node.name} from outside", {"outside": outside}, at(address, 30080))
        seen = [plain(outside(f"curl -sm 3 http://{at(address, 30081)}/cgi-bin/who")) for address in every]
        good = all(same(item, on_wire(RIG, family)) for item in seen)
        ask.report("NodePort Local keeps the client's address", good, f"seen: {', '.join(seen)}")


def hairpin(ask: Asked) -> None:
    """A pod reaches itself by its Service."""
    ask.make(web("lonely", 1))
    ask.api("POST", "/api/v1/namespaces/default/services", service("lonely", "lonely"))
    (pod,) = ask.wait("lonely", 1)
    eventually(lambda: ask.endpoints("lonely") == {*addresses(pod)}, 20)
    time.sleep(2)
    for address in ask.api("GET", "/api/v1/namespaces/default/services/lonely")["spec"]["clusterIPs"]:
        ask.spread("a pod by its own Service", {"itself": ask.inside(pod)}, at(address, 80), 5)


def host_port(ask: Asked) -> None:
    """A pod's port on its node, from outside, from a pod elsewhere."""
    ask.make(web("hosted", 1, container={"ports": [{"containerPort": 8080, "hostPort": 8888}]}))
    (pod,) = ask.wait("hosted", 1)
    other = next(p for p in ask.pods() if p["spec"]["nodeName"] != pod["spec"]["nodeName"])
    for address in (item["ip"] for item in pod["status"]["hostIPs"]):
        ask.spread("hostPort from outside", {"outside": outside}, at(address, 8888), 5)
        ask.spread("hostPort from a pod of another node", {"pod": ask.inside(other)}, at(address, 8888), 5)


def account(ask: Asked) -> None:
    """A pod asks the API server with its own token, by the Service."""
    pod = ask.pods()[0]
    token = "/var/run/secrets/kubernetes.io/serviceaccount/token"
    where = at(API[ask.cluster.families[0]], 443)
    script = f'curl -skm 5 --header "Authorization: Bearer $(cat {token})" https://{where}/version'
    said = ask.inside(pod)(script)
    ask.report("API server from a pod, with its token", "gitVersion" in said, " ".join(said.split())[:120])


def names(ask: Asked) -> None:
    """CoreDNS in the cluster: names of Services from every node's pods."""
    ready = dns.ready(ask.cluster)
    ask.report("CoreDNS ready", bool(ready), str(ready and ready["status"].get("podIP")))
    time.sleep(2)
    for node, pod in {pod["spec"]["nodeName"]: pod for pod in ask.pods()}.items():
        said = ask.inside(pod)(
            "for i in 1 2 3 4 5; do curl -sm 3 http://web.default.svc.cluster.local/ || echo fail; done"
        )
        ask.report(
            f"a Service by name from {node}",
            "fail" not in said and len(said.split()) == 5,
            " ".join(said.split())[:150],
        )


def operator(ask: Asked) -> None:
    """What kubectl does by way of kubelet."""
    name = ask.pods()[0]["metadata"]["name"]
    said = ask.cluster.kubectl("exec", name, "--", "hostname", check=False)
    ask.report("kubectl exec", said.stdout.strip() == name, (said.stdout + said.stderr).strip()[-150:])
    top = ask.cluster.kubectl("get", "pods", "-o", "wide", check=False)
    ask.report("kubectl get pods", top.returncode == 0, f"{len(top.stdout.splitlines()) - 1} pods")


def memory(ask: Asked) -> None:
    """What the parts take."""
    found: dict[str, int] = collections.defaultdict(int)
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
        except OSError:
            continue
        name, size = re.search(r"Name:\s+(\S+)", text), re.search(r"VmRSS:\s+(\d+)", text)
        if name and size:
            found[name[1]] += int(size[1]) // 1024
    big = sorted(found.items(), key=lambda item: -item[1])[:8]
    ask.report("memory", None, ", ".join(f"{name} {size} MiB" for name, size in big))
