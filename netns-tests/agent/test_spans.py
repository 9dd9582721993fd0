"""Calls as spans, sent by the node agent to a collector, of which there are a real one and one that decodes by OpenTelemetry's messages."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from agents import Agent, call, serving, warm_only
from collector import Running, Span
from lab import BIN_DIR, PATIENCE, ROOT, Host, Pod, environment, eventually, sh

TRACE, ABOVE = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CARRIED = {"TRACEPARENT": f"00-{TRACE}-{ABOVE}-01", "TRACESTATE": "vendor=1", "BAGGAGE": "tenant=a%20b,ring=2"}
PORT = 4318
LOG = Path("/var/log/agent-cni/agent.log")
COLLECTOR = ROOT / ".cache/bin/collector"
DELEGATE = """#!/bin/sh
cat >/dev/null; echo "$CNI_COMMAND $TRACEPARENT $TRACESTATE $BAGGAGE" >>{notes}
[ $CNI_COMMAND != ADD ] || echo '{{"cniVersion": "1.1.0", "ips": [{{"address": "10.1.0.9/24"}}]}}'
"""


@pytest.fixture
def conf(conf: dict) -> dict:
    return conf | {"ipMasq": False}


@pytest.fixture
def told(tmp_path: Path) -> list[str]:
    """The agent's options, by which it sends spans to PORT."""
    (tmp_path / "agent.json").write_text(json.dumps({"otlp": {"endpoint": f"http://127.0.0.1:{PORT}"}}))
    return ["--config", str(tmp_path / "agent.json")]


@pytest.fixture
def collector(node: Host, tmp_path: Path) -> Iterator[Running]:
    with Running(node.prefix(), PORT, tmp_path / "spans") as made:
        yield made


def ended(agent: Agent) -> str:
    """Its stderr, once it and who sends for it are gone."""
    agent.process.terminate()
    return agent.process.communicate(timeout=PATIENCE)[1]


def made(agent: Agent, verb: str, conf: dict[str, Any], pod: Pod, **env: str) -> subprocess.CompletedProcess[str]:
    command, environ = warm_only(agent.host, conf["type"]), environment(verb, pod) | env
    return sh(*command, input=json.dumps(conf), env=environ, check=False)


def named(spans: list[Span], name: str) -> Span:
    (found,) = (span for span in spans if span["name"] == name)
    return found


def test_a_call_is_a_span_of_its_callers_trace(node: Host, pod: Pod, conf: dict, told: list[str], collector: Running):
    agent = serving(node, *told)
    before = time.time_ns()
    args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-0"
    assert made(agent, "ADD", conf, pod, **CARRIED, CNI_ARGS=args).returncode == 0
    assert eventually(lambda: collector.spans)
    (span,) = collector.spans
    assert (span["name"], span["kind"], span["error"]) == ("ADD bridge-vxlan", 2, "")
    assert (span["trace"], span["parent"], span["state"]) == (TRACE, ABOVE, "vendor=1")
    assert before < span["began"] < span["ended"] < time.time_ns()
    assert span["attributes"] == {
        "cni.plugin": "bridge-vxlan", "cni.verb": "ADD", "cni.network": "net", "cni.ifname": "eth0",
        "container.id": pod.container, "k8s.namespace.name": "shop", "k8s.pod.name": "cart-0",
        "baggage.tenant": "a b", "baggage.ring": "2",
    }  # fmt: skip
    assert span["resource"]["service.name"] == "agent-cni"
    lines = json.loads(sh(BIN_DIR.parent / "bin/agent-cni", "trace", pod.container, "--json").stdout)
    assert [line["traceparent"] for line in lines] == [f"00-{TRACE}-{span['span']}-01"], "the line is this span's"
    assert made(agent, "DEL", conf, pod).returncode == 0
    assert ended(agent) == ""
    _, own = collector.spans
    assert (own["name"], own["parent"]) == ("DEL bridge-vxlan", "")
    assert own["trace"] not in (TRACE, "0" * 32)


def test_by_the_unit_that_systemd_runs_they_are_sent_too(
    node: Host, pod: Pod, conf: dict, told: list[str], collector: Running
):
    agent = serving(node, *told, unit=ROOT / "tools/systemd/system/agent-cni.service")
    assert made(agent, "ADD", conf, pod, **CARRIED).returncode == 0
    assert made(agent, "DEL", conf, pod, **CARRIED).returncode == 0
    assert eventually(lambda: len(collector.spans) == 2)
    assert ended(agent) == ""


