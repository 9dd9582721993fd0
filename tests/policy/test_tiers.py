"""ClusterNetworkPolicies as they are read: what their CRD's own schema refuses is named, and what is named fails closed."""

from __future__ import annotations

import copy
import ipaddress
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cni.policy.labels import Labels, Selector
from cni.policy.manifest import cluster_of
from cni.policy.model import Port
from cni.policy.objects import ClusterPolicy, ClusterRule, DomainPeer, KubeNode, NamedPort, NodePeer, PodPeer
from cni.policy.peers import block

VERSION = "policy.networking.k8s.io/v1beta1"
SHUT = ClusterRule("deny", None)
NAMED_PORTS = tuple(NamedPort(protocol, "web") for protocol in ("tcp", "udp", "sctp"))
ANYBODY = {"namespaces": {}}


def strict(schema: Any) -> Any:
    """An API server drops fields that no schema knows; they are refused here."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(value) for key, value in schema.items()}
    return {"additionalProperties": False, **found} if "properties" in found else found


SCHEMA = json.loads((Path(__file__).parent.parent / "fixtures/clusternetworkpolicy-v1beta1.json").read_text())["schema"]
SCHEMA["properties"]["metadata"] = {"type": "object"}
SPEC = jsonschema.Draft202012Validator(strict(SCHEMA["properties"]["spec"]))


def read(spec: Any, kind: str = "ClusterNetworkPolicy", version: str = VERSION, name: str = "one") -> ClusterPolicy:
    raw = {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec}
    (found,) = cluster_of([("here", raw)]).cluster_policies()
    return found


def spec(**other: Any) -> dict[str, Any]:
    return {"tier": "Admin", "priority": 10, "subject": ANYBODY, **other}


def rule(action: str = "Deny", **other: Any) -> dict[str, Any]:
    return {"action": action, "to": [ANYBODY], **other}


def in_schema(wanted: dict[str, Any]) -> bool:
    """What the CRD says, and those of its rules that are no schema."""
    if any(SPEC.iter_errors(wanted)):
        return False
    for item in [*wanted.get("ingress", ()), *wanted.get("egress", ())]:
        ports = item.get("protocols") or []
        named = any("destinationNamedPort" in port for port in ports)
        by_name = any("domainNames" in peer for peer in item.get("to", ()))
        if by_name and (item["action"], wanted["tier"]) != ("Accept", "Admin"):
            return False  # it says so of Accept in prose, and of the tier its proposal (NPEP-133)
        if named and any({"networks", "nodes", "domainNames"} & peer.keys() for peer in item.get("to", ())):
            return False
        spans = [
            value.get("destinationPort", {}).get("range")
            for port in ports
            for value in port.values()
            if value is not None and not isinstance(value, str)
        ]
        if any(span and span["start"] >= span["end"] for span in spans):
            return False
        if not all(is_network(text) for peer in item.get("to", ()) for text in peer.get("networks", ())):
            return False
    return True


def is_network(text: str) -> bool:
    try:
        return "/" in text and bool(ipaddress.ip_network(text))
    except ValueError:
        return False


labels = st.fixed_dictionaries(
    {},
    optional={
        "matchLabels": st.just({"app": "web"}),
        "matchExpressions": st.just([{"key": "a", "operator": "In", "values": ["b"]}]),
    },
)
pods = st.fixed_dictionaries({"podSelector": labels}, optional={"namespaceSelector": labels})
near = st.one_of(st.fixed_dictionaries({"namespaces": labels}), st.fixed_dictionaries({"pods": pods}))
networks = st.lists(st.sampled_from(["10.0.0.0/8", "192.0.2.1/32", "fd00::/8"]), min_size=1, max_size=3, unique=True)
names = st.lists(st.sampled_from(["example.com", "*.Example.org.", "a_b.example"]), min_size=1, max_size=3, unique=True)
far = st.one_of(
    near,
    *(
        st.fixed_dictionaries({kind: it})
        for kind, it in (("nodes", labels), ("networks", networks), ("domainNames", names))
    ),
)
port = st.one_of(
    st.fixed_dictionaries({"number": st.sampled_from([1, 80, 65535])}),
    st.just({"range": {"start": 80, "end": 90}}),
)
protocols = st.one_of(
    *(
        st.fixed_dictionaries({name: st.fixed_dictionaries({"destinationPort": port})})
        for name in ("tcp", "udp", "sctp")
    ),
    st.just({"destinationNamedPort": "web"}),
)
action = st.sampled_from(["Accept", "Deny", "Pass"])


def rules(side: str, peer: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    needed = {"action": action, side: st.lists(peer, min_size=1, max_size=2)}
    return st.lists(
        st.fixed_dictionaries(
            needed, optional={"name": st.just("why"), "protocols": st.lists(protocols, min_size=1, max_size=2)}
        ),
        max_size=2,
    )


specs = st.fixed_dictionaries(
    {"tier": st.sampled_from(["Admin", "Baseline"]), "priority": st.sampled_from([0, 10, 1000]), "subject": near},
    optional={"ingress": rules("from", near), "egress": rules("to", far)},
)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container with one of its keys, but for labels, which no CRD checks."""
    items = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    for key, item in items:
        yield value, key
        if key not in ("matchLabels", "matchExpressions"):
            yield from places(item)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(specs, st.data())
