"""NetworkPolicy's semantics: who is selected, what adds up, and what cannot be resolved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cni.errors import InvalidConfig
from cni.policy.config import section_of
from cni.policy.folder import load
from cni.policy.kubernetes import Cluster, matches
from cni.policy.model import Policy
from cni.protocol.call import Call

CALL = Call("ADD", args="IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0")


def pod(
    place: str, address: str, status: dict[str, Any] | None = None, spec: dict[str, Any] | None = None, **labels: str
) -> dict:
    namespace, name = place.split("/")
    metadata = {"namespace": namespace, "name": name, "labels": labels}
    return {
        "kind": "Pod",
        "metadata": metadata,
        "spec": spec or {},
        "status": {"podIPs": [{"ip": address}]} | (status or {}),
    }


def namespace(name: str, **labels: str) -> dict:
    return {"kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def policy(name: str = "one", home: str = "shop", **spec: Any) -> dict:
    return {"kind": "NetworkPolicy", "metadata": {"namespace": home, "name": name}, "spec": {"podSelector": {}} | spec}


PODS = (
    pod("shop/web-0", "10.1.0.5", app="web"),
    pod("shop/db-0", "10.1.0.6", app="db"),
    pod("ops/agent-0", "10.1.0.7", app="agent"),
    pod("ops/done-0", "10.1.0.8", status={"phase": "Succeeded"}, app="agent"),
    pod("ops/node-0", "192.0.2.11", spec={"hostNetwork": True}, app="agent"),
)
SPACES = (namespace("shop", team="shop"), namespace("ops", team="ops"))
BY_APP = {"podSelector": {"matchLabels": {"app": "agent"}}}
IN_OPS = {"namespaceSelector": {"matchLabels": {"team": "ops"}}}


def allows(policies: list[dict], direction: str, peer: str, port: int = 80, of: str = "shop/web-0") -> bool:
    found = Cluster(tuple(policies), PODS, SPACES).allowances(direction, of)
    return Policy(**{direction: found}).allows(direction, peer, "tcp", port)


@pytest.mark.parametrize(
    ("policies", "direction", "peer", "allowed"),
    [
        ([], "ingress", "192.0.2.1", True),
        ([policy()], "ingress", "10.1.0.6", False),
        ([policy()], "egress", "192.0.2.1", True),
        ([policy(home="ops")], "ingress", "10.1.0.6", True),
        ([policy(policyTypes=["Egress"])], "ingress", "10.1.0.6", True),
        ([policy(policyTypes=["Egress"])], "egress", "10.1.0.6", False),
        ([policy(egress=[{}])], "egress", "192.0.2.1", True),
        ([policy(egress=[{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}])], "egress", "192.0.2.1", False),
        ([policy(ingress=[{}])], "ingress", "192.0.2.1", True),
        ([policy(ingress=[{"from": []}])], "ingress", "192.0.2.1", True),
        ([policy(ingress=[])], "ingress", "10.1.0.6", False),
        ([policy(podSelector={"matchLabels": {"app": "db"}})], "ingress", "10.1.0.7", True),
        ([policy(podSelector={"matchLabels": {"app": "web"}})], "ingress", "10.1.0.7", False),
        ([policy(ingress=[{"from": [{"podSelector": {}}]}])], "ingress", "10.1.0.6", True),
        ([policy(ingress=[{"from": [{"podSelector": {}}]}])], "ingress", "10.1.0.7", False),
        ([policy(ingress=[{"from": [BY_APP]}])], "ingress", "10.1.0.7", False),
        ([policy(ingress=[{"from": [IN_OPS]}])], "ingress", "10.1.0.7", True),
        ([policy(ingress=[{"from": [IN_OPS]}])], "ingress", "10.1.0.8", False),
        ([policy(ingress=[{"from": [IN_OPS]}])], "ingress", "192.0.2.11", False),
        ([policy(ingress=[{"from": [BY_APP | IN_OPS]}])], "ingress", "10.1.0.7", True),
        (
            [policy(ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "db"}}} | IN_OPS]}])],
            "ingress",
            "10.1.0.6",
            False,
        ),
        (
            [policy(ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "db"}}}, IN_OPS]}])],
            "ingress",
            "10.1.0.6",
            True,
        ),
        ([policy(ingress=[{"from": [{"namespaceSelector": {}}]}])], "ingress", "10.1.0.7", True),
        (
            [
                policy(
                    ingress=[{"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ops"}}}]}]
                )
            ],
            "ingress",
            "10.1.0.7",
            True,
        ),
        ([policy("a"), policy("b", ingress=[{"from": [IN_OPS]}])], "ingress", "10.1.0.7", True),
        (
            [policy("a", ingress=[{"from": [{"podSelector": {}}]}]), policy("b", ingress=[{"from": [IN_OPS]}])],
            "ingress",
            "10.1.0.6",
            True,
        ),
    ],
)
def test_what_kubernetes_would_let_through(policies: list[dict], direction: str, peer: str, allowed: bool):
    assert allows(policies, direction, peer) is allowed


def test_ports_of_a_policy():
    ports = [{"port": 80, "endPort": 90}, {"protocol": "UDP", "port": 53}]
    assert allows([policy(ingress=[{"ports": ports}])], "ingress", "10.1.0.6", 85)
    assert not allows([policy(ingress=[{"ports": ports}])], "ingress", "10.1.0.6", 53)


@pytest.mark.parametrize(
    ("expression", "labels", "selected"),
    [
        ({"key": "a", "operator": "In", "values": ["1", "2"]}, {"a": "1"}, True),
        ({"key": "a", "operator": "In", "values": ["1"]}, {}, False),
        ({"key": "a", "operator": "NotIn", "values": ["1"]}, {"a": "1"}, False),
        ({"key": "a", "operator": "NotIn", "values": ["1"]}, {}, True),
        ({"key": "a", "operator": "Exists"}, {"a": ""}, True),
        ({"key": "a", "operator": "DoesNotExist"}, {"a": ""}, False),
    ],
)
def test_selector_expressions(expression: dict, labels: dict, selected: bool):
    assert matches({"matchExpressions": [expression]}, labels) is selected


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"ports": [{"port": "http"}]}, "the named port 'http' cannot be resolved"),
        ({"from": [{}]}, "a peer has ipBlock, podSelector or namespaceSelector"),
        ({"from": [{"ipBlock": {"cidr": "10.0.0.1/8"}}]}, "has host bits set"),
        ({"from": [{"podSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}}]}, "operator 'Like'"),
    ],
)
def test_what_cannot_be_resolved_is_named_with_its_policy(rule: dict, words: str):
    with pytest.raises(InvalidConfig) as caught:
        allows([policy("broken", ingress=[rule])], "ingress", "10.1.0.6")
    assert caught.value.msg.startswith("NetworkPolicy shop/broken: spec.ingress[0]")
    assert words in caught.value.msg


FOLDER = """
apiVersion: v1
kind: List
items:
- {kind: Pod, metadata: {namespace: shop, name: web-0, labels: {app: web}}, status: {podIP: 10.1.0.5}}
- {kind: Pod, metadata: {namespace: shop, name: db-0}, status: {podIPs: [{ip: 10.1.0.6}]}}
---
kind: NetworkPolicy
metadata: {namespace: shop, name: one}
spec: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {}}]}]}
"""


def test_a_folder_adds_up_with_the_section(tmp_path: Path):
    (tmp_path / "all.yaml").write_text(FOLDER)
    (tmp_path / "notes.txt").write_text("{")
    section = {"policyDir": str(tmp_path), "ingress": ["192.0.2.0/24"]}
    made = section_of({"policy": section}, CALL)
    assert made
    assert made.egress is None
    answers = [made.allows("ingress", peer, "tcp", 80) for peer in ("192.0.2.1", "10.1.0.6", "10.9.9.9")]
    assert answers == [True, True, False]


def test_an_empty_folder_selects_nobody(tmp_path: Path):
    assert section_of({"policy": {"policyDir": str(tmp_path)}}, CALL) == Policy()
    shut = section_of({"policy": {"policyDir": str(tmp_path), "defaultDeny": True}}, CALL)
    assert shut == Policy(ingress=(), egress=())


def test_a_selected_direction_is_shut_also_when_no_rule_is_left(tmp_path: Path):
    (tmp_path / "deny.json").write_text(
        '{"kind": "NetworkPolicy", "metadata": {"namespace": "shop"}, "spec": {"podSelector": {}}}'
    )
    assert section_of({"policy": {"policyDir": str(tmp_path)}}, CALL) == Policy(ingress=())


@pytest.mark.parametrize(("name", "text"), [("a.yaml", "a: ["), ("b.yaml", "- 1"), ("c.json", "5")])
def test_a_file_that_is_no_object_is_named(tmp_path: Path, name: str, text: str):
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidConfig, match=f"policyDir: {tmp_path}/{name}"):
        load(tmp_path)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(InvalidConfig, match="nowhere is no folder"):
        load(tmp_path / "nowhere")
