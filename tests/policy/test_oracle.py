"""What a folder of generated objects lets through, by a second opinion that shares no code with the first.

The reference answers one question of one connection, straight from the objects; ours makes a policy of them and asks that.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import partial
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from reference import End, Reference

from cni.errors import InvalidConfig
from cni.policy.compiler import allowances
from cni.policy.manifest import cluster_of
from cni.policy.model import Policy

KEYS, VALUES, SPACES, NAMES = ["app", "tier"], ["a", "b"], ["red", "blue"], ["web", "db", "x"]
PEERS = [f"10.0.{space}.{number}" for space in range(2) for number in range(3)] + ["fd00::1", "192.0.2.1"]

labels = st.fixed_dictionaries({}, optional={key: st.sampled_from(VALUES) for key in KEYS})
ports_of_pods = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["http", "dns"]), "containerPort": st.sampled_from([80, 81, 53])},
        optional={"protocol": st.sampled_from(["TCP", "UDP"])},
    ),
    max_size=2,
)
with_values = st.fixed_dictionaries(
    {
        "key": st.sampled_from(KEYS),
        "operator": st.sampled_from(["In", "NotIn"]),
        "values": st.lists(st.sampled_from(VALUES), min_size=1, max_size=2),
    }
)
without_values = st.fixed_dictionaries(
    {"key": st.sampled_from(KEYS), "operator": st.sampled_from(["Exists", "DoesNotExist"])}
)
ABSENT: Any = object()


def mostly(strategy: st.SearchStrategy[Any], *others: Any) -> st.SearchStrategy[Any]:
    """A strategy, and now and then one of some values; ABSENT leaves a field out."""
    return st.sampled_from([True] * 5 + [False] * bool(others)).flatmap(
        lambda usual: strategy if usual else st.sampled_from(others)
    )


def objects(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(fields).map(
        lambda made: {key: item for key, item in made.items() if item is not ABSENT}
    )


some_labels = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES), min_size=1, max_size=1)
selectors = st.one_of(
    objects(matchLabels=some_labels),
    objects(matchExpressions=st.lists(with_values | without_values, min_size=1, max_size=2)),
    objects(
        matchLabels=mostly(some_labels, None, {}), matchExpressions=mostly(st.lists(with_values, max_size=1), None)
    ),
    st.just({}),
)
blocks = st.sampled_from(
    [
        {"cidr": "10.0.0.0/8"},
        {"cidr": "10.0.0.99/24"},
        {"cidr": "10.0.0.0/8", "except": ["10.0.1.0/24"]},
        {"cidr": "10.0.0.0/23", "except": ["10.0.0.1/32", "10.0.1.2/31"]},
        {"cidr": "::/0"},
        {"cidr": "0.0.0.0/0", "except": None},
    ]
)
peers = st.one_of(
    objects(ipBlock=blocks),
    objects(podSelector=selectors, namespaceSelector=st.sampled_from([None, ABSENT])),
    objects(podSelector=selectors, namespaceSelector=selectors),
    objects(podSelector=st.sampled_from([None, ABSENT]), namespaceSelector=selectors),
)
ports = st.one_of(
    st.sampled_from(
        [
            {},
            {"port": 80},
            {"port": 80, "endPort": 81},
            {"port": "http"},
            {"port": "dns", "protocol": "UDP"},
            {"protocol": "UDP"},
            {"protocol": "UDP", "port": 53},
            {"protocol": None, "port": None},
        ]
    )
)


def rules(side: str) -> st.SearchStrategy[Any]:
    """A direction's rules, of which anything may be absent, null or empty."""
    listed = mostly(st.lists(peers, min_size=1, max_size=2), ABSENT, None, [])
    rule = objects(
        **{side: listed, "ports": st.lists(ports, min_size=1, max_size=2) | st.sampled_from([ABSENT, None, []])}
    )
    return mostly(st.lists(rule, min_size=1, max_size=2), ABSENT, None, [])


