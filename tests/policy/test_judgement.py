"""Which document decides about a connection, and what a change of documents would change."""

from __future__ import annotations

from typing import Any

import pytest

from cni.policy.amended import Amended
from cni.policy.compiler import tier
from cni.policy.forecast import changes
from cni.policy.judgement import Judgement, Other, judged
from cni.policy.labels import Labels
from cni.policy.manifest import objects_of
from cni.policy.model import Policy
from cni.policy.objects import Pod
from tests.fakes.book import ListedBook

ANYBODY = {"namespaces": {}}
ALLOWED = Judgement(True, "default")


def pod(name: str, address: str, ports: dict[str, int] | None = None, **labels: str) -> dict[str, Any]:
    said = [{"name": port, "containerPort": number} for port, number in (ports or {}).items()]
    return {
        "kind": "Pod",
        "metadata": {"namespace": "one", "name": name, "labels": labels},
        "spec": {"containers": [{"ports": said}]},
        "status": {"podIP": address},
    }


def policy(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "kind": "NetworkPolicy",
        "metadata": {"namespace": "one", "name": name},
        "spec": {"podSelector": {}, **spec},
    }


def cluster(name: str, tier: str = "Admin", priority: int = 5, **spec: Any) -> dict[str, Any]:
    said = {"tier": tier, "priority": priority, "subject": ANYBODY, **spec}
    return {"kind": "ClusterNetworkPolicy", "metadata": {"name": name}, "spec": said}


def into(action: str, app: str | None = None, *ports: int) -> dict[str, Any]:
    peer = ANYBODY if app is None else {"pods": {"podSelector": {"matchLabels": {"app": app}}}}
    said = {"protocols": [{"tcp": {"destinationPort": {"number": port}}} for port in ports]} if ports else {}
    return {"action": action, "from": [peer], **said}


WEB, DB, LOG = (
    pod("web", "10.0.0.1", app="web"),
    pod("db", "10.0.0.2", {"sql": 5432}, app="db"),
    pod("log", "10.0.0.3", app="log"),
)
PODS = (WEB, DB, LOG)
CLOSED = policy("closed", policyTypes=["Ingress"])
SQL = policy(
    "sql",
    ingress=[
        {"ports": [{"port": 1}]},
        {"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": "sql"}]},
    ],
)

