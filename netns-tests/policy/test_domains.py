"""What is let through by a name: the pod's sets and the rules that look addresses up in them. Who fills them is another's; here it is a hand."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from interception import address_of
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
    listed = json.loads(run("nft", "-j", "list", "sets").stdout)["nftables"]
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


@pytest.mark.tried(
    "a pod that may reach what one name is resolved to, at other addresses and on other ports", "only that is reached"
)
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
    assert not sets(town.host.run)


@pytest.mark.tried(
    "DNS and DNS over TLS at an address that a name allows, without a rule for these ports",
    "nobody is asked there",
)
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


def test_equal_names_keep_their_addresses_through_a_change_of_others(town: Town, tmp_path: Path):
    web = town.member()
    folder = tmp_path / "policies"
    folder.mkdir()
    say(folder, "first.example")
    conf = town.conf({**WEB, "policyDir": str(folder)})
    pod = town.lab.pod()
    result = town.host.add(conf, pod, CNI_ARGS=CARRIES + "one")
    actor = serving(town.held.enter_context(Actor(pod)))
    before = sets(town.host.run)
    resolved(town.host.run, web.address(4))
    assert reaches(actor, web, 4)
    say(folder, "second.example")
    assert "1" in town.host.run(AGENT_CNI, "refresh").stdout
    after = sets(town.host.run)
    assert reaches(actor, web, 4)
    kept = before.keys() & after.keys()
    assert len(kept) == 2
    assert len(after) == 4
    assert town.host.run(AGENT_CNI, "policy", "why", "shop/one", f"{web.address(4)}:80").stdout.count(
        "the configuration"
    )
    says = town.host.run(AGENT_CNI, "policy", "why", "shop/one", "WWW.example.org:80").stdout
    assert "allowed by the configuration, $.policy.egress" in says
    assert "its question for www.example.org: let through" in says
    says = town.host.run(AGENT_CNI, "policy", "why", "shop/one", "example.org:80", check=False).stdout
    assert "denied" in says
    assert "its question for example.org: refused" in says
    assert (
        "allowed by ClusterNetworkPolicy names"
        in town.host.run(AGENT_CNI, "policy", "why", "shop/one", "second.example:443").stdout
    )
    shown = town.host.run(AGENT_CNI, "policy", "show", "shop/one").stdout
    assert f"*.example.org, api.example.com: {web.address(4)}\n" in shown
    assert "second.example: nothing resolved\n" in shown
    assert [web.address(4)] in (after[name] for name in kept), "nobody took it out"
    assert [after[name] for name in after.keys() - before.keys()] == [[], []]
    town.host.check(conf, pod, result).ok()


@pytest.mark.tried(
    "a pod to which an administrator leaves names alone, and denies all else",
    "it reaches what is resolved",
)
def test_an_administrator_leaves_a_pod_names_and_nothing_else(town: Town, tmp_path: Path):
    web, other = town.member(), town.member()
    folder = tmp_path / "policies"
    folder.mkdir()
    everywhere = {"action": "Deny", "to": [{"networks": ["0.0.0.0/0", "::/0"]}]}
    say(folder, "first.example", everywhere)
    conf = town.conf({"policyDir": str(folder)}, dns={"nameservers": [web.address(4)]})
    pod = town.lab.pod()
    result = town.host.add(conf, pod, CNI_ARGS=CARRIES + "one")
    actor = serving(town.held.enter_context(Actor(pod)))
    assert not reaches(actor, web, 4)
    resolved(town.host.run, *(other.address(family) for family in FAMILIES))
    for family in FAMILIES:
        assert reaches(actor, other, family)
        assert not reaches(actor, web, family)
        assert other.actor.reaches(address_of(result, family), 80) == "it", "answers pass"
    town.host.check(conf, pod, result).ok()
    town.host.delete_pod(conf, pod)
    assert not sets(town.host.run)


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
    assert not sets(town.host.run)


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


def say(folder: Path, name: str, *later: dict[str, Any]) -> None:
    """Have documents let pods of the namespace go by a name, before other rules."""
    spec = {
        "tier": "Admin", "priority": 1, "subject": {"namespaces": {}},
        "egress": [{"action": "Accept", "to": [{"domainNames": [name]}]}, *later],
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