def test_what_its_own_schema_refuses_is_named_and_nothing_else(whole: dict[str, Any], data: st.DataObject) -> None:
    wanted = copy.deepcopy(whole)
    if data.draw(st.booleans()):
        holder, key = data.draw(st.sampled_from([*places(wanted), (wanted, "tier")]))
        how = data.draw(st.sampled_from(["another", "gone", "more"]))
        if how == "more" and isinstance(holder[key], dict):
            holder[key]["form"] = 1
        elif how == "gone":
            del holder[key]
        else:
            holder[key] = data.draw(st.sampled_from([5, -1, 70000, [], {}, True, "Drop", "10.0.0.1/8"]))
    found = read(wanted)
    assert (found.faults == ()) is in_schema(wanted), found.faults


def test_a_whole_one_is_read_to_the_letter() -> None:
    found = read(
        spec(
            tier="Baseline",
            subject={"pods": {"podSelector": {"matchLabels": {"app": "web"}}}},
            ingress=[
                {"name": "in", "action": "Pass", "from": [{"pods": {"podSelector": {}, "namespaceSelector": {}}}]}
            ],
            egress=[
                {
                    "action": "Accept",
                    "to": [{"networks": ["10.0.0.0/8"]}, {"nodes": {}}],
                    "protocols": [{"tcp": {"destinationPort": {"number": 80}}}],
                },
                {
                    "action": "Deny",
                    "to": [ANYBODY],
                    "protocols": [
                        {"udp": {"destinationPort": {"range": {"start": 5, "end": 9}}}},
                        {"destinationNamedPort": "web"},
                    ],
                },
            ],
        )
    )
    web = cluster_of(
        [
            (
                "",
                {
                    "kind": "NetworkPolicy",
                    "metadata": {"name": "n"},
                    "spec": {"podSelector": {"matchLabels": {"app": "web"}}},
                },
            )
        ]
    )
    assert found == ClusterPolicy(
        "baseline",
        10,
        "one",
        PodPeer(web.policies("default")[0].selector, Selector()),
        (ClusterRule("pass", (PodPeer(Selector(), Selector()),), None, "in"),),
        (
            ClusterRule("accept", (block("10.0.0.0/8", (), ""), NodePeer()), (Port("tcp", 80, 80),)),
            ClusterRule("deny", (PodPeer(Selector(), Selector()),), (Port("udp", 5, 9), *NAMED_PORTS)),
        ),
    )


