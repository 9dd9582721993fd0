"""What is let through by a name: the pod's sets and the rules that look addresses up in them. Who fills them is another's; here it is a hand."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from lab import AGENT_CNI, Host, Lab, Site
from town import FAMILIES, KINDS, TABLE, Member, Town, serving
from traffic import TIMED_OUT, Actor

NAMES = ["api.example.com", "*.example.org"]
WEB = {"egress": [{"to": [{"domainNames": NAMES}], "ports": [{"port": 80}]}]}
CARRIES = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME="


@pytest.fixture(params=KINDS)
def town(request: pytest.FixtureRequest, lab: Lab, host: Host) -> Iterator[Town]:
    with ExitStack() as held:
        yield Town(host, lab, request.param, held)


Run = Callable[..., Any]


def sets(run: Run) -> dict[str, list[str]]:
    """What is in each set of a pod's names, by the set's name."""
    listed = json.loads(run("nft", "-j", "list", "table", *TABLE).stdout)["nftables"]
    found = (item["set"] for item in listed if "set" in item)
    return {item["name"]: item.get("elem", []) for item in found if re.match("d[46]-", item["name"])}


def resolved(run: Run, *addresses: str, among: str = "") -> None:
    """Have what the names of a rule are resolved to be these."""
    for name in sets(run):
        some = [text for text in addresses if (":" in text) == (name[1] == "6")]
        if some and among in name:
            run("nft", "add", "element", *TABLE, name, "{", ", ".join(some), "}")


def reaches(one: Actor, other: Member, family: int, port: int = 80) -> bool:
    seen = one.connect(other.address(family), port)
    assert seen == TIMED_OUT or seen["who"] == "it", seen
    return bool(seen != TIMED_OUT)


def test_what_a_name_is_resolved_to_is_let_through_and_nothing_else(town: Town):
    web, other = town.member(), town.member()
    pod = town.member(WEB)
    assert len(sets(town.host.run)) == 2
    assert not reaches(pod.actor, web, 4), "nothing is resolved yet"
    resolved(town.host.run, *(web.address(family) for family in FAMILIES))
    for family in FAMILIES:
        assert reaches(pod.actor, web, family)
        assert not reaches(pod.actor, web, family, 81), "another port"
        assert not reaches(pod.actor, other, family), "another address"
        assert reaches(other.actor, pod, family), "ingress is open"
    town.host.check(pod.conf, pod.pod, pod.result).ok()
    town.host.delete_pod(pod.conf, pod.pod)
    assert not town.host.run("nft", "list", "table", *TABLE, check=False).stdout.count("d4-")


def test_a_pod_asks_its_resolvers_and_nobody_by_a_name(town: Town):
    web, other = town.member(), town.member()
    for member in (web, other):
        for port in (53, 853):
            member.actor.listen("it", port)
    pod = town.member({"egress": [{"to": [{"domainNames": NAMES}]}]}, dns={"nameservers": [web.address(4)]})
    resolved(town.host.run, other.address(4), web.address(4))
    assert not reaches(pod.actor, web, 4, 853)
    assert not reaches(pod.actor, other, 4, 53)
    assert not reaches(pod.actor, other, 4, 853)
    assert reaches(pod.actor, other, 4, 9090)
    assert pod.pod.pings(other.address(4))


def test_without_a_record_a_pods_sets_go_with_it(town: Town):
    stays = town.member(WEB)
    pod = town.member(WEB)
    assert len(sets(town.host.run)) == 4
    other = set(sets(town.host.run))
    town.host.lose_state()
    town.host.delete_pod(pod.conf, pod.pod)
    assert len(sets(town.host.run)) == 2
    assert sets(town.host.run).keys() < other
    town.host.delete_pod(stays.conf, stays.pod)
    assert not town.host.run("nft", "list", "table", *TABLE, check=False).stdout.count("d4-")


def test_a_set_that_somebody_took_away_is_named_and_made_again(town: Town):
    pod = town.member(WEB)
    names = sorted(sets(town.host.run))
    chain = next(iter(re.findall(r"chain (out-[0-9a-f]+) \{", town.host.run("nft", "list", "table", *TABLE).stdout)))
    town.host.run("nft", "flush", "chain", *TABLE, chain)
    town.host.run("nft", "delete", "set", *TABLE, names[0])
    assert f"policy set {names[0]} is missing" in town.host.check(pod.conf, pod.pod, pod.result).failed(104)
    town.host.run(AGENT_CNI, "refresh")
    town.host.check(pod.conf, pod.pod, pod.result).ok()
    assert sorted(sets(town.host.run)) == names


def test_a_macvlan_pod_has_its_sets_in_its_own_namespace(site: Site, lab: Lab):
    conf = {"cniVersion": "1.1.0", "name": "net", "type": "macvlan", "master": "eth0"}
    conf |= {"ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]}}
    web, pod = lab.pod(), lab.pod()
    address = site.host.add(conf, web)["ips"][0]["address"].split("/")[0]
    result = site.host.add(conf | {"policy": WEB}, pod)
    with Actor(web) as serves, Actor(pod) as asks:
        serving(serves)
        assert "error" in asks.connect(address, 80)
        resolved(pod.run, address)
        assert asks.connect(address, 80)["who"] == "it"
        assert "error" in asks.connect(address, 81)
    name = f"net/{pod.container}/eth0"
    assert "allowed by the configuration" in site.host.run(AGENT_CNI, "policy", "why", name, f"{address}:80").stdout
    assert "denied" in site.host.run(AGENT_CNI, "policy", "why", name, f"{address}:81", check=False).stdout
    site.host.check(conf | {"policy": WEB}, pod, result).ok()
    site.host.delete_pod(conf | {"policy": WEB}, pod)
    assert not pod.run("nft", "list", "ruleset").stdout
    site.host.delete_pod(conf, web)


def say(folder: Path, name: str) -> None:
    """Have documents let pods of the namespace go by a name, and deny nothing."""
    spec = {
        "tier": "Admin", "priority": 1, "subject": {"namespaces": {}},
        "egress": [{"action": "Accept", "to": [{"domainNames": [name]}]}],
    }  # fmt: skip
    head = {"apiVersion": "policy.networking.k8s.io/v1beta1", "kind": "ClusterNetworkPolicy"}
    (folder / "new").write_text(json.dumps(head | {"metadata": {"name": "names"}, "spec": spec}))
    (folder / "new").rename(folder / "names.json")


def test_what_a_pod_without_a_record_left_is_named_and_out_of_the_way_of_who_gets_its_address(town: Town):
    gone = town.member(WEB)
    left = sets(town.host.run)
    gone.actor.close()
    town.host.bury(gone.pod)
    town.host.lose_state()
    said = town.host.run(AGENT_CNI, "doctor", check=False).stdout
    assert all(f"nft delete set {' '.join(TABLE)} {name}" in said for name in left)
    pod = town.member({"egress": []})
    assert pod.address(4) == gone.address(4)
    assert not sets(town.host.run)
