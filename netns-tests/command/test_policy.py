"""What an operator is told of policies: which there are, what holds a pod, which one decides, what others would change, and drops."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from interception import address_of
from lab import AGENT_CNI, PATIENCE, Host, Lab, Pod
from town import RANGES, serving
from traffic import TIMED_OUT, Actor

ARGS = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME="
PODS = ("web", "db", "stranger")


def network_policy(name: str, **spec: Any) -> dict[str, Any]:
    metadata = {"namespace": "shop", "name": name}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def cluster_policy(name: str, **spec: Any) -> dict[str, Any]:
    said = {"apiVersion": "policy.networking.k8s.io/v1beta1", "kind": "ClusterNetworkPolicy"}
    return said | {
        "metadata": {"name": name},
        "spec": {"tier": "Admin", "priority": 10, "subject": {"namespaces": {}}, **spec},
    }


DB = network_policy(
    "db",
    podSelector={"matchLabels": {"app": "db"}},
    ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": "sql"}]}],
)
NO_STRANGERS = cluster_policy(
    "no-strangers",
    egress=[
        {"name": "away", "action": "Deny", "to": [{"pods": {"podSelector": {"matchLabels": {"app": "stranger"}}}}]}
    ],
)


@dataclass
class Shop:
    """A node with a web server, its database and a stranger, in one namespace, whose policies are in a folder."""

    host: Host
    folder: Path
    results: dict[str, dict[str, Any]]
    actors: dict[str, Actor]

    def ask(self, *words: str, code: int = 0) -> Any:
        """What a question's answer is as JSON; people are told the same, with the same code."""
        found = self.host.run(AGENT_CNI, "policy", *words, "--json", check=False)
        told = self.host.run(AGENT_CNI, "policy", *words, check=False)
        assert (found.returncode, told.returncode) == (code, code), (found.stdout, found.stderr, told.stderr)
        return json.loads(found.stdout)

    def tell(self, *words: str) -> str:
        return str(self.host.run(AGENT_CNI, "policy", *words, check=False).stdout)

    def address(self, pod: str, family: int = 4) -> str:
        return str(address_of(self.results[pod], family))


@pytest.fixture
def shop(lab: Lab, host: Host, tmp_path: Path) -> Iterator[Shop]:
    folder = tmp_path / "policies"
    folder.mkdir()
    conf = {"cniVersion": "1.1.0", "name": "net", "type": "custom-plugin", "ipam": {"ranges": RANGES}}
    conf["policy"] = {"policyDir": str(folder), "log": True}
    ports = {"db": [{"name": "sql", "containerPort": 80}]}
    objects = [
        {
            "kind": "Pod",
            "metadata": {"namespace": "shop", "name": name, "labels": {"app": name}},
            "spec": {"containers": [{"ports": ports.get(name, [])}]},
        }
        for name in PODS
    ]
    (folder / "pods.json").write_text(json.dumps({"kind": "List", "items": [*objects, DB, NO_STRANGERS]}))
    pods: dict[str, Pod] = {name: lab.pod() for name in PODS}
    results = {name: host.add(conf, pod, CNI_ARGS=ARGS + name) for name, pod in pods.items()}
    with ExitStack() as held:
        yield Shop(host, folder, results, {name: serving(held.enter_context(Actor(pod))) for name, pod in pods.items()})
    for pod in pods.values():
        host.delete_pod(conf, pod)


def test_every_document_is_listed_with_whom_it_is_about(shop: Shop):
    found = shop.ask("list")
    assert found["faults"] == []
    rows = {(row["kind"], row["namespace"], row["name"]): (row["tier"], row["pods"]) for row in found["documents"]}
    assert rows == {
        ("NetworkPolicy", "shop", "db"): ("networkpolicy", 1),
        ("ClusterNetworkPolicy", "", "no-strangers"): ("admin 10", 3),
    }
    (shop.folder / "wrong.json").write_text(json.dumps(network_policy("wrong", podSelector={}, ingres=[])))
    assert "NetworkPolicy shop/wrong: spec.ingres: unknown field" in str(shop.ask("list", code=1)["faults"])


def test_a_pod_is_shown_with_what_is_said_about_it_and_its_rules(shop: Shop):
    (found,) = shop.ask("show", "shop/db")
    assert found["ingress"] == ["NetworkPolicy shop/db"]
    assert found["egress"] == ["ClusterNetworkPolicy no-strangers (admin 10)"]
    assert any('comment "NetworkPolicy shop/db"' in rule for rule in found["rules"])
    assert found == shop.ask("show", shop.address("db"))[0]
    assert "into it:\n    NetworkPolicy shop/db" in shop.tell("show", "shop/db")
    refused = shop.host.run(AGENT_CNI, "policy", "show", "shop/nobody", check=False)
    assert (refused.returncode, "there are: shop/db, shop/stranger, shop/web" in refused.stderr) == (1, True)


#: Who asks whom, and the word that decides; whether it may be.
ANSWERS: list[tuple[str, str, str, bool]] = [
    ("shop/web", "shop/db:80", "into shop/db: allowed by NetworkPolicy shop/db, ingress[0]", True),
    ("shop/web", "shop/db:sql", "into shop/db: allowed by NetworkPolicy shop/db, ingress[0]", True),
    ("shop/web", "shop/db:81", "into shop/db: denied by NetworkPolicy shop/db: no rule allows it", False),
    ("shop/stranger", "shop/db:80", "into shop/db: denied by NetworkPolicy shop/db: no rule allows it", False),
    (
        "shop/web",
        "shop/stranger:80",
        "out of shop/web: denied by ClusterNetworkPolicy no-strangers, egress[0] 'away'",
        False,
    ),
    ("shop/db", "shop/web:80", "into shop/web: allowed by default", True),
    ("shop/db", "192.0.2.77:443", "out of shop/db: allowed by default", True),
    ("192.0.2.77", "shop/db:80/udp", "into shop/db: denied by NetworkPolicy shop/db: no rule allows it", False),
    ("shop/web", "shop/db/icmp", "into shop/db: denied by NetworkPolicy shop/db: no rule allows it", False),
]