def test_a_call_that_fails_is_a_span_that_says_why(
    node: Host, pod: Pod, conf: dict, told: list[str], collector: Running
):
    agent = serving(node, *told)
    refused = made(agent, "ADD", conf | {"mtu": 9}, pod)
    broken = sh(*warm_only(node, "macvlan"), input="{", env=environment("ADD", pod), check=False)
    ended(agent)
    spans = collector.spans
    assert [(span["error"], span["attributes"]["error.type"]) for span in spans] == [
        (answer["msg"], str(answer["code"])) for answer in map(json.loads, (refused.stdout, broken.stdout))
    ]


def test_what_is_asked_every_few_seconds_is_none_while_all_is_well(
    node: Host, pod: Pod, conf: dict, told: list[str], collector: Running
):
    agent = serving(node, *told)
    for verb, env in (("STATUS", {}), ("VERSION", CARRIED), ("STATUS", CARRIED)):
        assert made(agent, verb, conf, pod, **env).returncode == 0
    unsampled = CARRIED | {"TRACEPARENT": f"00-{TRACE}-{ABOVE}-00"}
    assert made(agent, "ADD", conf, pod, **unsampled).returncode == 0
    assert made(agent, "DEL", conf, pod, **unsampled).returncode == 0
    ended(agent)
    found = [(span["name"], span["parent"]) for span in collector.spans]
    assert found == [("STATUS bridge-vxlan", ABOVE)]


def test_each_step_is_one_where_that_is_wanted(
    node: Host, pod: Pod, conf: dict, told: list[str], collector: Running, tmp_path: Path
):
    notes, delegate = tmp_path / "notes", tmp_path / "noting"
    delegate.write_text(DELEGATE.format(notes=notes))
    delegate.chmod(0o755)
    agent = serving(node, *told, "--trace")
    foreign, env = conf | {"ipam": {"type": "noting"}}, CARRIED | {"CNI_PATH": f"{BIN_DIR}:{tmp_path}"}
    assert made(agent, "ADD", foreign, pod, **env).returncode == 0
    assert made(agent, "DEL", foreign, pod, **env).returncode == 0
    ended(agent)
    spans = [span for span in collector.spans if span["trace"] == TRACE]
    whole = {span["span"]: span for span in spans}
    add = named(spans, "ADD bridge-vxlan")
    steps = [span for span in spans if span["parent"] == add["span"]]
    assert {"ensure Bridge", "ensure VethPair", "ADD noting"} <= {span["name"] for span in steps}
    for step in steps:
        assert add["began"] <= step["began"] <= step["ended"] <= add["ended"]
    veth = named(spans, "ensure VethPair")
    assert "eth0" in veth["attributes"]["cni.resources"][0]
    told_to = [line.split() for line in notes.read_text().splitlines()]
    asked = [named(spans, "ADD noting"), named(spans, "DEL noting")]
    assert told_to == [
        [verb, f"00-{TRACE}-{span['span']}-01", "vendor=1", CARRIED["BAGGAGE"]]
        for verb, span in zip(("ADD", "DEL"), asked, strict=True)
    ]
    assert whole[asked[1]["parent"]]["name"] == "DEL bridge-vxlan"


