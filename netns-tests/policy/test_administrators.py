"""What a pod with every capability tries against what administrators deny it, where nothing else is closed.

Each attack is shown to work for who is not denied, so that failing means something.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from forge import EVERYBODY, IPV4, IPV6, send, udp
from interception import address_of
from lab import AGENT_CNI, Host, Lab, Pod
from shop import Shop
from town import BRIDGED

PORT, OTHER = 7000, 7001
GROUPS = {
    "224.0.0.1": "01:00:5e:00:00:01",
    "255.255.255.255": EVERYBODY,
    "10.1.0.255": EVERYBODY,
    "ff02::1": "33:33:00:00:00:01",
}


def apps(name: str) -> dict[str, Any]:
    return {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": name}}}}


def denial(subject: str, **rules: Any) -> dict[str, Any]:
    spec = {"tier": "Admin", "priority": 1, "subject": apps(subject), **rules}
    version = "policy.networking.k8s.io/v1beta1"
    return {"apiVersion": version, "kind": "ClusterNetworkPolicy", "metadata": {"name": "denial"}, "spec": spec}


DENIALS = {
    "pods": {"from": [apps("bad")]},
    "ports": {"from": [apps("bad")], "protocols": [{"udp": {"destinationPort": {"number": PORT}}}]},
}


@pytest.fixture
def shop(lab: Lab, host: Host, tmp_path: Path) -> Iterator[Shop]:
    """Pods `bad`, `good` and `db` on one bridge, which a folder feeds."""
    host.run("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0", "net.bridge.bridge-nf-call-ip6tables=0")
    with ExitStack() as held:
        made = Shop(lab, host, BRIDGED, tmp_path, held)
        made.know("bad")
        for name in ("db", "bad", "good"):
            made.fed(name)
            made.know(name)
        for port in (PORT, OTHER):
            made.actors["db"].collect(port)
        yield made
        for name, pod in made.pods.items():
            host.delete_pod(made.confs[name], pod)
        assert host.run("nft", "list", "ruleset").stdout == ""


def link_local(pod: Pod) -> str:
    words = pod.run("ip", "-6", "-o", "addr", "show", "dev", "eth0", "scope", "link").stdout.split()
    return words[words.index("inet6") + 1].split("/")[0]


def mac(pod: Pod) -> str:
    link = pod.link("eth0")
    assert link
    return link["address"]


def arrives(shop: Shop, name: str, source: str, target: str, port: int = PORT) -> bool:
    """Whether a datagram that a pod makes by itself gets to `db`; who expects it to not waits for no answer."""
    pod, db = shop.pods[name], shop.pods["db"]
    send(pod, IPV6 if ":" in source else IPV4, GROUPS.get(target, mac(db)), mac(pod), udp(source, target, port, name))
    # what is sent now comes after it: the wire keeps its order
    shop.actors["db"].send(address_of(shop.results["db"], 4), OTHER, "after")
    texts = [text for _, text in shop.actors["db"].heard(1)]
    return name in texts


@pytest.mark.tried(
    "pods that an administrator denies by labels, or on a port, from and to link-local addresses, which no set has",
    "nothing gets in",
)
@pytest.mark.parametrize("rule", DENIALS)
def test_a_link_local_address_is_no_way_around_a_denial(shop: Shop, rule: str):
    db, own = shop.pods["db"], {name: address_of(shop.results[name], 6) for name in ("bad", "good", "db")}
    ways = [
        (source, target)
        for source in (own["bad"], link_local(shop.pods["bad"]))
        for target in (own["db"], link_local(db))
    ]
    assert [way for way in ways if not arrives(shop, "bad", *way)] == [], "nobody is denied anything yet"
    shop.put("denial.json", denial("db", ingress=[{"action": "Deny", **DENIALS[rule]}]))
    assert "changed 1 of 3" in shop.host.run(AGENT_CNI, "refresh").stdout
    assert [way for way in ways if arrives(shop, "bad", *way)] == []
    if rule == "ports":
        assert arrives(shop, "bad", link_local(shop.pods["bad"]), link_local(db), OTHER), "another port is not denied"
    assert arrives(shop, "good", own["good"], own["db"])


@pytest.mark.tried(
    "a pod that an administrator denies to send to others, to their link-local addresses, to groups and broadcasts",
    "nothing gets there; of who is denied blocks, nothing to link-local addresses",
)
@pytest.mark.parametrize("to", [apps("db"), {"networks": ["fd00:1::/64"]}], ids=["pods", "networks"])
def test_what_reaches_anybody_is_no_way_out_to_who_is_denied(shop: Shop, to: dict[str, Any]):
    own = {family: address_of(shop.results["bad"], family) for family in (4, 6)}
    ways = [(own[6 if ":" in target else 4], target) for target in (*GROUPS, link_local(shop.pods["db"]))]
    assert [way for way in ways if not arrives(shop, "bad", *way)] == [], "nobody is denied anything yet"
    shop.put("denial.json", denial("bad", egress=[{"action": "Deny", "to": [to]}]))
    assert "changed 1 of 3" in shop.host.run(AGENT_CNI, "refresh").stdout
    by_blocks = list(GROUPS) if "networks" in to else []
    assert [target for source, target in ways if arrives(shop, "bad", source, target)] == by_blocks
    assert arrives(shop, "good", address_of(shop.results["good"], 4), "224.0.0.1")


def test_a_pod_without_an_object_is_denied_as_one_that_may_be_meant(shop: Shop):
    """From its ADD on, until its object says that it is another one; the way out to it as well as its way in."""
    shop.put("denial.json", denial("db", ingress=[{"action": "Deny", "from": [apps("bad")]}]))
    out = denial("good", egress=[{"action": "Deny", "to": [apps("bad")]}]) | {"metadata": {"name": "out"}}
    shop.put("out.json", out)
    assert shop.refresh()[0] == 0
    shop.open("late")
    assert not shop.gets_in("late", "db")
    assert not shop.gets_in("good", "late")
    assert shop.gets_in("good", "db")
    said = shop.host.run(AGENT_CNI, "policy", "why", "shop/late", "shop/db:80", check=False)
    assert (said.returncode, "denied by ClusterNetworkPolicy denial" in said.stdout) == (1, True), said.stdout
    assert "changed 0 of" in shop.refresh()[1]
    shop.know("late")
    shop.refresh()
    assert shop.gets_in("late", "db")
    assert shop.gets_in("good", "late")
    shop.known = [item for item in shop.known if item["metadata"]["name"] != "late"]
    shop.know("bad")
    shop.refresh()
    assert not shop.gets_in("late", "db"), "its object went"
    assert shop.doctor() == []