specs = objects(
    podSelector=mostly(selectors, ABSENT, None),
    policyTypes=st.sampled_from([["Ingress"], ["Egress"], ["Ingress", "Egress"], [], None, ABSENT]),
    ingress=rules("from"),
    egress=rules("to"),
)


@st.composite
def clusters(draw: Any) -> list[dict[str, Any]]:
    """Pods, namespaces and policies; one pod may have no object, and is not in the folder then."""
    found = []
    for number, space in enumerate(SPACES):
        metadata = {"name": space, "labels": draw(labels)}
        found.append({"kind": "Namespace", "apiVersion": "v1", "metadata": metadata})
        for at, name in enumerate(NAMES):
            phase = draw(st.sampled_from(["Running", "Running", "Succeeded"]))
            status = {"podIPs": [{"ip": f"10.0.{number}.{at}"}], "phase": phase}
            spec = {
                "containers": [{"ports": draw(ports_of_pods)}],
                "hostNetwork": draw(st.sampled_from([False] * 5 + [True])),
            }
            metadata = {"namespace": space, "name": name, "labels": draw(labels)}
            found.append({"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": spec, "status": status})
    for number, spec in enumerate(draw(st.lists(specs, min_size=1, max_size=3))):
        metadata = {"namespace": draw(st.sampled_from(SPACES)), "name": f"p{number}"}
        found.append({"kind": "NetworkPolicy", "metadata": metadata, "spec": spec})
    return found


# --- the second opinion