#: A rule, and what becomes of it: an Accept that cannot be read accepts nothing, everything else denies all.
BROKEN = {
    "a deny of no peers": (rule(to=[]), SHUT, "spec.egress[0].to: 0 items"),
    "a deny of an unknown peer": (rule(to=[{"services": {}}]), SHUT, "spec.egress[0].to[0].services: unknown field"),
    "a pass of one of two": (rule("Pass", to=[ANYBODY, {}]), SHUT, "spec.egress[0].to[1]: a peer has one of"),
    "a deny of two kinds": (rule(to=[{"namespaces": {}, "networks": ["10.0.0.0/8"]}]), SHUT, "a peer has one of"),
    "a deny of names": (rule(to=[{"domainNames": ["example.com"]}]), SHUT, "spec.egress[0].to[0].domainNames: only an Accept of the Admin tier"),
    "a pass of names": (rule("Pass", to=[ANYBODY, {"domainNames": ["example.com"]}]), SHUT, "spec.egress[0].to[1].domainNames: only an Accept"),
    "an accept of no names": (rule("Accept", to=[{"domainNames": []}]), ClusterRule("accept", ()), "spec.egress[0].to[0].domainNames: 0 items"),
    "an accept of a wrong name": (
        rule("Accept", to=[{"domainNames": ["example.com"]}, {"domainNames": ["example.org", "*"]}]),
        ClusterRule("accept", (DomainPeer(("example.com",)),)), 'spec.egress[0].to[1].domainNames[1]: "*" is no name of a domain',
    ),
    "an accept of a name in other letters": (
        rule("Accept", to=[{"domainNames": ["b\u00fccher.example"]}]), ClusterRule("accept", ()), "spell it with A-labels",
    ),
    "an accept of names on a named port": (
        rule("Accept", to=[{"domainNames": ["example.com"]}], protocols=[{"destinationNamedPort": "web"}]),
        ClusterRule("accept", (), NAMED_PORTS), "only pods have named ports",
    ),
    "an accept of one of two": (
        rule("Accept", to=[ANYBODY, {"pods": {}}]), ClusterRule("accept", (PodPeer(Selector(), Selector()),)), "podSelector",
    ),
    "an accept with more": (rule("Accept", form=1), ClusterRule("accept", ()), "spec.egress[0].form: unknown field"),
    "an accept on no ports": (rule("Accept", protocols=[]), ClusterRule("accept", (PodPeer(Selector(), Selector()),), ()), "0 items"),
    "no action": ({"to": [ANYBODY]}, SHUT, "spec.egress[0].action: null is none of Accept, Deny, Pass"),
    "another action": (rule("Allow"), SHUT, 'spec.egress[0].action: "Allow" is none of'),
    "a deny with a wrong port": (rule(protocols=[{"tcp": {"destinationPort": {"number": 0}}}]), SHUT, "destinationPort.number: 0 is no number"),
    "a deny of names of nodes' ports": (rule(to=[{"nodes": {}}], protocols=[{"destinationNamedPort": "web"}]), SHUT, "only pods have named ports"),
    "host bits": (rule(to=[{"networks": ["10.0.0.1/8"]}]), SHUT, "has bits behind its prefix"),
    "a rule that is a text": ("Deny", SHUT, 'spec.egress[0]: "Deny" is no object'),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_read_fails_closed(case: str) -> None:
    raw, wanted, fault = BROKEN[case]
    found = read(spec(egress=[raw]))
    assert found.egress == (wanted,)
    assert any(fault in line for line in found.faults), found.faults


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ({"tier": "Middle"}, 'spec.tier: "Middle" is none of Admin, Baseline'),
        ({"priority": 1001}, "spec.priority: 1001 is no number from 0 to 1000"),
        ({"priority": True}, "spec.priority: true is no number"),
        ({"egres": []}, "spec.egres: unknown field"),
    ],
)
def test_where_nobody_knows_its_turn_it_denies_first_and_accepts_nothing(wrong: dict[str, Any], fault: str) -> None:
    found = read({**spec(egress=[rule("Accept"), rule("Deny")]), **wrong})
    assert (found.tier, found.priority) == ("admin", -1)
    assert [item.action for item in found.egress] == ["deny"]
    assert any(fault in line for line in found.faults), found.faults


