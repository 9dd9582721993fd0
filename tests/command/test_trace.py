"""The log as an operator reads it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from cluster_memory import Memory
from member_host import Host, network

from cni.command import trace

LINES = {
    "bridge-vxlan.log": [
        {
            "time": "2026-01-01T00:00:01.000Z",
            "plugin": "bridge-vxlan",
            "verb": "ADD",
            "container": "abc1",
            "seconds": 0.1,
        },
        {
            "time": "2026-01-01T00:00:03.000Z",
            "plugin": "bridge-vxlan",
            "verb": "DEL",
            "container": "abc1",
            "error": "no",
        },
        {"time": "2026-01-01T00:00:04.000Z", "plugin": "bridge-vxlan", "verb": "ADD", "container": "xyz2"},
    ],
    "sidecar-redirect.log": [
        {"time": "2026-01-01T00:00:02.000Z", "plugin": "sidecar-redirect", "verb": "ADD", "container": "abc1"},
    ],
}


@pytest.fixture
def logged(log_folder: Path) -> None:
    log_folder.mkdir()
    for name, lines in LINES.items():
        text = "\n".join(map(json.dumps, lines))
        (log_folder / name).write_text(f'{text}\n[]\n{{"container": "abc1", "cut of')


@pytest.mark.usefixtures("logged")
def test_one_containers_lines_in_order_from_every_plugin(agent: Any):
    said = agent("trace", "abc")
    rows = [line.split() for line in said.out.splitlines() if line]
    assert [row[1:3] for row in rows] == [
        ["plugin", "verb"], ["bridge-vxlan", "ADD"], ["sidecar-redirect", "ADD"], ["bridge-vxlan", "DEL"],
    ]  # fmt: skip
    assert rows[-1][-1] == "no"


@pytest.mark.usefixtures("logged")
def test_several_containers_are_told_apart(agent: Any, log_folder: Path):
    with (log_folder / "bridge-vxlan.log").open("a") as file:
        file.write('\n{"time": "2026-01-01T00:00:05.000Z", "plugin": "bridge-vxlan", "container": "abd9"}\n')
    head, first, *_ = (line.split() for line in agent("trace", "ab").out.splitlines())
    assert head[:2] == ["time", "container"]
    assert first[1] == "abc1"


@pytest.mark.usefixtures("logged")
def test_the_lines_as_they_are(agent: Any):
    lines = json.loads(agent("trace", "abc1", "--json").out)
    assert [line["time"][17:19] for line in lines] == ["01", "02", "03"]


def test_a_container_nobody_knows_is_one_line(agent: Any, log_folder: Path):
    said = agent("trace", "abc")
    assert (said.status, said.out, said.err) == (
        1,
        "",
        f"agent-cni: no line in {log_folder} is of pod, container or trace abc\n",
    )


@pytest.mark.usefixtures("logged")
def test_a_pipe_among_the_logs_is_not_waited_for(agent: Any, log_folder: Path):
    os.mkfifo(log_folder / "custom-plugin.log")
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits"))
    signal.alarm(5)
    assert len(json.loads(agent("trace", "abc1", "--json").out)) == 3
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_when_the_cluster_was_told_of_a_pod_is_told(agent: Any, log_folder: Path, no_node: Path, monkeypatch: Any):
    no_node.mkdir(mode=0o700)
    monkeypatch.setattr(trace, "DEFAULT_FOLDER", no_node)
    host, net = Host("a", Memory(), no_node), network()
    host.share(net)
    host.turn(3)
    one = host.add("0123456789abcdef", net)
    (line,) = json.loads(agent("trace", "0123", "--json").out)
    assert line["error"] == f"{one} is not told to the cluster yet"
    host.turn()
    host.store.cut = True
    host.delete("0123456789abcdef", net)
    host.turn()
    told, left = json.loads(agent("trace", "0123", "--json").out)
    assert (told["plugin"], told["verb"], told["address"], told["ifname"]) == ("member", "publish", one, "eth0")
    assert left["verb"] == "withdraw"
    assert left["error"].startswith(f"{one} is not told to the cluster yet: the cluster's store is not reached")
    host.store.cut = False
    host.turn(2)
    assert [line["verb"] for line in json.loads(agent("trace", "0123", "--json").out)] == ["publish", "withdraw"]
    assert agent("trace", "4567").status == 1


def test_a_trace_is_found_by_its_id(agent: Any, log_folder: Path):
    log_folder.mkdir()
    lines = [
        {"time": "1", "plugin": "macvlan", "container": "c", "trace_id": "4bf92f35"},
        {"time": "2", "container": "d"},
    ]
    (log_folder / "macvlan.log").write_text("\n".join(map(json.dumps, lines)))
    assert json.loads(agent("trace", "4bf9", "--json").out) == lines[:1]


def test_a_pod_is_found_by_its_name(agent: Any, log_folder: Path):
    log_folder.mkdir()
    lines = [
        {"time": "1", "container": "abc1", "pod": "shop/web"},
        {"time": "2", "container": "abc2", "pod": "shop/webs"},
    ]
    (log_folder / "macvlan.log").write_text("\n".join(map(json.dumps, lines)))
    assert [line["container"] for line in json.loads(agent("trace", "shop/web", "--json").out)] == ["abc1"]
    said = agent("trace", "shop/we")
    assert (said.status, said.err) == (1, f"agent-cni: no line in {log_folder} is of pod, container or trace shop/we\n")
