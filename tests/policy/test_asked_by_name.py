"""What documents say of the names of domains: what their rules let through, which one decides, and what a change of names changes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni.policy.amended import Amended
from cni.policy.compiler import allowances, tier
from cni.policy.config import read
from cni.policy.forecast import changes
from cni.policy.hints import hints
from cni.policy.judgement import Judgement, Other, judged
from cni.policy.manifest import objects_of
from cni.policy.model import Policy
from tests.fakes.book import ListedBook

POD = {"kind": "Pod", "metadata": {"namespace": "one", "name": "web"}, "status": {"podIP": "10.0.0.1"}}
CLOSED = {
    "kind": "NetworkPolicy",
    "metadata": {"namespace": "one", "name": "closed"},
    "spec": {"podSelector": {}, "policyTypes": ["Egress"]},
}
PATTERNS = ("api.example.com", "*.example.com", "example.com", "*.org", "*.example.org", "deep.api.example.com")
VALID = [text for text in PATTERNS if text != "*.org"]
ASKED = (
    "api.example.com",
    "API.Example.Com.",
    "deep.api.example.com",
    "example.com",
    "example.org",
    "x.example.org",
    "other.net",
)
PORTS = {"https": 443, "dns": 53, "dot": 853}


def to(*names: str, ports: tuple[int, ...] = ()) -> dict[str, Any]:
    said = {"protocols": [{"tcp": {"destinationPort": {"number": it}}} for it in ports]} if ports else {}
    return {"action": "Accept", "to": [{"domainNames": [name]} for name in names], **said}


def cluster(*egress: dict[str, Any], name: str = "names", priority: int = 5) -> dict[str, Any]:
    spec = {"tier": "Admin", "priority": priority, "subject": {"namespaces": {}}, "egress": [*egress]}
    return {"kind": "ClusterNetworkPolicy", "metadata": {"name": name}, "spec": spec}


def verdict(book: ListedBook, name: str, port: int, section: Policy | None = None) -> Judgement:
    pod = book.pod("one", "web")
    assert pod
    return judged(book, pod, "egress", Other("", None, "tcp", port, name), section)


def oracle(rules: list[dict[str, Any]], name: str, port: int) -> bool:
    """By splitting names into their labels: whether any rule accepts."""
    labels = name.lower().rstrip(".").split(".")
    for rule in rules:
        numbers = [item["tcp"]["destinationPort"]["number"] for item in rule.get("protocols", ())]
        if numbers and port not in numbers:
            continue
        if not numbers and port in (53, 853):
            continue
        for peer in rule["to"]:
            for spelled in peer["domainNames"]:
                wanted = spelled.lower().rstrip(".").split(".")
                if wanted == labels or (
                    wanted[0] == "*" and any(labels[at:] == wanted[1:] for at in range(1, len(labels)))
                ):
                    return True
    return False


accepts = st.builds(
    lambda names, ports: to(*names, ports=tuple(ports)),
    st.lists(st.sampled_from(VALID), min_size=1, max_size=2),
    st.lists(st.sampled_from(sorted(PORTS.values())), max_size=2, unique=True),
)


@settings(deadline=None)
@given(st.lists(accepts, max_size=3), st.sampled_from(ASKED), st.sampled_from(sorted(PORTS.values())))
def test_what_rules_let_through_and_what_decides_are_one(rules: list[dict[str, Any]], name: str, port: int):
    book = ListedBook(POD, CLOSED, *([cluster(*rules)] if rules else []))
    expected = oracle(rules, name, port)
    assert verdict(book, name, port).allowed is expected
    compiled = Policy(egress=allowances(book, "egress", "one/web"), admin=tier(book, "admin", "one/web"))
    assert any(item.match.admits(name, "tcp", port) for item in compiled.admin.egress) is expected
    assert (compiled.resolving is not None) is bool(rules)


def test_the_word_of_a_document_or_the_configuration():
    book = ListedBook(POD, CLOSED, cluster(to("a.example"), to("*.example.org", ports=(443,))))
    by = ("ClusterNetworkPolicy names",)
    assert verdict(book, "x.example.org", 443) == Judgement(True, "admin", by, "egress[1]")
    assert verdict(book, "x.example.org", 80) == Judgement(False, "networkpolicy", ("NetworkPolicy one/closed",))
    section = read({"egress": [{"to": [{"domainNames": ["b.example"]}]}]}, "$.policy")
    assert verdict(book, "b.example", 80, section) == Judgement(
        True, "networkpolicy", ("the configuration",), "$.policy.egress"
    )


def test_an_address_is_let_through_where_it_is_known_to_be_resolved_from_the_names_of_a_rule():
    book = ListedBook(POD, CLOSED, cluster(to("b.example", "a.example"), to("c.example", ports=(443,))))
    pod = book.pod("one", "web")
    assert pod
    both = ("a.example", "b.example")
    for resolved, port, allowed in (
        (frozenset[tuple[str, ...]](), 443, False),
        (frozenset({both}), 443, True),
        (frozenset({both}), 80, True),
        (frozenset({both}), 53, False),
        (frozenset({("c.example",)}), 443, True),
        (frozenset({("c.example",)}), 80, False),
        (frozenset({("a.example",)}), 80, False),
    ):
        other = Other("192.0.2.1", None, "tcp", port, resolved=resolved)
        assert judged(book, pod, "egress", other).allowed is allowed, (resolved, port)


def forecast(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> set[tuple[str, str, int, int, bool]]:
    book, objects = ListedBook(POD, *before), objects_of(("", item) for item in after)
    pods = list(book.pods())
    found = changes(book, Amended(book, objects), pods)
    return {(it.target.name, it.protocol, it.first, it.last, it.allowed) for it in found if it.target.name}


def test_a_change_of_names_changes_what_they_alone_mean():
    before = [CLOSED, cluster(to("*.example.com", "a.example.org", ports=(443,)))]
    after = [cluster(to("api.example.com", "a.example.org", ports=(443,)))]
    assert forecast(before, after) == {("*.example.com", "tcp", 443, 443, False)}
    assert forecast(before, before) == set()
    assert forecast([CLOSED], after) == {
        ("a.example.org", "tcp", 443, 443, True), ("api.example.com", "tcp", 443, 443, True),
    }  # fmt: skip


def test_a_change_of_all_ports_leaves_out_those_on_which_names_are_asked_for():
    found = forecast([CLOSED], [cluster(to("a.example"))])
    for protocol in ("tcp", "udp"):
        spans = sorted(item[2:4] for item in found if item[1] == protocol)
        assert spans == [(1, 52), (54, 852), (854, 65535)]
    assert ("a.example", "sctp", 1, 65535, True) in found


NAMES = [{"to": [{"domainNames": ["a.b"]}]}]


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"egress": NAMES}, []),
        ({"egress": NAMES, "resolveRate": 5, "allowDNS": ["c.d"]}, []),
        ({"egress": [], "allowDNS": ["c.d"], "resolve": "any"}, []),
        ({"egress": [*NAMES, {}]}, ["$.policy.egress[0]: domainNames do nothing beside a rule that lets out to everybody"]),
        ({"egress": ["0.0.0.0/0", *NAMES]}, ["$.policy.egress[1]: domainNames do nothing beside"]),
        ({"egress": NAMES, "allowDNS": True}, ["$.policy.allowDNS: true does nothing beside domainNames"]),
        ({"allowDNS": ["c.d"]}, ["$.policy.allowDNS: a list does nothing where egress is open"]),
        ({"egress": [], "resolve": "any", "resolveKeep": 5}, ["$.policy.resolve: means nothing", "$.policy.resolveKeep: means"]),
        ({"resolve": "any", "policyDir": "/etc/policies"}, []),
        ({"allowDNS": ["c.d"], "cluster": True}, []),
        ({}, []),
    ],
)  # fmt: skip
def test_what_does_nothing_is_hinted_at(section: dict[str, Any], said: list[str]):
    found = list(hints(section, "$.policy"))
    assert len(found) == len(said), found
    assert all(line.startswith(start) for line, start in zip(found, said, strict=True)), found
