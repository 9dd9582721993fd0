"""Flows as agent-cni says them: the table, each as JSON, as a picture, and as rules."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from cni.command.doctor import flows as flow_faults
from cni.command.flows import table as flow_table
from cni.command.flows.options import seconds
from cni.flows.ring import Ring
from cni.flows.sighting import BEGUN, DENIED, ENDED, Sighting
from cni.resources import DomainSet
from cni.state import Record, Store
from cni.state.daemons import FLOWS, alone
from cni.state.recorded import Counts, Recorded
from cni.values import replace

Ask = Callable[..., Any]
OPEN = {"ingress": [{"ports": [{"port": 80}]}]}


@pytest.fixture
def now() -> float:
    return time.time()


@pytest.fixture
def ask(agent: Any, tmp_path: Path, folder: Path, now: float, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Ask of a ring with two connections, one of which a name led to, a Service, and a drop; nothing is asked of conntrack."""
    monkeypatch.setattr(flow_table, "known", dict)
    web = Sighting(ENDED, now - 10, "egress", "shop/web", "0123456789ab", "10.1.0.2", "shop/db", "ba9876543210", "10.1.0.3", "tcp", 80, 4000,
                   "10.96.0.1:80", (), "aa", now - 15, now - 10, 5, 500, 6, 6 << 20)  # fmt: skip
    api = web._replace(
        peer="", peer_container="", address="203.0.113.9", port=443, service="", names=("api.example.com",), id="bb"
    )
    drop = Sighting(
        DENIED,
        now - 5,
        "ingress",
        "shop/db",
        "ba9876543210",
        "10.1.0.3",
        "shop/web",
        "0123456789ab",
        "10.1.0.2",
        "tcp",
        81,
        4001,
    )
    old = api._replace(id="old", start=now - 9000, end=now - 8000)
    Ring(tmp_path / "flows").append(
        item.line for item in (old, web._replace(what=BEGUN), web, web._replace(id="cc"), api, drop)
    )
    folder.mkdir(mode=0o700)
    return partial(agent, "flows", "--folder", tmp_path / "flows", "--data-dir", folder, "--conf-dir", tmp_path)


def test_who_talks_is_a_row_with_how_often_and_how_much(ask: Ask):
    said = ask()
    assert said.status == 0
    assert "agent-cni: no recorder runs here" in said.err
    head, *rows = (line for line in said.out.splitlines() if line)
    assert head.split() == ["pod", "way", "peer", "port", "verdict", "flows", "sent", "received", "last", "by"]
    assert [row.split("  ")[0] for row in rows] == ["shop/db", "shop/web", "shop/web"]
    (led,) = (row for row in rows if "10.96.0.1" in row)
    assert [part.strip() for part in led.split("  ") if part][2:8] == [
        "shop/db (10.1.0.3) by 10.96.0.1:80", "80/tcp", "allowed", "2", "1000 B", "12.0 MiB",
    ]  # fmt: skip
    assert any("api.example.com (203.0.113.9)" in row and "443/tcp" in row for row in rows)


def test_each_is_json_with_all_there_is(ask: Ask, now: float):
    found = json.loads(ask("shop/web", "--json").out)
    assert [flow["address"] for flow in found] == ["10.1.0.3", "10.1.0.3", "203.0.113.9"]
    assert {flow["verdict"] for flow in found} == {"allowed"}
    assert found[2]["names"] == ["api.example.com"]
    assert found[0]["start"] == now - 15
    longer = json.loads(ask("shop/web", "--json", "--since", "1d").out)
    assert len(longer) == 4


def test_what_was_denied_is_said_with_the_document(ask: Ask, attach: Callable[..., Record]):
    attach("ba9876543210ffff", "10.1.0.3", policy=OPEN)
    (flow,) = json.loads(ask("--denied", "--json").out)
    assert (flow["pod"], flow["verdict"], flow["documents"], flow["tier"]) == (
        "shop/db",
        "denied",
        ["the configuration"],
        "networkpolicy",
    )
    assert "the configuration" in ask("--denied").out
    (allowed, *_) = json.loads(ask("shop/db", "--json").out)
    assert (allowed["direction"], allowed["documents"], allowed["rule"]) == (
        "ingress",
        ["the configuration"],
        "$.policy.ingress",
    )


def test_what_a_name_let_through_is_said_with_the_document(ask: Ask, attach: Callable[..., Record], folder: Path):
    names = ("*.example.com", "example.org")
    rule = {"to": [{"domainNames": [*names]}], "ports": [{"port": 443}]}
    record = attach("0123456789abcdef", "10.1.0.2", policy={"egress": [{"ports": [{"port": 80}]}, rule]})
    with closing(Store.open(folder)) as store, store.transaction():
        store.put(replace(record, resources=(DomainSet(names, "aa", 4),)))
    *_, found = json.loads(ask("shop/web", "--json").out)
    assert (found["names"], found["documents"]) == (["api.example.com"], ["the configuration"])