@pytest.mark.parametrize(("source", "to", "word", "allowed"), ANSWERS)
def test_the_word_that_decides_is_told(shop: Shop, source: str, to: str, word: str, allowed: bool):
    answers = shop.ask("why", source, to, code=0 if allowed else 1)
    assert {answer["allowed"] for answer in answers} == {allowed}
    assert word in shop.tell("why", source, to)


def test_what_is_told_is_what_happens(shop: Shop):
    for source in PODS:
        for target in PODS:
            for family in (4, 6):
                address = shop.address(target, family)
                if source != target:
                    where = f"[{address}]:80" if family == 6 else f"{address}:80"
                    found = shop.host.run(AGENT_CNI, "policy", "why", f"shop/{source}", where, check=False)
                    reached = shop.actors[source].connect(address, 80) != TIMED_OUT
                    assert (found.returncode == 0) is reached, found.stdout


@pytest.mark.parametrize("words", [("shop/web", "shop/db"), ("shop/web", "shop/db:80/icmp"), ("shop/web", "a:b:c")])
def test_a_question_that_is_none_is_refused(shop: Shop, words: tuple[str, str]):
    refused = shop.host.run(AGENT_CNI, "policy", "why", *words, check=False)
    assert (refused.returncode, "TO:PORT" in refused.stderr) == (2, True)


def test_what_a_change_would_change_is_told_and_nothing_changes(shop: Shop, tmp_path: Path):
    change = tmp_path / "change.json"
    change.write_text(json.dumps(network_policy("web", podSelector={"matchLabels": {"app": "web"}}, ingress=[])))
    rows = shop.ask("check", str(change))["changes"]
    assert {row["to"] for row in rows} == {"shop/web"}
    assert {"from": "shop/db", "to": "shop/web", "ports": "tcp all ports", "becomes": "denied"}.items() <= next(
        row for row in rows if row["from"] == "shop/db" and row["ports"].startswith("tcp")
    ).items()
    assert len({(row["from"], row["ports"]) for row in rows}) == len(rows), "what is so in both families is told once"
    assert {tuple(row["families"]) for row in rows if row["from"] == "shop/db"} == {(4, 6)}
    assert shop.actors["db"].connect(shop.address("web"), 80) != TIMED_OUT
    change.write_text(json.dumps(DB))
    rows = shop.ask("check", str(change), "--remove")["changes"]
    assert {(row["to"], row["becomes"]) for row in rows} == {("shop/db", "allowed")}
    assert shop.ask("check", str(change))["changes"] == []
    change.write_text(json.dumps(network_policy("web", podSelector={}, ingres=[])))
    assert "spec.ingres: unknown field" in str(shop.ask("check", str(change), code=1)["faults"])


@pytest.mark.parametrize("verb", ["check", "apply"])
def test_a_file_that_cannot_be_read_is_named_once(shop: Shop, tmp_path: Path, verb: str):
    broken = tmp_path / "broken.yaml"
    broken.write_text("kind: [")
    for words, said in (([str(broken)], "line "), ([str(tmp_path / "none.yaml")], "No such file or directory")):
        refused = shop.host.run(AGENT_CNI, "policy", verb, *words, check=False)
        assert refused.returncode == 1
        assert refused.stderr.startswith(f"agent-cni: {words[0]}: ")
        assert said in refused.stderr
        assert (refused.stderr.count(words[0]), "policyDir" in refused.stderr) == (1, False)


def test_of_a_pod_without_addresses_it_is_said_what_is_missing(shop: Shop):
    far = {"kind": "Pod", "metadata": {"namespace": "shop", "name": "far", "labels": {"app": "far"}}}
    (shop.folder / "far.json").write_text(json.dumps(far))
    refused = shop.host.run(AGENT_CNI, "policy", "why", "shop/far", "shop/db:80", check=False)
    assert refused.returncode == 1
    assert "no address of shop/far is known" in refused.stderr
    assert "status.podIPs" in refused.stderr


def test_what_nobody_can_order_is_listed_as_asked_first(shop: Shop):
    odd = cluster_policy("odd", ingress=[{"action": "Deny", "from": [{"namespaces": {}}]}])
    odd["spec"]["priority"] = "high"
    (shop.folder / "odd.json").write_text(json.dumps(odd))
    rows = shop.ask("list", code=1)["documents"]
    assert [row["tier"] for row in rows if row["name"] == "odd"] == ["admin, first: unreadable"]


def test_drops_are_told_with_the_pod_the_peer_and_the_document(shop: Shop):
    words = [*shop.host.prefix(), AGENT_CNI, "policy", "log", "shop/db", "--count", "1", "--json"]
    log = subprocess.Popen(list(map(str, words)), stdout=subprocess.PIPE, text=True)
    for _ in range(20):  # nobody hears of what was dropped before he listened
        assert shop.actors["stranger"].connect(shop.address("db"), 80) == TIMED_OUT
        if log.poll() is not None:
            break
    found = json.loads(log.communicate(timeout=PATIENCE)[0])
    assert (found["pod"], found["peer"], found["protocol"], found["port"]) == ("shop/db", "shop/stranger", "tcp", 80)
    decided = found["direction"], found["documents"], found["tier"]
    assert decided == ("ingress", ["NetworkPolicy shop/db"], "networkpolicy")
