"""Policies as nobody would write them, for the pods of `cases`: hypothesis' strategies of what a case may say.

What comes of them is valid by the API server's own word (pkg/apis/networking/validation; the CRD's schema); no two ClusterNetworkPolicies of
a tier have one priority, for then nobody says which is first.
"""

from __future__ import annotations

from typing import Any

from cases import NODE, OUTSIDE, PODS, SPACES, Case
from hypothesis import strategies as st

TIERS = {"tier": ["front", "back"], "pod": ["a", "b", "c"]}
TEAMS = {"team": ["red", "blue"], "ns": ["x", "y", "z"], "kubernetes.io/metadata.name": ["x", "y", "z"]}
#: What leaves a field out.
ABSENT: Any = object()

_Said = dict[str, Any]


def _fields(**strategies: st.SearchStrategy[Any]) -> st.SearchStrategy[_Said]:
    """An object of which some fields may be absent."""
    return st.fixed_dictionaries(strategies).map(
        lambda made: {key: item for key, item in made.items() if item is not ABSENT}
    )


def _seldom(usual: st.SearchStrategy[Any], *others: Any) -> st.SearchStrategy[Any]:
    """A strategy, and one time in six one of some values."""
    return st.integers(0, 5).flatmap(lambda die: usual if die else st.sampled_from(others))


def _selectors(labels: dict[str, list[str]]) -> st.SearchStrategy[_Said]:
    pairs = st.sampled_from([(key, value) for key, values in labels.items() for value in values])
    expression = st.sampled_from(list(labels)).flatmap(
        lambda key: (
            st.fixed_dictionaries(
                {
                    "key": st.just(key),
                    "operator": st.sampled_from(["In", "NotIn"]),
                    "values": st.lists(st.sampled_from(labels[key]), min_size=1, max_size=2, unique=True),
                }
            )
            | st.fixed_dictionaries({"key": st.just(key), "operator": st.sampled_from(["Exists", "DoesNotExist"])})
        )
    )
    return st.one_of(
        pairs.map(lambda pair: {"matchLabels": dict([pair])}),
        expression.map(lambda item: {"matchExpressions": [item]}),
        st.tuples(pairs, expression).map(lambda both: {"matchLabels": dict([both[0]]), "matchExpressions": [both[1]]}),
        st.just({}),
    )


_pods, _spaces = _selectors(TIERS), _selectors(TEAMS)
_blocks = st.sampled_from(
    [
        {"cidr": "0.0.0.0/0"},
        {"cidr": "::/0"},
        {"cidr": "10.1.0.0/24"},
        {"cidr": "10.3.0.9/16"},
        {"cidr": "fd00:3::/64"},
        {"cidr": "<y/a>/32"},
        {"cidr": "<z/c 6>/128"},
        {"cidr": "192.0.2.0/24", "except": ["192.0.2.12/32"]},
        {"cidr": "0.0.0.0/0", "except": ["10.1.0.0/25", "<x/c>/32"]},
        {"cidr": "fd00::/16", "except": ["fd00:1::/64"]},
        {"cidr": "::/0", "except": ["<x/b 6>/128", "fd00:2::/64"]},
        {"cidr": "0.0.0.0/0", "except": ["0.0.0.0/1", "128.0.0.0/1"]},
    ]
)
_peers = st.one_of(
    _fields(ipBlock=_blocks),
    _fields(podSelector=_pods, namespaceSelector=st.sampled_from([ABSENT, None])),
    _fields(podSelector=_pods, namespaceSelector=_spaces),
    _fields(podSelector=st.sampled_from([ABSENT, None]), namespaceSelector=_spaces),
)
_ports = st.sampled_from(
    [
        {},
        {"port": 80},
        {"port": 81},
        {"port": 80, "endPort": 81},
        {"port": 1, "endPort": 80, "protocol": "UDP"},
        {"port": 81, "protocol": "UDP"},
        {"port": 80, "protocol": "SCTP"},
        {"protocol": "UDP"},
        {"protocol": "SCTP"},
        {"port": "web"},
        {"port": "alt", "protocol": "TCP"},
        {"port": "dns", "protocol": "UDP"},
        {"port": "web", "protocol": "UDP"},
        {"port": "sig", "protocol": "SCTP"},
        {"port": "nobodys"},
        {"port": None, "protocol": None},
    ]
)


def _rules(side: str) -> st.SearchStrategy[Any]:
    listed = _seldom(st.lists(_peers, min_size=1, max_size=3), ABSENT, None, [])
    ports = st.lists(_ports, min_size=1, max_size=2) | st.sampled_from([ABSENT, None, []])
    return _seldom(st.lists(_fields(**{side: listed, "ports": ports}), min_size=1, max_size=3), ABSENT, None, [])


network_policies = _fields(
    podSelector=_seldom(_pods, {}, None, ABSENT),
    policyTypes=st.sampled_from([["Ingress"], ["Egress"], ["Ingress", "Egress"], [], None, ABSENT]),
    ingress=_rules("from"),
    egress=_rules("to"),
)

