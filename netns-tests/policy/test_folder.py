"""Kubernetes NetworkPolicies from a folder: pods are held to them at ADD, and after `agent-cni refresh`."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from interception import address_of
from lab import AGENT_CNI, ROOT, Host, Lab, Pod, Site
from shop import DENY, FRIEND, FROM_FRIEND, NAMED, WEB, Shop, holds, kube_pod, network_policy, opened
from town import BRIDGED, FAMILIES, KINDS, RANGES, ROUTED, serving
from traffic import SHORTLY, TIMED_OUT, Actor


def only_from(app: str) -> dict[str, Any]:
    rule = {"from": [{"podSelector": {"matchLabels": {"app": app}}}]}
    spec = {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [rule]}
    return {"kind": "NetworkPolicy", "metadata": {"namespace": "shop", "name": "web"}, "spec": spec}


def test_a_pod_follows_the_folder(lab: Lab, host: Host, tmp_path: Path):
    conf = {"cniVersion": "1.1.0", "name": "net", "type": "custom-plugin", "ipam": {"ranges": RANGES}}
    fed = conf | {"policy": {"policyDir": str(tmp_path)}}
    pods: dict[str, Pod] = {name: lab.pod() for name in ("friend", "stranger", "web")}
    args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME="
    results = {name: host.add(conf, pods[name], CNI_ARGS=args + name) for name in ("friend", "stranger")}
    known = [kube_pod(name, results[name], app=name) for name in results]
    mine = {"kind": "Pod", "metadata": {"namespace": "shop", "name": "web", "labels": {"app": "web"}}}
    (tmp_path / "pods.json").write_text(json.dumps({"kind": "List", "items": [*known, mine]}))
    (tmp_path / "policy.json").write_text(json.dumps(only_from("friend")))
    result = results["web"] = host.add(fed, pods["web"], CNI_ARGS=args + "web")
    with ExitStack() as held:
        actors = {name: serving(held.enter_context(Actor(pod))) for name, pod in pods.items()}
        for family in (4, 6):
            assert actors["friend"].connect(address_of(result, family), 80, keep=f"kept{family}")["who"] == "it"
            assert actors["stranger"].connect(address_of(result, family), 80) == TIMED_OUT
        (tmp_path / "policy.json").write_text(json.dumps(only_from("stranger")))
        assert "changed 1 of 1" in host.run(AGENT_CNI, "refresh").stdout
        for family in (4, 6):
            assert actors["stranger"].reaches(address_of(result, family), 80) == "it"
            assert actors["friend"].echo(f"kept{family}", seconds=SHORTLY) == TIMED_OUT, (
                "what is no longer allowed is cut"
            )
        assert "changed 0 of 1" in host.run(AGENT_CNI, "refresh").stdout
        (tmp_path / "policy.json").write_text("a: [")
        refused = host.run(AGENT_CNI, "refresh", check=False)
        assert (refused.returncode, str(tmp_path / "policy.json") in refused.stderr) == (1, True)
        found = json.loads(host.run(AGENT_CNI, "doctor", "--json", check=False).stdout)["attachments"]
        assert [item["mend"] for item in found] == ["put the folder or file right, then agent-cni refresh"]
        assert actors["stranger"].reaches(address_of(result, 4), 80) == "it", "the last good policy stays"
        (tmp_path / "policy.json").unlink()
        host.run(AGENT_CNI, "refresh")
        assert actors["friend"].reaches(address_of(result, 4), 80) == "it"
    host.check(fed, pods["web"], result, CNI_ARGS=args + "web").ok()
    for name, pod in pods.items():
        host.delete_pod(fed if name == "web" else conf, pod)
    assert host.run("nft", "list", "ruleset").stdout == ""


def test_a_folder_that_cannot_be_read_attaches_nobody(host: Host, pod: Pod):
    conf = {"cniVersion": "1.1.0", "name": "net", "type": "custom-plugin", "policy": {"policyDir": "/nowhere"}}
    assert "/nowhere is no folder" in host.cni("ADD", conf, pod).failed(7)
    host.delete_pod(conf, pod)


# --- a folder in every state, and pods of every kind

REFRESH = "agent-cni refresh"
MENDED_THERE = "put the folder or file right, then agent-cni refresh"


@pytest.fixture(params=KINDS)
def shop(request: pytest.FixtureRequest, lab: Lab, host: Host, tmp_path: Path) -> Iterator[Shop]:
    with opened(lab, host, KINDS[request.param], tmp_path) as made:
        yield made


UNREADABLE = {
    "emptied": "",
    "cut": json.dumps(FROM_FRIEND)[:-7],
    "Status": json.dumps({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "Unauthorized"}),
    "Calico's": json.dumps(FROM_FRIEND | {"apiVersion": "crd.projectcalico.org/v1"}),
    "no object": "- 1",
}


@pytest.mark.tried(
    "a policy file emptied, cut, a Status, Calico's",
    "what it said last holds, for pods that come too, and the file is named; ADD is refused where nobody knows that",
)
@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
def test_a_file_that_says_nothing_that_can_be_opens_nobody(shop: Shop, content: str):
    shop.fed("web")
    assert holds(shop)
    (shop.folder / "deny.json").unlink()
    wrong = shop.put("friend.json", content)
    code, _, said = shop.refresh()
    assert (code, said.count(str(wrong))) == (1, 1)
    assert holds(shop)
    assert [(str(wrong) in item["what"], item["mend"]) for item in shop.doctor()] == [(True, MENDED_THERE)]
    shop.fed("late")
    assert not shop.gets_in("stranger", "late")
    for file in shop.host.folder.glob("documents.db*"):
        file.unlink()
    later = shop.lab.pod()
    assert str(wrong) in shop.host.cni("ADD", shop.confs["web"], later, CNI_ARGS=NAMED + "later").failed(7)
    shop.host.delete_pod(shop.confs["web"], later)
    assert holds(shop)
    shop.host.check(shop.confs["web"], shop.pods["web"], shop.results["web"], CNI_ARGS=NAMED + "web").ok()
    wrong.unlink()
    assert shop.refresh()[0] == 0
    assert shop.gets_in("stranger"), "a file that is deleted says that its policies are gone"


def test_lists_as_the_api_prints_them_hold(shop: Shop):
    for name in ("deny.json", "friend.json"):
        (shop.folder / name).unlink()
    bare = [{key: item[key] for key in ("metadata", "spec")} for item in (DENY, FROM_FRIEND)]
    shop.put("all.json", {"kind": "NetworkPolicyList", "apiVersion": "networking.k8s.io/v1", "items": bare})
    shop.fed("web")
    assert holds(shop)


BROKEN = {
    "form": {"ingress": [{"form": []}]},
    "port": {"ingress": [{"ports": [{"port": 70000}]}]},
    "protocol": {"ingress": [{"ports": [{"protocol": "tcp return\nadd table inet owned\n#"}]}]},
    "excepts": {"ingress": [{"from": [{"ipBlock": {"cidr": "0.0.0.0/0", "excepts": []}}]}]},
    "matchLabel": {"ingress": [{"from": [{"podSelector": {"matchLabel": {"app": "friend"}}}]}]},
    "types": {"policyTypes": ["ingress"], "ingress": []},
    "selector": {"podSelector": {"matchLabel": {"app": "web"}}, "ingress": [{}]},
}


@pytest.mark.tried(
    "a misspelt or impossible part of a policy, nft in `protocol`", "shut, the rest allowed, named until mended"
)
@pytest.mark.parametrize("spec", BROKEN.values(), ids=BROKEN)
def test_what_is_broken_in_one_part_shuts_and_lets_the_rest_through(shop: Shop, spec: dict[str, Any]):
    """Beside nobody else, at an ADD and at a refresh; it is said until it is mended."""
    (shop.folder / "deny.json").unlink()
    shop.put("broken.json", network_policy("broken", **({"podSelector": WEB} | spec)))
    shop.fed("web")
    assert holds(shop)
    assert shop.gets_in("web", "stranger"), "the other direction is nobody's business"
    for _ in range(2):
        code, said, complaint = shop.refresh()
        assert (code, "changed 0 of 1" in said, "NetworkPolicy shop/broken: spec." in complaint) == (1, True, True)
    (found,) = shop.doctor()
    assert "NetworkPolicy shop/broken: spec." in found["what"]
    assert found["mend"] == MENDED_THERE
    (shop.folder / "friend.json").unlink()
    assert shop.refresh()[0] == 1
    assert not shop.gets_in("friend"), "nothing of the broken one is allowed"
    shop.put("broken.json", network_policy("broken", podSelector=WEB, ingress=[{}]))
    assert shop.refresh()[0] == 0
    assert shop.gets_in("stranger")
    assert "owned" not in shop.host.run("nft", "list", "tables").stdout


def test_an_open_pod_is_shut_by_what_comes_broken(shop: Shop):
    for name in ("deny.json", "friend.json"):
        (shop.folder / name).unlink()
    shop.fed("web")
    assert shop.gets_in("stranger")
    shop.put("deny.json", DENY)
    shop.put("broken.json", network_policy("broken", podSelector=WEB, ingress=[FRIEND, {"ports": [{"port": 70000}]}]))
    code, said, _ = shop.refresh()
    assert (code, "changed 1 of 1" in said) == (1, True)
    assert holds(shop)


def test_named_ports_and_host_bits_are_resolved(shop: Shop):
    ports = [
        {"ports": [{"name": "http", "containerPort": 81}, {"name": "alt", "containerPort": 80, "protocol": "UDP"}]}
    ]
    shop.know("web", containers=ports)
    shop.know("friend", containers=[{"ports": [{"name": "http", "containerPort": 9090}]}])
    shop.know("stranger", containers=[{"ports": [{"name": "http", "containerPort": 80}]}])
    named = {"ports": [{"port": "http"}, {"port": "alt"}, {"port": "nobodys"}]}
    to = [{"podSelector": {}}, {"ipBlock": {"cidr": "192.0.2.77/24"}}]
    spec = {
        "podSelector": WEB,
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [named],
        "egress": [named | {"to": to}],
    }
    shop.put("friend.json", network_policy("named", **spec))
    shop.fed("web")
    assert [shop.gets_in("stranger", port=port) for port in (80, 81, 9090)] == [False, True, False]
    assert [shop.gets_in("web", "friend", port) for port in (80, 81, 9090)] == [False, False, True]
    assert [shop.gets_in("web", "stranger", port) for port in (80, 81, 9090)] == [True, False, False]
    code, said, complaint = shop.refresh()
    assert (code, "changed 0 of 1" in said, complaint) == (0, True, "")


@pytest.mark.tried("a pod whose labels the folder does not know yet", "shut until they are")
def test_a_pod_that_is_not_known_yet_is_shut_until_it_is(shop: Shop):
    (shop.folder / "deny.json").unlink()
    shop.known = [item for item in shop.known if item["metadata"]["name"] != "web"]
    shop.know("friend")
    shop.fed("web")
    assert not shop.gets_in("friend")
    assert not shop.gets_in("stranger")
    assert shop.gets_in("web", "stranger"), "no policy of its namespace shuts what leaves"
    shop.know("web")
    assert "changed 1 of 1" in shop.refresh()[1]
    assert holds(shop)
    shop.known[-1]["metadata"]["labels"] = {"app": "other"}
    shop.put("pods.json", {"kind": "PodList", "apiVersion": "v1", "items": shop.known})
    assert shop.refresh()[0] == 0
    assert shop.gets_in("stranger")


def test_a_pod_without_a_name_is_not_attached(shop: Shop):
    conf = shop.conf({"policyDir": str(shop.folder)})
    for args in ("", "K8S_POD_NAME=web", "K8S_POD_NAMESPACE=shop"):
        said = shop.host.cni("ADD", conf, shop.lab.pod(), CNI_ARGS=args).failed(7)
        assert "$.policy.policyDir: CNI_ARGS has no K8S_POD_NAMESPACE and K8S_POD_NAME" in said
        assert str(shop.folder) in said


def ruleset(shop: Shop) -> list[str]:
    """Every line in some order."""
    return sorted(shop.host.run("nft", "-s", "list", "ruleset").stdout.splitlines())


@pytest.mark.tried("`nft flush ruleset`, then `agent-cni refresh`", "everything is made again")
def test_after_a_flush_a_refresh_makes_everything_again(shop: Shop):
    """Also of pods that no folder feeds; a folder that cannot be read meanwhile leaves the last that could."""
    shop.fed("web", log=True)
    shop.open(
        "alone",
        {"ingress": [f"{address_of(shop.results['friend'], 4)}/32", f"{address_of(shop.results['friend'], 6)}/128"]},
    )
    before = ruleset(shop)
    for wrong in (None, shop.folder / "wrong.yaml"):
        shop.host.run("nft", "flush", "ruleset")
        assert shop.gets_in("stranger"), "nothing is left"
        assert shop.gets_in("stranger", "alone")
        found = shop.doctor()
        assert {item["mend"] for item in found} == {REFRESH}
        assert any(pod.endswith("/alone") for item in found for pod in item["pods"])
        if wrong:
            wrong.write_text("a: [")
        code, said, complaint = shop.refresh()
        others = 1 if shop.kind == BRIDGED else 3
        assert said.startswith(f"changed 1 of 1 attachments with a policyDir, {others} of 3 with other rules")
        assert (code, "wrong.yaml" in complaint) == ((1, True) if wrong else (0, False))
        assert ruleset(shop) == before
        assert holds(shop)
        assert not shop.gets_in("stranger", "alone")
        assert shop.gets_in("friend", "alone")
        assert {item["mend"] for item in shop.doctor()} == ({MENDED_THERE} if wrong else set())
    for name in ("web", "alone"):
        shop.host.check(shop.confs[name], shop.pods[name], shop.results[name], CNI_ARGS=NAMED + name).ok()


POLICY, GUARD = "inet agent_cni_policy", "netdev agent_cni-"
MISSING = {
    "table": lambda chain, address: [f"delete table {POLICY}"],
    "guards": lambda chain, address: [f"delete table {GUARD}{chain.removeprefix('in-')[0]}"],
    "guards' rules": lambda chain, address: [f"flush table {GUARD}{chain.removeprefix('in-')[0]}"],
    "chain's rules": lambda chain, address: [f"flush chain {POLICY} {chain}"],
    "map element": lambda chain, address: [f"delete element {POLICY} in4 {{ {address} }}"],
    "base chain's rules": lambda chain, address: [f"flush chain {POLICY} forward"],
    "a rule too many": lambda chain, address: [f"insert rule {POLICY} {chain} accept"],
}


@pytest.mark.tried("tables, chains, elements, rules deleted one by one, then refresh", "made again")
@pytest.mark.parametrize("missing", MISSING)
def test_whatever_is_missing_in_the_kernel_is_made_again(shop: Shop, missing: str):
    shop.fed("web")
    before = ruleset(shop)
    address = address_of(shop.results["web"], 4)
    listed = shop.host.run("nft", "get", "element", *POLICY.split(), "in4", f"{{ {address} }}").stdout
    chain = re.search(rf"{re.escape(address)} : jump (\S+)", listed)
    assert chain
    for line in MISSING[missing](chain[1], address):
        shop.host.run("nft", line)
    assert REFRESH in {item["mend"] for item in shop.doctor()}
    told = json.loads(shop.host.run(AGENT_CNI, "refresh", "--json").stdout)
    assert (told["changed"] > 0, told["failed"]) == (True, [])
    assert ruleset(shop) == before
    assert holds(shop)
    assert "changed 0 of 1" in shop.refresh()[1]
    assert shop.doctor() == []


def test_a_bridge_that_hides_its_traffic_shows_it_again(shop: Shop):
    if shop.kind != BRIDGED:
        pytest.skip("there is no bridge")
    shop.fed("web")
    shop.host.run("ip", "link", "set", "br0", "type", "bridge", "nf_call_iptables", 0, "nf_call_ip6tables", 0)
    assert shop.gets_in("stranger")
    assert {item["mend"] for item in shop.doctor()} == {REFRESH}
    assert shop.refresh()[0] == 0
    assert shop.doctor() == []
    assert holds(shop)


KILLED = """
import os, sys
from cni import engine
from cni.command.main import main
engine.apply = lambda *_: os.kill(os.getpid(), 9)
main(["refresh"])
"""


def test_a_refresh_that_was_killed_is_finished_by_the_next(shop: Shop):
    shop.fed("web")
    from_stranger = {"from": [{"podSelector": {"matchLabels": {"app": "stranger"}}}]}
    shop.put("friend.json", network_policy("friend", podSelector=WEB, ingress=[from_stranger]))
    (found,) = shop.doctor()
    assert (found["mend"], "not what its policyDir says now" in found["what"]) == (REFRESH, True)
    killed = shop.host.run(ROOT / ".venv/bin/python3", "-I", "-c", KILLED, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert holds(shop), "what was enforced is"
    assert {item["mend"] for item in shop.doctor()} == {REFRESH}
    assert "changed 1 of 1" in shop.refresh()[1]
    assert shop.gets_in("stranger")
    assert not shop.gets_in("friend")
    assert shop.doctor() == []


def test_without_its_state_the_doctor_names_what_is_left(shop: Shop):
    shop.fed("web")
    kept = {file: file.read_bytes() for file in shop.host.folder.glob("state.db*")}
    for file in kept:
        file.unlink()
    assert shop.refresh() == (0, "changed 0 of 0 attachments with a policyDir\n", "")
    found = json.loads(shop.host.run(AGENT_CNI, "doctor", "--json", check=False).stdout)
    assert sum("is the host end of" in item["what"] for item in found["leftovers"]) == 3
    assert any("which holds 10." in item["what"] for item in found["leftovers"])
    assert found["attachments"] == []
    assert holds(shop), "nobody takes away what nobody knows"
    for file, content in kept.items():
        file.write_bytes(content)


def test_a_chained_plugin_is_made_again_too(lab: Lab, host: Host, tmp_path: Path):
    """Only the addresses of the interface it was chained to are its own."""
    bridged, pod, peer = BRIDGED | {"ipam": {"ranges": RANGES}}, lab.pod(), lab.pod()
    before, other = host.add(bridged, pod), host.add(bridged, peer)
    chained = ROUTED | {"policy": {"policyDir": str(tmp_path)}, "prevResult": before}
    (tmp_path / "deny.json").write_text(json.dumps(DENY))
    host.add(chained, pod, CNI_ARGS=NAMED + "web")
    with Actor(pod) as web, Actor(peer) as stranger:
        serving(web), serving(stranger)
        for again in (False, True):
            if again:
                host.run("nft", "flush", "ruleset")
                assert stranger.reaches(address_of(before, 4), 80) == "it"
                assert "changed 1 of 1" in host.run(AGENT_CNI, "refresh").stdout
            for family in FAMILIES:
                assert stranger.connect(address_of(before, family), 80) == TIMED_OUT
                assert web.reaches(address_of(other, family), 80) == "it"
    host.check(chained, pod, before, CNI_ARGS=NAMED + "web").ok()
    host.delete_pod(chained, pod)
    for one in (pod, peer):
        host.delete_pod(bridged, one)
    assert host.run("nft", "list", "ruleset").stdout == ""


def test_in_a_pod_without_a_host_side_too(site: Site, lab: Lab, dual: dict[str, Any], tmp_path: Path):
    web, peer, conf = lab.pod(), lab.pod(), dual | {"policy": {"policyDir": str(tmp_path)}}
    (tmp_path / "deny.json").write_text(json.dumps(DENY))
    result, other = site.host.add(conf, web, CNI_ARGS=NAMED + "web"), site.host.add(dual, peer)
    with Actor(web) as server, Actor(peer) as stranger:
        serving(server), serving(stranger)
        for again in (False, True):
            if again:
                web.run("nft", "flush", "ruleset")
                assert stranger.reaches(address_of(result, 4), 80) == "it"
                found = json.loads(site.host.run(AGENT_CNI, "doctor", "--json", check=False).stdout)["attachments"]
                assert {item["mend"] for item in found} == {REFRESH}
                assert "changed 1 of 1" in site.host.run(AGENT_CNI, "refresh").stdout
            for family in FAMILIES:
                assert stranger.connect(address_of(result, family), 80) == TIMED_OUT
                assert server.reaches(address_of(other, family), 80) == "it"
    site.host.delete_pod(conf, web)
    site.host.delete_pod(dual, peer)
