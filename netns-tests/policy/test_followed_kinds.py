"""Policies that follow, whatever made the pod's interface and wherever its rules are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from agents import serving as agent_of
from follower import following
from lab import PATIENCE, ROOT, Lab, eventually
from shop import DENY, FRIEND, FROM_FRIEND, NAMED, WEB, Shop, holds, network_policy, relabel, soon
from town import BRIDGED, RANGES, serving
from traffic import Actor
from warm import MODE

ON_THE_WIRE = [
    [{"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.100", "rangeEnd": "192.0.2.199"}],
    [{"subnet": "fd00:2::/64", "rangeStart": "fd00:2::100", "rangeEnd": "fd00:2::199"}],
]
BRIDGE = BRIDGED | {"ipam": {"ranges": RANGES}}
MACVLAN = {"cniVersion": "1.1.0", "name": "net", "type": "macvlan", "master": "eth0", "ipam": {"ranges": ON_THE_WIRE}}
AFTER = {"cniVersion": "1.1.0", "name": "net", "type": "custom-plugin"}
#: What makes the interface, and what holds it where that is another.
KINDS: dict[str, list[dict[str, Any]]] = {
    "bridged": [BRIDGE],
    "vxlan": [BRIDGE | {"vxlan": {"id": 7, "remotes": ["192.0.2.12"]}}],
    "sidecar": [BRIDGE | {"sidecar": {"excludeInboundPorts": [80], "excludeOutboundPorts": [80]}}],
    "macvlan": [MACVLAN],
    "chained": [BRIDGE, AFTER],
    "chained in the pod": [MACVLAN, AFTER],
}


class Chains(Shop):
    """A shop in which several plugins may make a pod; only those of a pod with a policy come after the first."""

    def __init__(self, lab: Lab, kinds: list[dict[str, Any]], folder: Path, held: ExitStack) -> None:
        super().__init__(lab, lab.site().host, kinds[0], folder, held)
        self.kinds = kinds
        self.calls: dict[str, list[dict[str, Any]]] = {}

    def open(self, name: str, policy: dict[str, Any] | None = None) -> None:
        kinds = self.kinds if policy else self.kinds[:1]
        *first, last = kinds
        self.pods[name] = self.lab.pod()
        self.calls[name] = []
        for conf in [*first, last | ({"policy": policy} if policy else {})]:
            given = {"prevResult": self.results[name]} if self.calls[name] else {}
            self.calls[name].append(conf | given)
            self.results[name] = self.host.add(conf | given, self.pods[name], CNI_ARGS=NAMED + name)
        self.actors[name] = serving(self.held.enter_context(Actor(self.pods[name])))

    def close(self, name: str) -> None:
        for conf in reversed(self.calls.pop(name)):
            self.host.delete_pod(conf, self.pods[name])


@pytest.fixture(params=KINDS)
def shop(request: pytest.FixtureRequest, lab: Lab, tmp_path: Path) -> Iterator[Chains]:
    """A friend and a stranger beside `web`, which is held to the friend; a member follows, and an agent runs."""
    with ExitStack() as held:
        shop = Chains(lab, KINDS[request.param], tmp_path, held)
        shop.host.run("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0", "net.bridge.bridge-nf-call-ip6tables=0")
        for name in ("friend", "stranger"):
            shop.open(name)
            shop.know(name)
        shop.put("deny.json", DENY)
        shop.put("friend.json", FROM_FRIEND)
        shop.fed("web")
        shop.know("web")
        if MODE != "warm":
            agent = agent_of(shop.host).process
            held.callback(agent.communicate, timeout=PATIENCE)
            held.callback(agent.terminate)
        held.enter_context(following(shop.host.prefix(), ROOT / ".venv/bin/python3"))
        assert soon(shop, True, "friend")
        assert holds(shop)
        yield shop
        assert eventually(lambda: shop.doctor() == []), shop.doctor()
        assert "changed 0 of 1" in shop.refresh()[1], "it has followed by itself"
        for name in list(shop.calls):
            shop.close(name)
        assert shop.host.run("nft", "list", "ruleset").stdout == ""


@pytest.mark.tried(
    "labels, documents and pods that change, whatever made the pod's interface", "rules follow, also those in a pod"
)
def test_a_label_is_followed(shop: Chains):
    relabel(shop, friend="stranger", stranger="friend")
    assert soon(shop, True, "stranger")
    assert soon(shop, False, "friend")
    relabel(shop, friend="friend", stranger="stranger")
    assert soon(shop, True, "friend")
    assert holds(shop)
    relabel(shop, web="other")
    assert soon(shop, False, "friend")


def test_a_document_is_followed(shop: Chains):
    from_stranger = {"from": [{"podSelector": {"matchLabels": {"app": "stranger"}}}]}
    shop.put("friend.json", network_policy("friend", podSelector=WEB, ingress=[from_stranger]))
    assert soon(shop, True, "stranger")
    assert soon(shop, False, "friend")
    shop.put("friend.json", network_policy("friend", podSelector=WEB, ingress=[FRIEND]))
    assert soon(shop, True, "friend")
    assert holds(shop)
    (shop.folder / "friend.json").unlink()
    assert soon(shop, False, "friend")
    (shop.folder / "deny.json").unlink()
    assert soon(shop, True, "stranger")


def accepting(*names: str) -> dict[str, Any]:
    rules = [{"action": "Accept", "to": [{"domainNames": [name]}]} for name in names]
    spec = {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, "egress": rules}
    version = "policy.networking.k8s.io/v1beta1"
    return {"apiVersion": version, "kind": "ClusterNetworkPolicy", "metadata": {"name": "names"}, "spec": spec}


def named(shop: Chains) -> dict[str, list[str]]:
    """The sets of what names are resolved to, and what is in each, wherever the rules of `web` are."""
    found = {}
    for place in (shop.host, shop.pods["web"]):
        listed = json.loads(place.run("nft", "-j", "list", "sets").stdout)["nftables"]
        sets = (item["set"] for item in listed if "set" in item)
        found |= {item["name"]: item.get("elem", []) for item in sets if item["name"].startswith(("d4-", "d6-"))}
    return found


def has_sets(shop: Chains, count: int) -> bool:
    return len(named(shop)) == count


@pytest.mark.tried(
    "names of domains that documents allow and do not allow any more, whatever made the pod's interface",
    "rules follow, also those in a pod; what was resolved from names that stay is let through all the time",
)
def test_names_are_followed_and_those_that_stay_keep_their_addresses(shop: Chains):
    shop.put("names.json", accepting("stays.example"))
    assert eventually(lambda: len(named(shop)) == 2)
    (kept,) = (name for name in named(shop) if name.startswith("d4-"))
    place = shop.pods["web"] if "d4-" in shop.pods["web"].run("nft", "list", "sets").stdout else shop.host
    place.run("nft", "add", "element", "inet", "agent_cni_policy", kept, "{", "192.0.2.99", "}")
    for others in (("first.example",), ("second.example", "third.example"), ()):
        shop.put("names.json", accepting("stays.example", *others))
        assert eventually(partial(has_sets, shop, 2 + 2 * len(others))), named(shop)
        assert [at for at in named(shop).values() if at] == [["192.0.2.99"]]
    (shop.folder / "names.json").unlink()
    assert eventually(lambda: named(shop) == {})


def test_a_pod_that_comes_and_goes_is_followed(shop: Chains):
    """One whose object says no address: whose it is tells its attachment alone."""
    shop.known.append(shop.unplaced("late"))
    relabel(shop, late="friend")
    shop.open("late")
    assert soon(shop, True, "late")
    assert holds(shop)
    shop.close("late")
    shop.known.pop()
    relabel(shop)
    assert eventually(lambda: shop.doctor() == [])
