"""A collector of OTLP over HTTP, decoded by OpenTelemetry's own messages: it writes each span as a line of JSON.

usage: collector.py HOST PORT FILE [SECONDS before each answer] [CERT KEY [CA of clients]]
"""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

Span = dict[str, Any]


def spans_of(body: bytes) -> list[Span]:
    """What a request says: each span with the attributes of its resource."""
    said = ExportTraceServiceRequest.FromString(body)
    return [
        _told(span) | {"resource": _attributes(resource.resource.attributes)}
        for resource in said.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def logs_of(body: bytes) -> list[Span]:
    """What a request of log records says, likewise."""
    said = ExportLogsServiceRequest.FromString(body)
    return [
        {
            "event": record.event_name,
            "severity": record.severity_text,
            "body": record.body.string_value,
            "at": record.time_unix_nano,
            "attributes": _attributes(record.attributes),
            "resource": _attributes(resource.resource.attributes),
        }
        for resource in said.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    ]


def _told(span: Any) -> Span:
    return {
        "name": span.name, "kind": span.kind, "trace": span.trace_id.hex(), "span": span.span_id.hex(),
        "parent": span.parent_span_id.hex(), "state": span.trace_state, "error": span.status.message if span.status.code == 2 else "",
        "began": span.start_time_unix_nano, "ended": span.end_time_unix_nano, "attributes": _attributes(span.attributes),
    }  # fmt: skip


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(MessageToDict(pair.value)) for pair in pairs}


def _value(raw: dict[str, Any]) -> Any:
    ((kind, value),) = raw.items()
    if kind == "arrayValue":
        return [_value(item) for item in value.get("values", [])]
    return int(value) if kind == "intValue" else value


class Collector(ThreadingHTTPServer):
    """Takes spans at an address; with TLS by `cert` and `key`, from who has a certificate of `ca` where that is given."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], file: Path, seconds: float = 0, *tls: str) -> None:
        super().__init__(address, _Handler)
        self.file, self.seconds = file, seconds
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls[:2])
            for authority in tls[2:]:
                context.load_verify_locations(authority)
                context.verify_mode = ssl.CERT_REQUIRED
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)


class _Handler(BaseHTTPRequestHandler):
    server: Collector
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        decoded = {"/v1/traces": spans_of, "/v1/logs": logs_of}[self.path]
        found = decoded(self.rfile.read(int(self.headers["Content-Length"])))
        time.sleep(self.server.seconds)
        with self.server.file.open("a") as file:
            file.write("".join(json.dumps(span | {"peer": self._peer()}) + "\n" for span in found))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _peer(self) -> str:
        """Whose certificate the sender has shown."""
        shown = self.connection.getpeercert() if isinstance(self.connection, ssl.SSLSocket) else None
        return dict(pair[0] for pair in shown["subject"])["organizationName"] if shown else ""

    def log_message(self, *_: object) -> None:
        return


class Running:
    """The same as a process of its own, in a namespace where `prefix` says so. Use it with `with`."""

    def __init__(self, prefix: list[str], port: int, file: Path, *more: object) -> None:
        self.file = file
        file.touch()
        command = [*prefix, sys.executable, __file__, "127.0.0.1", port, file, *more]
        self._process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        assert self._process.stdout.readline() == "listens\n"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def spans(self) -> list[Span]:
        """What came so far."""
        return taken(self.file)


def taken(file: Path) -> list[Span]:
    """What a collector wrote down."""
    return [json.loads(line) for line in file.read_text().splitlines()]


if __name__ == "__main__":
    host, port, file, *more = sys.argv[1:]
    with Collector((host, int(port)), Path(file), float(more[0]) if more else 0, *more[1:]) as collector:
        print("listens", flush=True)
        collector.serve_forever(0.05)
