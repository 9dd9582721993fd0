"""The dashboard and the alerts ask for figures that there are, in words Prometheus understands."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from cluster_memory import Memory
from member_host import Host, network

from cni.errors import RangeExhausted
from cni.kernel import gatedir, hostsdir
from cni.kernel.counters import Counted
from cni.kernel.hostsdir import Entry
from cni.kernel.wireguard import Shown
from cni.member import census, figures, metrics
from cni.member.exposition import Family
from cni.naming import Attachment
from cni.state import Record
from cni.state.documents import Documents, Feed
from cni.state.recorded import Counts, Recorded
from cni.state.tally import MEND, counted
from cni.values import replace

ROOT = Path(__file__).parent.parent
DASHBOARD = json.loads((ROOT / "deploy/grafana.json").read_text())
RULES = [
    rule for group in yaml.safe_load((ROOT / "deploy/alerts.yaml").read_text())["groups"] for rule in group["rules"]
]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [query["expr"] for panel in PANELS for query in panel["targets"]]
EXPRESSIONS = [*QUERIES, *(rule["expr"] for rule in RULES)]
#: What Prometheus itself adds to every series.
SCRAPED = {"instance", "job", "le"}


@pytest.fixture
def told(no_node: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """Every name a member may tell, and its labels, on a host that has everything."""
    no_node.mkdir(mode=0o700)
    host, net = Host("a", Memory(), no_node, free_after=600), network()
    host.share(net)
    host.turn(3)
    host.add("one", net)
    with closing(host.state) as state, state.transaction():
        state.put(Record(Attachment("net", "one", "eth0"), "macvlan", "/run/netns/x", "", {}))
        member = state.member()
        assert member
        state.put_member(replace(member, encryption="wireguard"))
    with closing(Documents.open()) as documents, documents.transaction():
        documents.put("folder /feed", Feed(), {})
    entry = Entry(Attachment("net", "one", "eth0"), ("10.1.0.2",), ("one",), "", '{"tcp": 80}', hostsdir.NOT_PROBED)
    hostsdir.put(entry.path, entry.text)
    with pytest.raises(RangeExhausted), counted("macvlan", "ADD"):
        raise RangeExhausted("none")
    gatedir.put(gatedir.FOLDER / gatedir.COUNTED, json.dumps({"asked": 1, "pods": 1}))
    with closing(Recorded()) as recorder:
        recorder.put(Counts(begun=1))
    with counted("rules", MEND):
        pass
    monkeypatch.setattr(census, "counted", lambda table: [Counted("NetworkPolicy a/b", "drop", 1, 60)])
    monkeypatch.setattr(census.wireguard, "show", lambda name: Shown("", 0, {}))
    own = (Family(item.name, item.kind, item.means, []) for item in figures.EVERY)
    names = {item.name: {*item.labels} for item in figures.EVERY}
    for family in (*census.of_node(), *own, *metrics._of_process()):
        for sample in family.samples:
            names.setdefault(family.name, set()).update(name for name, _ in sample.labels)
    return names


def asked(expression: str) -> Iterator[tuple[str, set[str]]]:
    """The names and labels of a query."""
    whole = expression.replace("$__rate_interval", "5m").replace("$instance", ".*").replace("$job", ".*")
    promql_parser.parse(whole)
    by = {name for labels in re.findall(r"\bby \(([^)]*)\)", whole) for name in labels.split(", ")}
    for name, matchers in re.findall(r"\b((?:agent_cni|process)_\w+)(?:\{([^}]*)\})?", whole):
        yield name, by | set(re.findall(r"(\w+)(?:=|!)", matchers))


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_what_is_asked_for_is_told(expression: str, told: dict[str, set[str]]):
    found = list(asked(expression))
    assert found
    for name, labels in found:
        family = re.sub(r"_(bucket|sum|count)$", "", name) if name not in told else name
        assert family in told, name
        assert labels - SCRAPED <= told[family], (name, labels)


def test_every_figure_is_somewhere_in_the_dashboard(told: dict[str, set[str]]):
    shown = " ".join(QUERIES)
    elsewhere = {"agent_cni_build_info", "agent_cni_member_info", "agent_cni_member_fence_seconds", "agent_cni_comparisons_total",
                 "agent_cni_block_addresses_leased", "process_start_time_seconds", "process_open_fds"}  # fmt: skip
    assert {name for name in told if name not in shown} == elsewhere


def test_every_figure_is_explained(told: dict[str, set[str]]):
    page = (ROOT / "docs/metrics.md").read_text()
    rows = [row.split("|")[1:3] for row in page.splitlines() if row.startswith("| `")]
    labels = {
        name: {*filter(None, by.strip().split(", "))} for names, by in rows for name in re.findall(r"`(\w+)`", names)
    }
    assert {name: known - {"le"} for name, known in told.items()} == labels


def test_the_dashboard_is_one_of_grafana_10():
    assert DASHBOARD["schemaVersion"] >= 36
    assert {panel["type"] for panel in PANELS} == {"timeseries", "stat"}
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(numbers) == len(set(numbers))
    assert {item["name"] for item in DASHBOARD["templating"]["list"]} == {"datasource", "job", "instance"}
    assert all(query["datasource"]["uid"] == "${datasource}" for panel in PANELS for query in panel["targets"])
    assert all(panel["title"] and panel["description"] and panel["fieldConfig"]["defaults"]["unit"] for panel in PANELS)


def test_panels_are_beside_each_other():
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert all(at["x"] + at["w"] <= 24 for at in places)
    cells: list[tuple[int, int]] = [
        (x, y) for at in places for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_where_and_names_only_what_it_has(rule: dict[str, Any], told: dict[str, set[str]]):
    labels = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    assert "instance" in labels
    by = re.search(r"\bby \(([^)]*)\)", rule["expr"])
    known = set(by.group(1).split(", ")) if by else SCRAPED.union(*(told[name] for name, _ in asked(rule["expr"])))
    assert labels <= known
    assert rule["labels"]["severity"] in ("warning", "critical")