@pytest.mark.parametrize(
    "subject",
    [None, {}, {"namespaces": {}, "pods": {"podSelector": {}}}, {"pod": {}}, {"namespaces": {"matchLabel": {}}}],
)
def test_a_subject_that_cannot_be_read_may_be_anybody(subject: object) -> None:
    found = read(spec(subject=subject))
    assert found.faults
    assert found.subject.namespaces is not None
    assert found.subject.namespaces.selects(Labels({})) is None


def test_earlier_names_are_read_as_what_they_have_become() -> None:
    ports = [
        {"portNumber": {"protocol": "UDP", "port": 53}},
        {"portNumber": {"port": 80}},
        {"portRange": {"start": 1, "end": 9}},
        {"namedPort": "web"},
    ]
    today = [
        {"udp": {"destinationPort": {"number": 53}}},
        {"tcp": {"destinationPort": {"number": 80}}},
        {"tcp": {"destinationPort": {"range": {"start": 1, "end": 9}}}},
        {"destinationNamedPort": "web"},
    ]
    before = {"priority": 10, "subject": ANYBODY, "egress": [rule("Allow", ports=ports), rule("Pass")]}
    version = "policy.networking.k8s.io/v1alpha1"
    admin = read(before, "AdminNetworkPolicy", version)
    assert admin == read(spec(egress=[rule("Accept", protocols=today), rule("Pass")]))
    assert admin.faults == ()
    names = [{"domainNames": ["*.Example.com."]}]
    by_name = {"priority": 10, "subject": ANYBODY, "egress": [rule("Allow", to=names)]}
    allowed = read(by_name, "AdminNetworkPolicy", version)
    assert (allowed.egress, allowed.faults) == ((ClusterRule("accept", (DomainPeer(("*.example.com",)),)),), ())
    refused = read({**by_name, "egress": [rule("Deny", to=names)]}, "AdminNetworkPolicy", version)
    assert refused.egress == (SHUT,)
    del by_name["priority"]
    below = read(by_name, "BaselineAdminNetworkPolicy", version, "default")
    assert below.egress == (ClusterRule("accept", ()),)
    assert below.faults == ("spec.egress[0].to[0].domainNames: only an Accept of the Admin tier may have names",)
    baseline = read(
        {key: value for key, value in before.items() if key != "priority"},
        "BaselineAdminNetworkPolicy",
        version,
        "default",
    )
    assert (baseline.tier, baseline.priority, baseline.faults) == ("baseline", 0, ())
    assert baseline.egress == admin.egress
    assert (
        read({}, "BaselineAdminNetworkPolicy", version, "other").faults[0]
        == "metadata.name: \"other\" is not 'default'"
    )
    broken = read(
        {"priority": 1, "subject": ANYBODY, "egress": [rule("Deny", ports=[{"portNumber": {"port": 0}}])]},
        "AdminNetworkPolicy",
        version,
    )
    assert broken.egress == (SHUT,)


def test_an_earlier_name_may_have_more_rules() -> None:
    many = {"priority": 1, "subject": ANYBODY, "egress": [rule()] * 26}
    assert read(many, "AdminNetworkPolicy", "policy.networking.k8s.io/v1alpha1").faults == ()
    assert read({"tier": "Admin", **many}).faults == ("spec.egress: 26 rules, of at most 25",)


def test_a_node_has_the_addresses_of_its_status() -> None:
    status = {
        "addresses": [
            {"type": "InternalIP", "address": "192.0.2.1"},
            {"type": "Hostname", "address": "one"},
            {"type": "InternalIP", "address": "fd00::1"},
        ]
    }
    raw = {"kind": "Node", "apiVersion": "v1", "metadata": {"name": "one", "labels": {"a": "b"}}, "status": status}
    assert cluster_of([("", raw)]).nodes() == (KubeNode("one", Labels({"a": "b"}), ("192.0.2.1", "fd00::1")),)
