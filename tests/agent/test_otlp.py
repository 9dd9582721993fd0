"""What is sent of a call, by OpenTelemetry's library to a collector that decodes it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from authority import Authority, Mounted
from collector import Collector, Span, taken

from cni import __version__
from cni.agent.otlp import Sender
from cni.agent.settings import Otlp

TRACE, ABOVE, OWN, STEP = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "a" * 16, "b" * 16


def span(**more: Any) -> dict[str, Any]:
    said = {"name": "ADD macvlan", "parent": ABOVE, "own": OWN, "began": 1_000, "ended": 3_000}
    return said | {"attributes": {"cni.verb": "ADD"}, "error": ""} | more


def packet(*spans: dict[str, Any], **carried: str) -> bytes:
    return json.dumps({"trace": TRACE, "carried": carried, "spans": spans, "lost": 0}).encode()


PARENT = {"traceparent": f"00-{TRACE}-{ABOVE}-01"}


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    with Collector(("127.0.0.1", 0), tmp_path / "spans") as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def sent(collector: Collector, *packets: bytes) -> list[Span]:
    sender = Sender(Otlp(f"http://127.0.0.1:{collector.server_address[1]}"))
    for one in packets:
        sender.take(one)
    sender.end()
    return taken(collector.file)


def test_ids_and_times_are_those_that_were_told(collector: Collector):
    call, step = sent(
        collector, packet(span(), span(name="ensure VethPair", parent=OWN, own=STEP, ended=2_000), **PARENT)
    )
    assert (call["trace"], call["parent"], call["span"]) == (TRACE, ABOVE, OWN)
    assert (step["trace"], step["parent"], step["span"]) == (TRACE, OWN, STEP)
    assert [(one["name"], one["kind"], one["began"], one["ended"]) for one in (call, step)] == [
        ("ADD macvlan", 2, 1_000, 3_000),
        ("ensure VethPair", 1, 1_000, 2_000),
    ]
    assert call["resource"].items() >= {"service.name": "agent-cni", "service.version": __version__}.items()


def test_without_anybody_above_it_is_the_first_of_its_trace(collector: Collector):
    (call,) = sent(collector, packet(span(parent="")))
    assert (call["trace"], call["parent"], call["span"]) == (TRACE, "", OWN)


def test_state_and_baggage_are_told(collector: Collector):
    baggage = "tenant=a%20b;secret,ring=2, =nonsense"
    (call,) = sent(collector, packet(span(), **PARENT, tracestate="vendor=1,other=2", baggage=baggage))
    assert call["state"] == "vendor=1,other=2"
    assert call["attributes"]["baggage.ring"] == "2"
    assert call["attributes"]["baggage.tenant"].startswith("a b")


def test_bytes_that_are_no_text_hinder_nothing(collector: Collector):
    (call,) = sent(collector, packet(span(attributes={"cni.network": "\udcff"}, error="\udcfe"), **PARENT))
    assert (call["attributes"]["cni.network"], call["error"]) == ("?", "?")


def test_what_was_lost_is_warned_of(collector: Collector, log_folder: Path):
    sent(collector, json.dumps(json.loads(packet(span())) | {"lost": 3}).encode())
    (line,) = (log_folder / "agent.log").read_text().splitlines()
    assert "the spans of 3 calls are lost" in json.loads(line)["warning"]


def test_by_files_of_tls_that_change_each_span_is_sent(tmp_path: Path, log_folder: Path):
    """Certificate and authority of this host; what is half of a change changes nothing."""
    authority, files, server = Authority(tmp_path / "ca"), Mounted(tmp_path / "mount"), Mounted(tmp_path / "server")
    server.put(pair=authority.give("collector"))
    files.put(authority.ca.read_bytes(), authority.give("first"))
    tls = (str(server.cert), str(server.key), str(authority.ca))
    with Collector(("127.0.0.1", 0), tmp_path / "spans", 0, *tls) as collector:
        thread = threading.Thread(target=collector.serve_forever, args=(0.01,))
        thread.start()
        url = f"https://127.0.0.1:{collector.server_address[1]}"
        sender = Sender(Otlp(url, cacert=str(files.ca), cert=str(files.cert), key=str(files.key)))
        for change in (
            {},
            {"pair": authority.give("second")},
            {"pair": (b"half", b"of it")},
            {"pair": authority.give("third")},
        ):
            files.put(**change)
            for _ in range(2):
                sender.take(packet(span(), **PARENT))
                sender.end()
        collector.shutdown()
        thread.join()
    assert [item["peer"] for item in taken(tmp_path / "spans")] == [*["first"] * 2, *["second"] * 4, *["third"] * 2]
    assert not (log_folder / "agent.log").exists(), "and nothing was said of trouble"