@pytest.mark.parametrize("trouble", ["away", "silent", "slow", "stopped"])
def test_a_collector_that_is_not_well_delays_no_call(
    node: Host, pod: Pod, conf: dict, told: list[str], tmp_path: Path, trouble: str
):
    """Away: nobody listens. Silent: somebody does and answers nothing. Stopped: who sends does not, so packets pile up."""
    seconds = {"silent": 60, "slow": 3}
    with ExitStack() as held:
        if trouble in seconds:
            held.enter_context(Running(node.prefix(), PORT, tmp_path / "spans", seconds[trouble]))
        agent = serving(node, *told, "--trace")
        assert eventually(lambda: senders(agent))
        if trouble == "stopped":
            os.kill(*senders(agent), signal.SIGSTOP)
        took = [seconds for _ in range(30) for seconds in both(agent, conf, pod)]
        assert sorted(took)[len(took) // 2] < 0.5, took
        if trouble == "stopped":
            os.kill(*senders(agent), signal.SIGCONT)
            assert eventually(lambda: both(agent, conf, pod) and any("calls are lost" in line for line in warnings()))
        began = time.monotonic()
        said = ended(agent)
        assert time.monotonic() - began < 10
        assert ("calls are lost" in said) == (trouble == "stopped"), said


def warnings() -> list[str]:
    """What the agent's log warns of."""
    return [json.loads(line)["warning"] for line in LOG.read_text().splitlines()] if LOG.exists() else []


def both(agent: Agent, conf: dict[str, Any], pod: Pod) -> list[float]:
    """An ADD and a DEL, and how long each took."""
    took = []
    for verb in ("ADD", "DEL"):
        began = time.monotonic()
        assert call(agent, verb, conf, pod).returncode == 0
        took.append(time.monotonic() - began)
    return took


def test_that_a_collector_is_away_is_said_once_and_so_is_its_return(node: Host, pod: Pod, conf: dict, tmp_path: Path):
    url, settings = f"http://127.0.0.1:{PORT + 1}", tmp_path / "agent.json"
    settings.write_text(json.dumps({"otlp": {"endpoint": url}}))

    def lines() -> list[str]:
        return [line for line in warnings() if url in line]

    agent = serving(node, "--config", str(settings))
    both(agent, conf, pod)
    assert eventually(lines)
    assert "Connection refused" in lines()[0]
    with Running(node.prefix(), PORT + 1, tmp_path / "spans") as back:
        both(agent, conf, pod)
        assert eventually(lambda: len(lines()) == 2)
        assert lines()[0].startswith(f"no spans are taken at {url}/v1/traces: ")
        assert lines()[1] == f"{url}/v1/traces takes spans again"
        assert back.spans
    ended(agent)


def senders(agent: Agent) -> list[int]:
    """The process that sends, of an agent."""
    return [pid for pid in agent.processes() if b"cni.agent.sending" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_a_sender_that_dies_is_started_again_and_sends_what_waited(
    node: Host, pod: Pod, conf: dict, told: list[str], collector: Running
):
    agent = serving(node, *told)
    assert eventually(lambda: senders(agent))
    (first,) = senders(agent)
    os.kill(first, signal.SIGKILL)
    assert made(agent, "ADD", conf, pod, **CARRIED).returncode == 0
    assert eventually(lambda: collector.spans), "within ten seconds"
    (second,) = senders(agent)
    assert second != first
    assert made(agent, "DEL", conf, pod).returncode == 0
    ended(agent)
    assert not Path(f"/proc/{second}").exists()


def test_without_the_library_calls_are_served_and_it_is_said_once(
    node: Host, pod: Pod, conf: dict, told: list[str], tmp_path: Path
):
    (tmp_path / "empty").mkdir()
    hidden = f'mount --bind {tmp_path}/empty {ROOT}/.cache/dev/opentelemetry && exec "$@"'
    agent = serving(node, *told, within=["unshare", "--mount", "sh", "-c", hidden, "sh"])
    assert made(agent, "ADD", conf, pod, **CARRIED).returncode == 0
    assert made(agent, "DEL", conf, pod, **CARRIED).returncode == 0
    said = ended(agent).splitlines()
    assert len(said) == 1
    assert "make install EXTRAS=otlp" in said[0]


@pytest.mark.skipif(
    not COLLECTOR.exists(),
    reason="`make collector-test` builds a collector from the Go module proxy, which takes minutes",
)
def test_a_real_collector_takes_them(node: Host, pod: Pod, conf: dict, told: list[str], tmp_path: Path):
    config, said = tmp_path / "collector.yaml", tmp_path / "said"
    config.write_text(f"""
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{PORT}"}}}}}}}}
exporters: {{debug: {{verbosity: detailed}}}}
service: {{telemetry: {{metrics: {{level: none}}}}, pipelines: {{traces: {{receivers: [otlp], exporters: [debug]}}}}}}
""")
    with said.open("w") as out:
        process = subprocess.Popen([*node.prefix(), COLLECTOR, "--config", config], stdout=out, stderr=out)
    try:
        assert eventually(lambda: "Everything is ready" in said.read_text()), said.read_text()
        agent = serving(node, *told, "--trace")
        assert made(agent, "ADD", conf, pod, **CARRIED).returncode == 0
        assert made(agent, "DEL", conf, pod).returncode == 0
        assert ended(agent) == ""
    finally:
        process.terminate()
        process.wait(PATIENCE)
    text = said.read_text()
    for line in (f"Trace ID       : {TRACE}", f"Parent ID      : {ABOVE}", "Name           : ADD bridge-vxlan",
                 "Name           : ensure VethPair", "Kind           : Server", "-> service.name: Str(agent-cni)"):  # fmt: skip
        assert line in text, text
