"""NetworkPolicy's semantics: who is selected, what adds up, and what cannot be resolved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from cni.policy.compiler import allowances
from cni.policy.kubernetes import Cluster
from cni.policy.manifest import cluster_of
from cni.policy.model import Allowance, Policy, Port


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


def cluster(*policies: dict, pods: Sequence[dict] = PODS, spaces: Sequence[dict] = SPACES) -> Cluster:
    return cluster_of(("it", item) for item in (*policies, *pods, *spaces))


def allows(policies: list[dict], direction: str, peer: str, port: int = 80, of: str = "shop/web-0") -> bool:
    book = cluster(*policies)
    return Policy(**{direction: allowances(book, direction, of)}).allows(direction, peer, "tcp", port, book)


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
    web = pod("shop/web-0", "10.1.0.5", **labels)
    shut = cluster(policy(podSelector={"matchExpressions": [expression]}), pods=[web])
    assert allowances(shut, "ingress", "shop/web-0") == (() if selected else None)


# --- what is broken in one part

OF_DB = {"from": [{"podSelector": {"matchLabels": {"app": "db"}}}]}
SURE = {"podSelector": {"matchLabels": {"app": "web"}}}


def bad_rule(rule: Any) -> dict:
    """A policy of which one rule lets 10.1.0.6 in and another is broken."""
    return policy("broken", **SURE, ingress=[OF_DB, rule])


def bad_peer(peer: Any) -> dict:
    return bad_rule({"from": [peer]})


def bad_port(port: Any) -> dict:
    return bad_rule({"ports": [port]})


RULE = "spec.ingress[1]"
BROKEN = [
    (bad_rule({"form": []}), f"{RULE}.form: unknown field (did you mean 'from'?)"),
    (bad_rule({"to": []}), f"{RULE}.to: unknown field"),
    (bad_rule({"from": {}}), f"{RULE}.from: an object is no list"),
    (bad_rule({"from": "all"}), f'{RULE}.from: "all" is no list'),
    (bad_rule({"ports": 80}), f"{RULE}.ports: 80 is no list"),
    (bad_rule(None), f"{RULE}: null is no object"),
    (bad_rule("*"), f'{RULE}: "*" is no object'),
    (bad_peer({}), f"{RULE}.from[0]: a peer has ipBlock, podSelector or namespaceSelector"),
    (bad_peer({"podSelector": None}), f"{RULE}.from[0]: a peer has"),
    (bad_peer({"namespaceSelector": None, "podSelector": None}), f"{RULE}.from[0]: a peer has"),
    (bad_peer({"podSelector": {"matchLabel": {"app": "x"}}}), f"{RULE}.from[0].podSelector.matchLabel: unknown field"),
    (bad_peer({"podSelektor": {}}), f"{RULE}.from[0].podSelektor: unknown field"),
    (bad_peer({"podSelector": []}), f"{RULE}.from[0].podSelector: a list is no object"),
    (bad_peer({"podSelector": {"matchLabels": ["a"]}}), f"{RULE}.from[0].podSelector.matchLabels: a list is no object"),
    (
        bad_peer({"podSelector": {"matchLabels": {"a": None}}}),
        f"{RULE}.from[0].podSelector.matchLabels.a: null is no text",
    ),
    (bad_peer({"podSelector": {"matchLabels": {"a": 1}}}), f"{RULE}.from[0].podSelector.matchLabels.a: 1 is no text"),
    (bad_peer({"podSelector": {"matchLabels": {"a b": "c"}}}), 'matchLabels."a b": "a b" is no label'),
    (bad_peer({"podSelector": {"matchLabels": {"a": "-"}}}), 'matchLabels.a: "-" is no label'),
    (
        bad_peer({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}}),
        '[0].operator: "Like" is none of In,',
    ),
    (bad_peer({"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}), "[0].values: In needs some"),
    (
        bad_peer({"podSelector": {"matchExpressions": [{"key": "a", "operator": "NotIn", "values": []}]}}),
        "NotIn needs some",
    ),
    (
        bad_peer({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}}),
        "Exists has none",
    ),
    (bad_peer({"podSelector": {"matchExpressions": [{"operator": "Exists"}]}}), "[0].key: null is no text"),
    (bad_peer({"podSelector": {"matchExpressions": {}}}), "matchExpressions: an object is no list"),
    (bad_peer({"ipBlock": {}}), f"{RULE}.from[0].ipBlock.cidr: null is no address with a prefix"),
    (bad_peer({"ipBlock": {"cidr": "0.0.0.0"}}), 'cidr: "0.0.0.0" is no address with a prefix'),
    (bad_peer({"ipBlock": {"cidr": "0.0.0.0/33"}}), "is no address with a prefix"),
    (bad_peer({"ipBlock": {"cidr": "0.0.0.0/0.0.0.0"}}), "is no address with a prefix"),
    (bad_peer({"ipBlock": {"cidr": "fe80::1%x } accept /64"}}), "is no address with a prefix"),
    (bad_peer({"ipBlock": {"cidr": 0}}), "cidr: 0 is no address"),
    (bad_peer({"ipBlock": {"cidr": "0.0.0.0/0", "excepts": ["10.0.0.0/8"]}}), "ipBlock.excepts: unknown field"),
    (bad_peer({"ipBlock": {"cidr": "0.0.0.0/0", "except": "10.0.0.0/8"}}), 'except: "10.0.0.0/8" is no list'),
    (bad_peer({"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "x"]}}), 'except[1]: "x" is no address'),
    (
        bad_peer({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/8"]}}),
        "except 11.0.0.0/8 is not within 10.0.0.0/8",
    ),
    (bad_peer({"ipBlock": {"cidr": "0.0.0.0/0", "except": ["fd00::/8"]}}), "is not within"),
    (bad_peer({"ipBlock": {"cidr": "0.0.0.0/0"}, "podSelector": {}}), "a peer with ipBlock has nothing else"),
    (bad_port({"port": 0}), f"{RULE}.ports[0].port: 0 is no number from 1 to 65535"),
    (bad_port({"port": 70000}), "port: 70000 is no number"),
    (bad_port({"port": -1}), "port: -1 is no number"),
    (bad_port({"port": True}), "port: true is no number"),
    (bad_port({"port": 80.0}), "port: 80.0 is no number"),
    (bad_port({"port": [80]}), "port: a list is no number"),
    (bad_port({"port": "80"}), 'port: "80" is neither a number nor a port'),
    (bad_port({"port": "80 accept"}), "is neither a number nor a port"),
    (bad_port({"port": "http\n"}), "is neither a number nor a port"),
    (bad_port({"port": 80, "endPort": 79}), "endPort: 79 is less than port 80"),
    (bad_port({"port": 80, "endPort": 65536}), "endPort: 65536 is no number"),
    (bad_port({"endPort": 80}), "endPort: needs a port that is a number"),
    (bad_port({"port": "http", "endPort": 80}), "endPort: needs a port that is a number"),
    (bad_port({"port": 1, "ports": 2}), f"{RULE}.ports[0].ports: unknown field"),
    (bad_port({"protocol": "tcp"}), 'protocol: "tcp" is none of TCP, UDP, SCTP'),
    (bad_port({"protocol": "ICMP"}), 'protocol: "ICMP" is none of'),
    (bad_port({"protocol": ""}), 'protocol: "" is none of'),
    (bad_port({"protocol": "tcp return\nadd table inet x\n#"}), "protocol: "),
    (bad_port({"protocol": 6}), "protocol: 6 is none of"),
    (bad_port(80), f"{RULE}.ports[0]: 80 is no object"),
]


@pytest.mark.parametrize(("broken", "words"), BROKEN, ids=[words for _, words in BROKEN])
def test_what_is_broken_in_one_part_lets_only_the_rest_through(broken: dict, words: str):
    found = cluster(broken)
    assert len(found.faults()) == 1
    assert found.faults()[0].startswith("it: NetworkPolicy shop/broken: spec.ingress[1]")
    assert words in found.faults()[0]
    assert allows([broken], "ingress", "10.1.0.6"), "what can be read holds"
    assert not allows([broken], "ingress", "192.0.2.1")
    assert allowances(found, "egress", "shop/web-0") is None
    assert allowances(found, "ingress", "shop/db-0") is None, "of others it says nothing"


def test_of_peers_and_ports_only_the_broken_ones_are_left_out():
    peers = [{"ipBlock": {"cidr": "192.0.2.0/24"}}, {"ipBlock": {"cidr": "nonsense"}}]
    one = policy(ingress=[{"from": peers, "ports": [{"port": 80}, {"port": 70000}]}])
    assert allows([one], "ingress", "192.0.2.1", 80)
    assert not allows([one], "ingress", "192.0.2.1", 81)
    assert not allows([one], "ingress", "198.51.100.1", 80)
    assert len(cluster(one).faults()) == 2


@pytest.mark.parametrize(
    ("spec", "shut"),
    [
        ({"policyTypes": ["ingress"], "ingress": [{}]}, "i"),
        ({"policyTypes": ["Ingress", "egress"], "ingress": [], "egress": [{}]}, "ie"),
        ({"policyTypes": ["Out"], "egress": [{}]}, "ie"),
        ({"policyTypes": ["Out", "Ingress"], "egress": [{}]}, "ie"),
        ({"policyTypes": "Ingress"}, "ie"),
        ({"policyTypes": [None]}, "ie"),
        ({"egres": [], "podSelector": {}}, "ie"),
        ({"policyTypes": ["Egress"], "egres": [], "podSelector": {}}, "e"),
        ({"policyTypes": ["Ingress"], "ingres": [{}], "podSelector": {}}, "i"),
        ({"ingress": {}}, "i"),
        ({"egress": "all"}, "ie"),
        ({"podSelector": {"matchLabel": {"app": "db"}}, "ingress": [OF_DB]}, "i"),
        ({"podSelector": [], "ingress": [OF_DB]}, "i"),
        ({"podSelector": {"matchExpressions": [{"key": "app", "operator": "Likes"}]}, "policyTypes": ["Egress"]}, "e"),
    ],
    ids=str,
)
def test_directions_and_selectors_that_cannot_be_read_may_be_any(spec: dict, shut: str):
    broken = policy(**spec)
    assert cluster(broken).faults()
    found = {way[0] for way in ("ingress", "egress") if allowances(cluster(broken), way, "shop/web-0") is not None}
    assert found == set(shut)
    if [{}] not in spec.values():
        assert all(not allows([broken], way, "10.1.0.6") for way in ("ingress", "egress") if way[0] in shut)
    assert allowances(cluster(broken), "ingress", "ops/agent-0") is None


def test_a_selector_of_which_a_part_can_be_read_leaves_those_alone_whom_that_excludes():
    half = {"matchLabels": {"app": "db"}, "matchExpressions": [{"key": "app", "operator": "Likes"}]}
    found = cluster(policy(podSelector=half, ingress=[{}]))
    assert allowances(found, "ingress", "shop/web-0") is None
    assert allowances(found, "ingress", "shop/db-0") == ()


@pytest.mark.parametrize("top", [{"sepc": {}}, {"spec": []}, {"spec": "x"}, {"spec": {}, "specs": {}}], ids=str)
def test_a_policy_whose_spec_cannot_be_read_shuts_its_namespace(top: dict):
    broken = {key: value for key, value in policy("broken").items() if key != "spec"} | top
    found = cluster(broken)
    assert found.faults()
    for direction in ("ingress", "egress"):
        assert allowances(found, direction, "shop/web-0") == ()
        assert allowances(found, direction, "ops/agent-0") is None


@pytest.mark.parametrize(
    ("spec", "direction", "peer", "allowed"),
    [
        ({"ingress": [{"from": None}]}, "ingress", "192.0.2.1", True),
        ({"ingress": [{"ports": None, "from": None}]}, "ingress", "192.0.2.1", True),
        ({"ingress": [{"ports": []}]}, "ingress", "192.0.2.1", True),
        ({"ingress": None}, "ingress", "10.1.0.6", False),
        ({"egress": None}, "egress", "10.1.0.6", True),
        ({"egress": []}, "egress", "10.1.0.6", True),
        ({"policyTypes": None, "egress": [{}]}, "egress", "10.1.0.6", True),
        ({"policyTypes": []}, "ingress", "10.1.0.6", False),
        ({"policyTypes": ["Egress", "Egress"]}, "egress", "10.1.0.6", False),
        ({"podSelector": None}, "ingress", "10.1.0.6", False),
        ({"ingress": [{"from": [{"namespaceSelector": None, "podSelector": {}}]}]}, "ingress", "10.1.0.6", True),
        ({"ingress": [{"from": [{"namespaceSelector": None, "podSelector": {}}]}]}, "ingress", "10.1.0.7", False),
        ({"ingress": [{"from": [{"podSelector": None, "namespaceSelector": {}}]}]}, "ingress", "10.1.0.7", True),
        ({"ingress": [{"from": [{"podSelector": {"matchLabels": None}}]}]}, "ingress", "10.1.0.6", True),
        (
            {"ingress": [{"from": [{"ipBlock": {"cidr": "192.0.2.77/24", "except": None}}]}]},
            "ingress",
            "192.0.2.1",
            True,
        ),
        ({"ingress": [{"ports": [{"protocol": None, "port": None}]}]}, "ingress", "192.0.2.1", True),
    ],
    ids=str,
)
def test_what_is_null_is_absent(spec: dict, direction: str, peer: str, allowed: bool):
    assert cluster(policy(**spec)).faults() == []
    assert allows([policy(**spec)], direction, peer) is allowed


def test_a_policy_without_a_spec_is_a_default_deny():
    bare = {"kind": "NetworkPolicy", "metadata": {"namespace": "shop", "name": "bare"}}
    for one in (bare, bare | {"spec": None}, bare | {"spec": {}, "status": {"conditions": 1}}):
        assert cluster(one).faults() == []
        assert allowances(cluster(one), "ingress", "shop/web-0") == ()
        assert allowances(cluster(one), "egress", "shop/web-0") is None


# --- who is not known


def test_a_pod_without_an_object_is_shut_where_any_policy_of_its_namespace_shuts():
    mine = policy("web", **SURE, ingress=[OF_DB])
    out = policy("out", podSelector={"matchLabels": {"app": "job"}}, policyTypes=["Egress"], egress=[{}])
    assert not allows([mine], "ingress", "10.1.0.6", of="shop/new-0"), "nothing is allowed before it is known"
    assert allows([mine], "egress", "10.1.0.6", of="shop/new-0")
    assert not allows([mine, out], "egress", "10.1.0.6", of="shop/new-0")
    assert allows([mine, out], "ingress", "10.1.0.6", of="ops/new-0")


def test_what_selects_every_pod_selects_an_unknown_one():
    assert allows([policy(ingress=[OF_DB])], "ingress", "10.1.0.6", of="shop/new-0")
    assert not allows([policy(ingress=[OF_DB])], "ingress", "10.1.0.7", of="shop/new-0")


def test_of_a_namespace_without_an_object_only_its_name_is_known():
    absent = {"namespaceSelector": {"matchExpressions": [{"key": "restricted", "operator": "DoesNotExist"}]}}
    named = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ops"}}}
    for peer, known, unknown in ((absent, True, False), (named, True, True), ({"namespaceSelector": {}}, True, True)):
        one = policy(ingress=[{"from": [peer]}])
        assert allows([one], "ingress", "10.1.0.7") is known
        found = cluster(one, spaces=())
        made = Policy(ingress=allowances(found, "ingress", "shop/web-0"))
        assert made.allows("ingress", "10.1.0.7", "tcp", book=found) is unknown


def test_a_namespace_cannot_take_anothers_name_as_a_label():
    liar = namespace("ops", **{"kubernetes.io/metadata.name": "shop"})
    one = policy(ingress=[{"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}]}])
    book = cluster(one, spaces=[liar])
    found = Policy(ingress=allowances(book, "ingress", "shop/web-0"))
    assert found.allows("ingress", "10.1.0.6", "tcp", book=book)
    assert not found.allows("ingress", "10.1.0.7", "tcp", book=book)


# --- ports by name


def with_ports(place: str, address: str, *ports: tuple[str, int, str]) -> dict:
    listed = [{"name": name, "containerPort": number, "protocol": protocol} for name, number, protocol in ports]
    return pod(place, address, spec={"containers": [{"name": "c"}, {"ports": listed}]}, app="named")


NAMED = [
    with_ports("shop/web-0", "10.1.0.5", ("http", 8080, "TCP"), ("dns", 53, "UDP")),
    with_ports("shop/a-0", "10.1.0.6", ("http", 80, "TCP")),
    with_ports("ops/b-0", "10.1.0.7", ("http", 81, "TCP"), ("dns", 5353, "UDP")),
]


def named(direction: str, rule: dict, peer: str, port: int, protocol: str = "tcp") -> bool:
    found = cluster(policy(policyTypes=[direction.capitalize()], **{direction: [rule]}), pods=NAMED)
    assert found.faults() == []
    made = Policy(**{direction: allowances(found, direction, "shop/web-0")})
    return made.allows(direction, peer, protocol, port, found)


def test_a_named_port_of_ingress_is_the_pods_own():
    rule = {"from": [{"podSelector": {}}], "ports": [{"port": "http"}, {"port": 9090}]}
    answers = [named("ingress", rule, "10.1.0.6", port) for port in (8080, 9090, 80, 53)]
    assert answers == [True, True, False, False]
    assert not named("ingress", {"ports": [{"port": "dns"}]}, "10.1.0.6", 53), "UDP has that name, TCP has not"
    assert named("ingress", {"ports": [{"port": "dns", "protocol": "UDP"}]}, "10.1.0.6", 53, "udp")
    assert not named("ingress", {"ports": [{"port": "nobodys"}]}, "10.1.0.6", 80)


def test_a_named_port_of_egress_is_each_peers_own():
    rule = {"to": [{"namespaceSelector": {}}], "ports": [{"port": "http"}]}
    assert named("egress", rule, "10.1.0.6", 80)
    assert named("egress", rule, "10.1.0.7", 81)
    assert not named("egress", rule, "10.1.0.6", 81)
    assert not named("egress", rule, "10.1.0.7", 80)
    near = {"to": [{"podSelector": {}}], "ports": [{"port": "http"}, {"port": 53, "protocol": "UDP"}]}
    assert not named("egress", near, "10.1.0.7", 81)
    assert named("egress", near, "10.1.0.6", 53, "udp")
    assert named("egress", {"ports": [{"port": "http"}]}, "10.1.0.7", 81), "without peers, of every pod"
    assert not named("egress", {"ports": [{"port": "http"}]}, "192.0.2.1", 80)
    block = {"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": "http"}]}
    assert not named("egress", block, "10.1.0.6", 80), "an address has no names"


def test_a_container_that_stays_beside_the_others_has_named_ports_too():
    started = [
        {"restartPolicy": "Always", "ports": [{"name": "m", "containerPort": 15090}]},
        {"ports": [{"name": "i", "containerPort": 1}]},
    ]
    web = pod("shop/web-0", "10.1.0.5", spec={"initContainers": started, "containers": [{"ports": [{"name": "x"}, 7]}]})
    one = policy(ingress=[{"ports": [{"port": name} for name in ("m", "i", "x")]}])
    found = allowances(cluster(one, pods=[web]), "ingress", "shop/web-0")
    assert found == (Allowance(None, (Port("tcp", 15090, 15090),)),)