def test_nothing_seen_is_said(ask: Ask):
    assert ask("shop/nobody").out == "no flow was seen\n"
    assert json.loads(ask("shop/nobody", "--json").out) == []


@pytest.mark.parametrize(
    "words", [("shop/web", "--suggest"), ("--suggest", "shop/web"), ("shop/web", "--suggest", "configuration")]
)
def test_rules_are_suggested_for_a_pod(ask: Ask, words: tuple[str, ...]):
    assert json.loads(ask(*words).out) == {"policy": {
        "egress": [
            {"to": [{"ipBlock": {"cidr": "10.1.0.3/32"}}], "ports": [{"protocol": "TCP", "port": 80}]},
            {"to": [{"domainNames": ["api.example.com"]}], "ports": [{"protocol": "TCP", "port": 443}]},
        ],
        "ingress": [],
    }}  # fmt: skip


def test_rules_for_all_are_said_by_pod_and_denied_flows_are_asked_for(ask: Ask):
    assert list(json.loads(ask("--suggest").out)) == ["shop/web"]
    denied = json.loads(ask("--suggest", "--denied").out)
    assert denied["shop/db"]["policy"]["ingress"][0]["ports"] == [{"protocol": "TCP", "port": 81}]


def test_a_document_is_suggested_where_labels_are_known(ask: Ask, attach: Callable[..., Record], tmp_path: Path):
    objects = tmp_path / "objects"
    objects.mkdir()
    for name in ("web", "db"):
        metadata = {"namespace": "shop", "name": name, "labels": {"app": name}}
        (objects / f"{name}.json").write_text(json.dumps({"kind": "Pod", "metadata": metadata, "spec": {}}))
    attach("0123456789abcdef", "10.1.0.2", policy={"policyDir": str(objects)})
    said = ask("shop/web", "--suggest", "networkpolicy")
    assert said.status == 0
    assert 'matchLabels:\n      app: "web"' in said.out
    assert '- "api.example.com"' in said.out
    kinds = [document["kind"] for document in json.loads(ask("shop/web", "--suggest", "networkpolicy", "--json").out)]
    assert kinds == ["NetworkPolicy", "ClusterNetworkPolicy"]


def test_without_labels_no_document_is_suggested(ask: Ask):
    said = ask("shop/web", "--suggest", "networkpolicy")
    assert (said.status, said.out) == (1, "")
    assert "shop/web has no labels that are known" in said.err


def test_there_is_nothing_to_suggest_by_what_was_not_seen(ask: Ask):
    said = ask("shop/nobody", "--suggest")
    assert (said.status, said.err.splitlines()[-1]) == (1, "agent-cni: no flow was seen to suggest a rule by")
    assert ask("shop/web", "--suggest", "yaml").status == 2


def test_a_picture_has_all_ends(ask: Ask, tmp_path: Path):
    assert ask("--graph", tmp_path / "flows.svg").status == 0
    svg = (tmp_path / "flows.svg").read_text()
    root = ET.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    texts = [item.text or "" for item in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"shop/web", "shop/db"} <= set(texts)
    assert "80/tcp, 12.0 MiB, 2 times" in texts
    assert "81/tcp, denied" in texts
    assert ask("--graph", "-").out.startswith("<svg")


def test_times_are_said_as_people_do(ask: Ask):
    assert [seconds(text) for text in ("90s", "30m", "1h", "7d")] == [90, 1800, 3600, 604800]
    for wrong in ("1", "h", "-1h", "1w", "1h30m"):
        assert ask(f"--since={wrong}").status == 2


def test_a_recorder_that_is_wanted_and_does_not_run_is_a_fault(no_node: Path, monkeypatch: pytest.MonkeyPatch):
    assert list(flow_faults.flow_faults(None)) == []
    monkeypatch.setattr(flow_faults.systemd, "wants_flows", lambda: True)
    (finding,) = flow_faults.flow_faults(None)
    assert (finding.cause, finding.mend) == ("flows-absent", "systemctl enable --now agent-cni-flows.service")
    with alone(FLOWS):
        assert list(flow_faults.flow_faults(None)) == []


def test_what_was_lost_lately_is_told(no_node: Path, now: float):
    recorder = Recorded()
    recorder.put(Counts(shed=5, unwritten=2, lost_at=now - 60))
    assert [(item.cause, item.severity.word) for item in flow_faults.flow_faults(None)] == [
        ("flows-unwritten", "warning"),
        ("flows-shed", "note"),
    ]
    recorder.put(Counts(shed=5, unwritten=2, lost_at=now - 6000))
    assert list(flow_faults.flow_faults(None)) == []
    recorder.close()
