"""Pods that are held to names: what they resolve and reach by CoreDNS, with search domains and ndots, while documents change and the DNS
gate is away; and what is seen of it. For a cluster whose manifest brings the gate.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import brought
import dns
import images
from addressing import RIG, at, on_wire
from asked import Asked
from beyond import address, beyond
from node import Node
from resolving import NOWHERE, REFUSED, UNANSWERED, WELL, Lasting, code, got
from shell import ROOT, eventually
from workloads import everywhere, service, web

KIND = "/apis/policy.networking.k8s.io/v1beta1/clusternetworkpolicies"
_SEARCHED = "corp.example"
NAMES = ["api.example.com", "*.example.org"]
#: What a pod asks for by its own resolv.conf, and curl's exit code: 6 is not resolved, 28 not answered.
_ASKED = {
    "http://api.example.com/": 0, "http://api.example.com./": 0, "http://x.example.org/": 0, "http://a.b.example.org/": 0,
    "http://web/": 0, "http://web.default/": 0, "http://web.default.svc.cluster.local/": 0,
    "https://kubernetes.default/": 28, "http://api.example.com:8080/": 28,
    "http://example.org/": 6, "http://evil.example/": 6, "http://late.example.net/": 6,
}  # fmt: skip


def domains(ask: Asked) -> None:
    """A ClusterNetworkPolicy allows two names: they are resolved and reached from each node, and no other."""
    with beyond(ask.cluster) as resolver:
        forward = f"    log\n    forward . {on_wire(RIG, ask.cluster.families[0])}\n"
        ready = dns.ready(ask.cluster, 1, forward)
        assert ready, "no CoreDNS"
        ask.report("CoreDNS is on", None, ready["spec"]["nodeName"])
        ask.cluster.kubectl("apply", "-f", "-", input=(ROOT / "deploy/flows.yaml").read_text())
        ask.api(
            "POST",
            "/apis/apps/v1/namespaces/default/daemonsets",
            held_everywhere("held", dnsConfig={"searches": [_SEARCHED]}),
        )
        ask.make(web("web", 1))
        ask.api("POST", "/api/v1/namespaces/default/services", service("web", "web"))
        ask.wait("web", 1)
        held = {pod["spec"]["nodeName"]: pod for pod in ask.wait("held", len(ask.cluster.nodes))}
        _before(ask, held)
        ask.api("POST", KIND, document(ask, NAMES))
        for pod in held.values():
            eventually(lambda pod=pod: got(ask.inside(pod), "http://evil.example/") == 6, 20)
        passed = len(resolver.read_text())
        for name, pod in held.items():
            _resolves(ask, name, pod)
        _carries_nothing(ask, ready, resolver.read_text()[passed:])
        _changes(ask, held)
        _first(ask)
        _gate_away(ask, next(node for node in ask.cluster.nodes if node.name != ready["spec"]["nodeName"]), held)
        for name, pod in held.items():
            _seen(ask, name, pod)


def document(ask: Asked, names: list[str], app: str = "held", servers: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """What deploy/ has for an example for an application, by port 80 and with a way to the Service `web`; it may ask other `servers` (peers), too."""
    said = ask.cluster.kubectl("create", "--dry-run=client", "-o", "json", "-f", ROOT / "deploy/names-allowed.yaml")
    made: dict[str, Any] = json.loads(said.stdout)
    made["metadata"]["name"], spec = app, made["spec"]
    spec["subject"]["pods"]["podSelector"]["matchLabels"]["egress"] = app
    by_name = {rule["name"]: rule for rule in spec["egress"]}
    by_name["dns"]["to"] += servers
    by_name["names"] |= {"to": [{"domainNames": names}], "protocols": [{"tcp": {"destinationPort": {"number": 80}}}]}
    service_of = {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "web"}}}}
    spec["egress"].insert(-1, {"name": "web", "action": "Accept", "to": [service_of]})
    return made


def held_everywhere(name: str, **spec: Any) -> dict[str, Any]:
    """A DaemonSet whose pods a document for an application of that name is about."""
    made = everywhere(name, **spec)
    made["spec"]["template"]["metadata"]["labels"]["egress"] = name
    return made


def _before(ask: Asked, held: dict[str, Any]) -> None:
    said = {name: got(ask.inside(pod), "http://evil.example/") for name, pod in held.items()}
    ask.report("before the document everything is reached", set(said.values()) == {0}, f"{said}")


def _resolves(ask: Asked, name: str, pod: dict[str, Any]) -> None:
    inside = ask.inside(pod)
    reaches(ask, name, pod)
    families = ask.cluster.families
    seen = {family: got(inside, f"-{family} http://api.example.com/") for family in families}
    ask.report(f"an allowed name is reached by each family from {name}", set(seen.values()) == {0}, f"{seen}")
    by_address = {family: got(inside, f"http://{at(address('evil.example', family), 80)}/") for family in families}
    ask.report(f"and the address of another is not, from {name}", set(by_address.values()) == {28}, f"{by_address}")
    codes = {
        one: code(ask, pod, one)
        for one in (
            "evil.example",
            f"api.example.com.{_SEARCHED}",
            f"evil.example.{_SEARCHED}",
            "api.example.com",
            "kubernetes.default.svc.cluster.local",
        )
    }
    meant = dict(zip(codes, (REFUSED, NOWHERE, REFUSED, WELL, WELL), strict=True))
    ask.report(f"kube-dns answers by UDP and TCP on {name}", codes == meant, f"{codes}")


def reaches(ask: Asked, name: str, pod: dict[str, Any]) -> None:
    """By its own resolv.conf a pod reaches what is allowed, by whatever it is called, and no more."""
    inside = ask.inside(pod)
    seen = {url: got(inside, url) for url in _ASKED}
    wrong = {url: got for url, got in seen.items() if got != _ASKED[url]}
    ask.report(
        f"what is allowed is reached from {name}, and no more",
        not wrong,
        f"{len(seen) - len(wrong)} of {len(seen)}; not {wrong}",
    )


def _carries_nothing(ask: Asked, names: dict[str, Any], resolver: str) -> None:
    """Of what is refused neither CoreDNS hears, nor who is asked by that."""
    log = ask.cluster.kubectl("-n", "kube-system", "logs", names["metadata"]["name"], "--since=10s", check=False).stdout
    heard = [line for line in log.splitlines() if " evil.example. " in line or f"{_SEARCHED}. " in line]
    ask.report(
        "CoreDNS is not asked for it",
        not heard and "api.example.com. " in log,
        f"{len(log.splitlines())} questions in its log; {heard[:2]}",
    )
    passed = {line.split()[5] for line in resolver.splitlines() if "query[" in line}
    ask.report(
        "what is asked beyond the cluster is allowed",
        passed == {"api.example.com", "x.example.org", "a.b.example.org"},
        f"{sorted(passed)}",
    )


def _changes(ask: Asked, held: dict[str, Any]) -> None:
    for what, names, meant in (("added", [*NAMES, "late.example.net"], 0), ("taken away", NAMES, 6)):
        ask.api("PATCH", f"{KIND}/held", {"spec": document(ask, names)["spec"]}, brought.MERGE)
        begun, took = time.monotonic(), dict[str, str]()
        for name, pod in held.items():
            good = eventually(
                lambda pod=pod, meant=meant: got(ask.inside(pod), "http://late.example.net/") == meant, 20, 0.05
            )
            took[name] = f"{time.monotonic() - begun:.1f} s" if good else "not"
        ask.report(f"a name that is {what} counts", "not" not in took.values(), f"after {took}")
    first, family = next(iter(held.values())), ask.cluster.families[0]
    shut = got(ask.inside(first), f"http://{at(address('late.example.net', family), 80)}/")
    ask.report("and its address is shut", shut == 28, f"curl {shut}")
    elsewhere = on_wire(RIG, family)
    # what is refused anyhow the gate answers by itself
    _asks(ask, first, "another server is not asked", {elsewhere: (f"{REFUSED[0]} -1", UNANSWERED)})
    spec = document(ask, NAMES)["spec"]
    ask.api("PATCH", f"{KIND}/held", {"spec": spec | {"egress": spec["egress"][2:]}}, brought.MERGE)
    eventually(lambda: code(ask, first, "api.example.com", elsewhere) == WELL, 10)
    _asks(
        ask,
        first,
        "by a document that says nothing of DNS any server is",
        dict.fromkeys(("", elsewhere), (REFUSED, WELL)),
    )
    ask.api("PATCH", f"{KIND}/held", {"spec": spec}, brought.MERGE)


def _asks(ask: Asked, pod: dict[str, Any], what: str, meant: dict[str, tuple[str, str]]) -> None:
    """What servers say of a name that is not allowed, and of one that is."""
    said = {
        server: (code(ask, pod, "evil.example", server), code(ask, pod, "api.example.com", server)) for server in meant
    }
    ask.report(what, said == meant, f"{said}")


def _first(ask: Asked) -> None:
    """What a pod asks as soon as it is there, which the document is about."""
    urls = [url for url in _ASKED if not url.startswith("https") and _ASKED[url] != 28]
    script = "; ".join(f"curl -sm 12 -o /dev/null {url}; echo $?" for url in urls)
    container = {
        "name": "first",
        "image": images.SHELL,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", f"{script}; sleep 1000"],
    }
    for number, node in enumerate(ask.cluster.nodes):
        name = f"first-{number}"
        spec = {"nodeName": node.name, "containers": [container], "terminationGracePeriodSeconds": 1}
        ask.api(
            "POST",
            "/api/v1/namespaces/default/pods",
            {"metadata": {"name": name, "labels": {"egress": "held"}}, "spec": spec},
        )
        lines = (
            eventually(
                lambda name=name: len(it := ask.cluster.kubectl("logs", name).stdout.split()) == len(urls) and it, 60
            )
            or []
        )
        wrong = {url: said for url, said in zip(urls, lines, strict=False) if said != f"{_ASKED[url]}"}
        ask.report(
            f"what a new pod asks first on {node.name}",
            len(lines) == len(urls) and not wrong,
            f"{len(lines) - len(wrong)} of {len(urls)}; not {wrong}",
        )
        ask.api("DELETE", f"/api/v1/namespaces/default/pods/{name}")


def _gate_away(ask: Asked, node: Node, held: dict[str, Any]) -> None:
    inside, pod = ask.inside(held[node.name]), held[node.name]
    known = f"http://{at(address('api.example.com', ask.cluster.families[0]), 80)}/"
    got(inside, "http://api.example.com/")
    lasting = Lasting(inside)
    _kill_gate(node)
    _kill_gate(node)  # kubelet waits for ten seconds before it begins a container that ended again so soon
    begun = time.monotonic()
    seen = got(inside, known), code(ask, pod, "y.example.org"), code(ask, pod, "evil.example")
    ask.report(
        f"without the gate of {node.name} what was resolved is reached, and nothing is resolved",
        seen == (0, UNANSWERED, UNANSWERED),
        f"{seen}",
    )
    back = eventually(lambda: got(inside, "http://z.example.org/") == 0, 90, 0.2)
    ask.report(
        "a new name is reached once it is back",
        bool(back),
        f"after {time.monotonic() - begun:.1f} s, kubelet's pause included",
    )
    ask.report("another is refused again", code(ask, pod, "evil.example") == REFUSED, code(ask, pod, "evil.example"))
    (ours,) = (one for one in brought.pods(ask) if one["spec"]["nodeName"] == node.name)
    ask.cluster.kubectl("-n", brought.NAMESPACE, "delete", "pod", ours["metadata"]["name"], "--wait=false")
    begun, codes = time.monotonic(), set[int]()
    eventually(lambda: codes.add(got(inside, known)) or (time.monotonic() - begun > 3 and _gate(node)), 60, 0.1)
    back = eventually(lambda: got(inside, "http://w.example.org/") == 0, 60, 0.2)
    ask.report(
        "its pod is deleted: a new name is reached by the next one's gate",
        bool(back),
        f"after {time.monotonic() - begun:.1f} s; meanwhile what was resolved: curl {codes}",
    )
    ask.report("a connection of before lasted all the while", lasting.end() > 5, f"{lasting.seconds} s of it")


def _gate(node: Node) -> str:
    return node.run("pgrep", "-of", "bin/agent-cni dnsgate$", check=False).stdout.strip()


def _kill_gate(node: Node) -> None:
    process = eventually(lambda: _gate(node), 30)
    node.run("kill", "-KILL", process)
    eventually(lambda: _gate(node) != process, 10)


def _seen(ask: Asked, name: str, pod: dict[str, Any]) -> None:
    node = next(node for node in ask.cluster.nodes if node.name == name)
    inside = ask.inside(pod)
    for url in (
        "http://api.example.com/",
        "http://web/",
        f"http://{at(address('evil.example', ask.cluster.families[0]), 80)}/",
    ):
        got(inside, url)
    time.sleep(2)
    said = node.run("agent-cni", "flows", f"default/{pod['metadata']['name']}", "--since", "1m", "--json", check=False)
    flows = json.loads(said.stdout)
    named = [flow for flow in flows if "api.example.com" in flow.get("names", [])]
    served = [flow for flow in flows if flow.get("service")]
    good = named and all(flow["documents"] == ["ClusterNetworkPolicy held"] for flow in named)
    ask.report(f"flows on {name} tell the name, and the document", good, f"{named[-1:]}")
    ask.report(
        f"flows on {name} tell the Service", bool(served), f"{len(flows)} flows; {served[-1:]} {said.stderr[:200]}"
    )