#: Documents, who asks the pod `db` on which port of TCP, and what decides.
CASES: dict[str, tuple[list[dict[str, Any]], str, int, Judgement]] = {
    "nothing": ([], "web", 80, ALLOWED),
    "closed": ([CLOSED], "web", 80, Judgement(False, "networkpolicy", ("NetworkPolicy one/closed",))),
    "a rule": ([CLOSED, SQL], "web", 5432, Judgement(True, "networkpolicy", ("NetworkPolicy one/sql",), "ingress[1]")),
    "not its port": (
        [CLOSED, SQL], "web", 5433, Judgement(False, "networkpolicy", ("NetworkPolicy one/closed", "NetworkPolicy one/sql")),
    ),
    "another pod": ([SQL], "log", 5432, Judgement(False, "networkpolicy", ("NetworkPolicy one/sql",))),
    "an administrator first": (
        [SQL, cluster("no", ingress=[into("Deny", "web")])], "web", 5432, Judgement(False, "admin", ("ClusterNetworkPolicy no",), "ingress[0]"),
    ),
    "an administrator against a default": (
        [CLOSED, cluster("yes", ingress=[into("Accept", "web", 80)])], "web", 80, Judgement(True, "admin", ("ClusterNetworkPolicy yes",), "ingress[0]"),
    ),
    "the lower number first": (
        [cluster("a", priority=9, ingress=[into("Deny")]), cluster("b", priority=2, ingress=[into("Accept")])],
        "web", 80, Judgement(True, "admin", ("ClusterNetworkPolicy b",), "ingress[0]"),
    ),
    "a pass ends its tier": (
        [cluster("a", priority=1, ingress=[into("Pass", "web")]), cluster("b", ingress=[into("Deny")]), CLOSED],
        "web", 80, Judgement(False, "networkpolicy", ("NetworkPolicy one/closed",)),
    ),
    "a pass of others does not": (
        [cluster("a", priority=1, ingress=[into("Pass", "log")]), cluster("b", ingress=[into("Deny")])],
        "web", 80, Judgement(False, "admin", ("ClusterNetworkPolicy b",), "ingress[0]"),
    ),
    "a baseline": (
        [cluster("low", "Baseline", ingress=[into("Accept", "log"), into("Deny")])],
        "web", 80, Judgement(False, "baseline", ("ClusterNetworkPolicy low",), "ingress[1]"),
    ),
    "no baseline for who is selected": (
        [SQL, cluster("low", "Baseline", ingress=[into("Deny")])], "web", 5432,
        Judgement(True, "networkpolicy", ("NetworkPolicy one/sql",), "ingress[1]"),
    ),
    "a pass to nothing": ([cluster("low", "Baseline", ingress=[into("Pass"), into("Deny")])], "web", 80, ALLOWED),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_document_that_decides(case: str) -> None:
    documents, who, port, wanted = CASES[case]
    book = ListedBook(*PODS, *documents)
    source, target = book.pod("one", who), book.pod("one", "db")
    assert source
    assert target
    assert judged(book, target, "ingress", Other(source.addresses[0], source, "tcp", port)) == wanted


def test_a_pod_reaches_itself() -> None:
    book = ListedBook(*PODS, CLOSED, cluster("no", ingress=[into("Deny")]))
    own = book.pod("one", "db")
    assert own
    assert judged(book, own, "ingress", Other("10.0.0.2", own, "tcp", 80)) == ALLOWED


def test_what_a_configuration_says_adds_to_the_policies() -> None:
    book = ListedBook(*PODS)
    target = book.pod("one", "db")
    assert target
    other = Other("10.0.0.1", book.pod("one", "web"), "tcp", 80)
    assert judged(book, target, "ingress", other, Policy(ingress=())) == Judgement(
        False, "networkpolicy", ("the configuration",)
    )
    assert judged(book, target, "egress", other, Policy(ingress=())) == ALLOWED


def test_who_is_not_known_is_shut_by_whatever_could_mean_it() -> None:
    book = ListedBook(
        WEB,
        policy("some", podSelector={"matchLabels": {"a": "b"}}),
        cluster(
            "no",
            subject={"pods": {"podSelector": {"matchLabels": {"a": "b"}}}},
            egress=[{"action": "Deny", "to": [{"networks": ["192.0.2.0/24"]}]}],
        ),
    )
    stranger = Pod("one", "stranger", Labels({}, complete=False), ("10.0.0.9",))
    other = Other("10.0.0.1", book.pod("one", "web"), "tcp", 80)
    assert judged(book, stranger, "ingress", other) == Judgement(False, "networkpolicy", ("NetworkPolicy one/some",))
    assert judged(book, stranger, "egress", other).documents == ("ClusterNetworkPolicy no",)


def test_each_port_of_who_is_not_known_may_have_the_name_that_is_denied() -> None:
    """It stands open otherwise until its object is there."""
    named = {"action": "Deny", "from": [ANYBODY], "protocols": [{"destinationNamedPort": "sql"}]}
    book = ListedBook(WEB, DB, cluster("no", ingress=[named]))
    stranger = Pod("one", "stranger", Labels({}, complete=False), ("10.0.0.9",))
    for target, port, allowed in ((stranger, 1234, False), (book.pod("one", "db"), 1234, True)):
        assert target
        assert (
            judged(book, target, "ingress", Other("10.0.0.1", book.pod("one", "web"), "tcp", port)).allowed is allowed
        )
        rules = Policy(admin=tier(book, "admin", f"one/{target.name}"))
        assert rules.allows("ingress", "10.0.0.1", "tcp", port, book) is allowed


def forecast(
    before: list[dict[str, Any]], put: list[dict[str, Any]], *, removed: bool = False
) -> set[tuple[str, str, str, int, int, bool]]:
    book = ListedBook(*PODS, *before)
    after = Amended(book, objects_of(("", item) for item in put), removed=removed)
    found = changes(book, after, list(book.pods()))
    return {
        (
            ",".join(item.source.pods) or item.source.address,
            ",".join(item.target.pods) or item.target.address,
            item.protocol,
            item.first,
            item.last,
            item.allowed,
        )
        for item in found
    }


def test_what_a_policy_would_close_and_leave_open() -> None:
    found = forecast(
        [],
        [
            policy(
                "sql",
                podSelector={"matchLabels": {"app": "db"}},
                ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": "sql"}]}],
            )
        ],
    )
    assert found == {
        ("one/web", "one/db", "tcp", 1, 5431, False),
        ("one/web", "one/db", "tcp", 5433, 65535, False),
        ("one/web", "one/db", "udp", 1, 65535, False),
        ("one/web", "one/db", "sctp", 1, 65535, False),
        *(
            (who, "one/db", protocol, 1, 65535, False)
            for who in ("one/log", "203.0.113.1")
            for protocol in ("tcp", "udp", "sctp")
        ),
    }


def test_what_taking_a_policy_away_would_open() -> None:
    found = forecast([CLOSED], [CLOSED], removed=True)
    pods = ("one/web", "one/db", "one/log")
    pairs = [(source, target) for target in pods for source in (*pods, "203.0.113.1") if source != target]
    assert found == {(*pair, protocol, 1, 65535, True) for pair in pairs for protocol in ("tcp", "udp", "sctp")}


def test_the_same_again_changes_nothing() -> None:
    assert forecast([CLOSED, SQL], [SQL]) == set()


def test_a_label_that_changes() -> None:
    closed = policy("db", podSelector={"matchLabels": {"app": "db"}}, policyTypes=["Ingress"])
    found = forecast([closed], [pod("log", "10.0.0.3", app="db")])
    assert {item[1] for item in found} == {"one/log"}
    assert not any(allowed for *_, allowed in found)


def from_block(cidr: str, *excepted: str) -> dict[str, Any]:
    block = {"cidr": cidr, **({"except": [*excepted]} if excepted else {})}
    return policy("block", podSelector={"matchLabels": {"app": "db"}}, ingress=[{"from": [{"ipBlock": block}]}])


@pytest.mark.parametrize(
    ("before", "after", "where"),
    [
        (from_block("192.168.0.0/16"), from_block("192.168.0.0/17"), "192.168.128.0"),
        (from_block("192.168.0.0/17"), from_block("192.168.0.0/16"), "192.168.128.0"),
        (from_block("192.168.0.0/16"), from_block("192.168.0.0/16", "192.168.255.255/32"), "192.168.255.255"),
        (from_block("10.0.0.0/24"), from_block("10.0.0.0/29"), "10.0.0.8"),
        (from_block("10.0.0.0/29"), from_block("10.0.0.2/31"), "10.0.0.0"),
        (from_block("10.0.0.0/29"), from_block("10.0.0.0/30"), "10.0.0.4"),
        (from_block("10.0.0.0/30", "10.0.0.0/32"), from_block("10.0.0.4/30"), "10.0.0.4"),
        (from_block("0.0.0.0/0"), from_block("0.0.0.0/1"), "128.0.0.0"),
    ],
)
def test_a_block_that_becomes_another(before: dict[str, Any], after: dict[str, Any], where: str) -> None:
    found = {item[0] for item in forecast([before], [after]) if item[0][0].isdecimal()}
    assert where in found
    assert not found & {"10.0.0.1", "10.0.0.2", "10.0.0.3"}


def test_a_rule_about_nodes() -> None:
    node = {
        "kind": "Node",
        "metadata": {"name": "n"},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.7"}]},
    }
    denied = cluster("nodes", egress=[{"action": "Deny", "to": [{"nodes": {}}]}])
    pods = ("one/web", "one/db", "one/log")
    assert forecast([node], [denied]) == {
        (pod, "192.0.2.7", protocol, 1, 65535, False) for pod in pods for protocol in ("tcp", "udp", "sctp")
    }


def test_a_pod_that_no_document_knows_is_shut_by_what_could_mean_it() -> None:
    book = ListedBook(WEB)
    after = Amended(book, objects_of([("", CLOSED)]), removed=False)
    new = Pod("one", "new", Labels({}, complete=False), ("10.0.0.9",))
    found = {(item.source.pods, item.target.pods) for item in changes(book, after, [new]) if not item.allowed}
    assert (("one/web",), ("one/new",)) in found


def test_what_another_nodes_pod_would_lose_or_let_in_is_of_this_nodes_pods_too() -> None:
    book = ListedBook(*PODS)
    closed = policy("db", podSelector={"matchLabels": {"app": "db"}}, policyTypes=["Ingress"])
    after = Amended(book, objects_of([("", closed)]), removed=False)
    here = [pod for pod in book.pods() if pod.name == "web"]
    found = {(item.source.pods, item.target.pods, item.allowed) for item in changes(book, after, here)}
    assert found == {(("one/web",), ("one/db",), False)}