def of_kind(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [item for item in objects if item["kind"] == kind]


def key_of(pod: dict[str, Any]) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def lives_at(pod: dict[str, Any], address: str) -> bool:
    alive = pod["status"]["phase"] == "Running" and not pod["spec"]["hostNetwork"]
    return alive and pod["status"]["podIPs"][0]["ip"] == address


def oracle(objects: list[dict[str, Any]], me: dict, direction: str, address: str, protocol: str, port: int) -> bool:
    whose = next((key_of(pod) for pod in of_kind(objects, "Pod") if lives_at(pod, address)), "")
    return Reference(tuple(objects)).passes(direction, End("", key_of(me)), End(address, whose), protocol, port)


# --- the two beside each other

PROBES = [("TCP", 80), ("TCP", 81), ("UDP", 53), ("UDP", 80), ("TCP", 53)]


def ours(objects: list[dict[str, Any]], pod: str) -> Callable[[str, str, str, int], bool]:
    """What a pod's policy says of a direction, an address, a protocol and a port."""
    book = cluster_of(("it", json.loads(json.dumps(item))) for item in objects)
    policy = Policy(allowances(book, "ingress", pod), allowances(book, "egress", pod))
    return partial(policy.allows, book=book)


@settings(max_examples=100, deadline=None)
@given(clusters())
def test_both_opinions_are_one(objects: list[dict[str, Any]]):
    assert cluster_of(("it", item) for item in objects).faults() == []
    for me in of_kind(objects, "Pod"):
        allows = ours(objects, f"{me['metadata']['namespace']}/{me['metadata']['name']}")
        for direction in ("ingress", "egress"):
            for address in PEERS:
                for protocol, port in PROBES:
                    said = allows(direction, address, protocol.lower(), port)
                    assert said is oracle(objects, me, direction, address, protocol, port), (
                        me["metadata"], direction, address, protocol, port,
                    )  # fmt: skip


def parts(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all objects and lists within a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    own = [path] if isinstance(value, dict | list) else []
    return own + [found for key, item in inner for found in parts(item, (*path, key))]


#: What somebody's editor, or somebody malicious, may make of any object or list of a spec.
DAMAGE = ("unknown field", "text", "number", "truth", "list for object")


def damaged(spec: dict[str, Any], path: tuple[Any, ...], how: str) -> Any:
    made = copy.deepcopy(spec)
    holder, part = None, made
    for step in path:
        holder, part = part, part[step]
    bad = {"text": "*", "number": 7, "truth": True, "list for object": [1] if isinstance(part, dict) else {"a": 1}}
    if how != "unknown field":
        if holder is None:
            return bad[how]
        holder[path[-1]] = bad[how]
    elif isinstance(part, dict):
        part["un known"] = {}
    else:
        part.append({"un known": {}})
    return made


@settings(max_examples=100, deadline=None)
@given(clusters(), st.data())
def test_whatever_is_broken_in_a_policy_opens_nothing(objects: list[dict[str, Any]], data: Any):
    at = data.draw(st.sampled_from([n for n, item in enumerate(objects) if item["kind"] == "NetworkPolicy"]))
    broken = copy.deepcopy(objects)
    path = data.draw(st.sampled_from(parts(objects[at]["spec"])))
    broken[at]["spec"] = damaged(objects[at]["spec"], path, data.draw(st.sampled_from(DAMAGE)))
    assert cluster_of(("it", item) for item in broken).faults()
    for me in of_kind(objects, "Pod"):
        pod = f"{me['metadata']['namespace']}/{me['metadata']['name']}"
        whole, less = ours(objects, pod), ours(broken, pod)
        for direction in ("ingress", "egress"):
            for address in PEERS:
                for protocol, port in PROBES:
                    if less(direction, address, protocol.lower(), port):
                        assert whole(direction, address, protocol.lower(), port)


@settings(max_examples=100, deadline=None)
@given(clusters(), st.sampled_from(SPACES), st.sampled_from(NAMES))
def test_a_pod_whose_object_is_not_there_yet_may_do_nothing_it_may_not_later(
    objects: list[dict[str, Any]], space: str, name: str
):
    early = [
        item
        for item in objects
        if item["kind"] != "Pod" or item["metadata"]["name"] != name or item["metadata"]["namespace"] != space
    ]
    before, after = ours(early, f"{space}/{name}"), ours(objects, f"{space}/{name}")
    for direction in ("ingress", "egress"):
        for address in PEERS:
            for protocol, port in PROBES:
                if before(direction, address, protocol.lower(), port):
                    assert after(direction, address, protocol.lower(), port)


WORDS = [
    *(
        "kind",
        "apiVersion",
        "metadata",
        "namespace",
        "name",
        "labels",
        "spec",
        "status",
        "items",
        "podIPs",
        "ip",
        "podIP",
    ),
    *(
        "podSelector",
        "policyTypes",
        "ingress",
        "egress",
        "from",
        "to",
        "ports",
        "port",
        "endPort",
        "protocol",
        "ipBlock",
    ),
    *("cidr", "except", "namespaceSelector", "matchLabels", "matchExpressions", "key", "operator", "values"),
    *(
        "NetworkPolicy",
        "Pod",
        "Namespace",
        "List",
        "PodList",
        "Ingress",
        "In",
        "Exists",
        "TCP",
        "10.0.0.0/8",
        "red",
        "http",
    ),
]
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(WORDS)
    | st.text(max_size=3)
    | st.binary(max_size=2),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS) | st.integers(), inner, max_size=4)
    ),
    max_leaves=30,
)


@settings(max_examples=400, deadline=None)
@given(anything, anything, st.sampled_from(["NetworkPolicy", "Pod", "Namespace", "List", "NetworkPolicyList"]))
def test_whatever_a_document_is_it_is_an_object_or_an_error_of_ours(value: Any, spec: Any, kind: str):
    for document in (
        value,
        {"kind": kind, "metadata": value, "spec": spec},
        {"kind": kind, "spec": spec, "items": value},
    ):
        try:
            found = cluster_of([("it", document)])
        except InvalidConfig as error:
            told = [error.msg]
        else:
            told = found.faults()
            allowances(found, "ingress", "red/web")
            allowances(found, "egress", "default/web")
        assert all(line.startswith("it: ") for line in told)