_subjects = st.one_of(_fields(namespaces=_spaces), _fields(pods=_fields(namespaceSelector=_spaces, podSelector=_pods)))
_elsewhere = st.one_of(
    _fields(nodes=_selectors({"role": ["host", "far"]})),
    _fields(
        networks=st.lists(
            st.sampled_from(
                ["0.0.0.0/0", "::/0", "10.1.0.0/24", "10.3.0.0/24", "fd00:1::/64", "<y/c>/32", "192.0.2.0/24", "fd00:2::/64"]
            ),
            min_size=1,
            max_size=2,
            unique=True,
        )
    ),
)  # fmt: skip
_spans = st.sampled_from(
    [{"number": 80}, {"number": 81}, {"range": {"start": 80, "end": 81}}, {"range": {"start": 1, "end": 80}}]
)
_numbered = st.sampled_from(["tcp", "tcp", "udp", "sctp"]).flatmap(
    lambda protocol: _spans.map(lambda span: {protocol: {"destinationPort": span}})
)
_called = st.sampled_from(["web", "dns", "sig", "alt", "nobodys"]).map(lambda name: {"destinationNamedPort": name})


def _ruled(side: str) -> st.SearchStrategy[Any]:
    """Only pods have names of ports."""
    actions = st.sampled_from(["Accept", "Deny", "Pass"])

    def protocols(*kinds: st.SearchStrategy[_Said]) -> st.SearchStrategy[Any]:
        return st.just(ABSENT) | st.lists(st.one_of(*kinds), min_size=1, max_size=2)

    near = {side: st.lists(_subjects, min_size=1, max_size=2), "protocols": protocols(_numbered, _called)}
    far = {side: st.lists(_subjects | _elsewhere, min_size=1, max_size=2), "protocols": protocols(_numbered)}
    rule = _fields(action=actions, **near)
    if side == "to":
        rule |= _fields(action=actions, **far)
    return _seldom(st.lists(rule, min_size=1, max_size=3), ABSENT, [])


def _cluster_policies(priority: int) -> st.SearchStrategy[_Said]:
    return _fields(
        tier=st.sampled_from(["Admin", "Baseline"]),
        priority=st.just(priority),
        subject=_subjects,
        ingress=_ruled("from"),
        egress=_ruled("to"),
    )


def _labels(labels: dict[str, list[str]]) -> st.SearchStrategy[dict[str, str]]:
    return st.fixed_dictionaries({}, optional={key: st.sampled_from(values) for key, values in labels.items()})


@st.composite
def generated(draw: st.DrawFn, *, clusterwide: bool = False) -> Case:
    """A case, with some ClusterNetworkPolicies where they are asked for."""
    said: _Said = {}
    for number, spec in enumerate(draw(st.lists(network_policies, min_size=not clusterwide, max_size=4))):
        said[f"{draw(st.sampled_from(SPACES))}/p{number}"] = spec
    if clusterwide:
        for priority in draw(st.lists(st.sampled_from([0, 1, 10, 50, 999, 1000]), min_size=1, max_size=4, unique=True)):
            said[f"cluster c{priority}"] = draw(_cluster_policies(priority))
        said["others"] = nodes()
    said["pods"] = {key: {"labels": {"pod": key[-1]} | draw(_labels(TIERS))} for key in PODS}
    said["namespaces"] = {space: {"ns": space} | draw(_labels({"team": TEAMS["team"]})) for space in SPACES}
    return Case("generated", said)


def nodes() -> list[_Said]:
    """The node, and the machine outside as another one."""
    found = []
    for name, role in ((NODE, "host"), (OUTSIDE, "far")):
        addresses = [{"type": "InternalIP", "address": f"<{name}{six}>"} for six in ("", " 6")]
        metadata = {"name": name, "labels": {"role": role}}
        found.append({"kind": "Node", "apiVersion": "v1", "metadata": metadata, "status": {"addresses": addresses}})
    return found


@st.composite
def changed(draw: st.DrawFn, case: Case) -> Case:
    """The same case with one thing changed: the labels of one pod, or one NetworkPolicy that comes, goes, or says something else."""
    said = dict(case.said)
    policies = [key for key in said if "/" in key]
    match draw(st.sampled_from(["labels", "labels", "comes", "goes", "changes"])):
        case "labels":
            name = draw(st.sampled_from(PODS))
            said["pods"] = said["pods"] | {name: {"labels": {"pod": name[-1]} | draw(_labels(TIERS))}}
        case "goes" if policies:
            del said[draw(st.sampled_from(policies))]
        case "changes" if policies:
            said[draw(st.sampled_from(policies))] = draw(network_policies)
        case _:
            said[f"{draw(st.sampled_from(SPACES))}/p{len(said)}"] = draw(network_policies)
    return Case("changed", said)
