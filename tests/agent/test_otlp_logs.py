"""What is sent of a flow, by OpenTelemetry's library to a collector that decodes it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from collector import Collector, taken

from cni import __version__
from cni.agent.otlp_logs import LogSender
from cni.agent.settings import Otlp
from cni.flows.sighting import DENIED, ENDED, Sighting

SEEN = Sighting(
    ENDED, 1796021217.5, "egress", "shop/web", "0123456789ab", "10.1.0.2", "", "", "203.0.113.9", "tcp", 443, 40000,
    "", ("api.example.com",), "c652e0d6", 1796021216.9, 1796021217.4, 7, 450, 5, 820,
)  # fmt: skip
DROP = Sighting(DENIED, 5.0, "ingress", "shop/db", "", "10.1.0.3", "shop/web", "", "10.1.0.2", "tcp", 81, 4000)


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    with Collector(("127.0.0.1", 0), tmp_path / "logs") as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def sent(url: str, *packets: bytes) -> None:
    sender = LogSender(Otlp(url))
    for packet in packets:
        sender.take(packet)
    sender.end()


def test_flows_are_log_records(collector: Collector):
    sent(f"http://127.0.0.1:{collector.server_address[1]}", SEEN.line + DROP.line)
    over, denied = taken(collector.file)
    assert (over["event"], over["severity"], over["at"]) == ("agent_cni.flow", "INFO", 1796021217500000000)
    assert over["body"] == "shop/web to 203.0.113.9, 443/tcp: ended"
    assert over["resource"]["service.name"] == "agent-cni"
    assert over["resource"]["service.version"] == __version__
    said: dict[str, Any] = over["attributes"]
    assert (said["k8s.namespace.name"], said["k8s.pod.name"], said["container.id"]) == ("shop", "web", "0123456789ab")
    assert (said["source.address"], said["source.port"]) == ("10.1.0.2", 40000)
    assert (said["destination.address"], said["destination.port"], said["network.transport"]) == (
        "203.0.113.9",
        443,
        "tcp",
    )
    assert said["agent_cni.flow.names"] == ["api.example.com"]
    assert (said["agent_cni.flow.sent_bytes"], said["agent_cni.flow.received_bytes"]) == (450, 820)
    assert (denied["severity"], denied["body"]) == ("WARN", "shop/db from shop/web, 81/tcp: denied")
    assert (denied["attributes"]["source.address"], denied["attributes"]["destination.address"]) == (
        "10.1.0.2",
        "10.1.0.3",
    )
    assert "k8s.namespace.name" in denied["attributes"]


def test_a_collector_that_is_away_is_said_once(log_folder: Path):
    sent("http://127.0.0.1:9", *[SEEN.line] * 3)
    lines = [json.loads(line) for line in (log_folder / "flows.log").read_text().splitlines()]
    assert len(lines) == 1
    assert lines[0]["warning"].startswith("no flows are taken at http://127.0.0.1:9/v1/logs: ")
