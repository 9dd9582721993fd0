"""The door to OpenTelemetry: spans of calls, sent by its own SDK and OTLP exporter, which are there where the extra `otlp` is.

A collector that is away or slow is waited for here, in a process that has nothing else to do; what comes meanwhile waits in the
SDK's queue, which is bounded (OTEL_BSP_MAX_QUEUE_SIZE, 2,048 spans), and is lost beyond that.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import requests
from opentelemetry import baggage
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from requests.adapters import HTTPAdapter

from cni import __version__, log
from cni.agent.settings import Otlp
from cni.kernel.tls import Secrets

#: How long a collector may take for one request and its repetitions, and how often spans are sent.
PATIENCE_SECONDS, EVERY_MS = 10.0, 1000
NAME, _MOST_SAID = "agent-cni", 300


class Sender:
    """Sends what workers hand over."""

    def __init__(self, settings: Otlp) -> None:
        reception = Reception("spans", settings.url, "agent")
        exporter = OTLPSpanExporter(settings.url, session=session(settings), timeout=PATIENCE_SECONDS)
        processor = BatchSpanProcessor(_Watched(exporter, reception), schedule_delay_millis=EVERY_MS)
        self._ids = _Ids()
        self._provider = TracerProvider(resource=resource(), id_generator=self._ids, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer(NAME, __version__)

    def take(self, packet: bytes) -> None:
        """Send what agent/spans.py made of a call, soon."""
        said = plain(json.loads(packet))
        if said["lost"]:
            log.warning("agent", f"the spans of {said['lost']} calls are lost: more came than could be sent")
        above = TraceContextTextMapPropagator().extract(said["carried"])
        carried = W3CBaggagePropagator().extract(said["carried"], above)
        made: dict[str, tuple[Span, int]] = {}
        for span in said["spans"]:
            is_call = not made
            within = carried if is_call else set_span_in_context(made[span["parent"]][0])
            made[span["own"]] = self._begun(span, said["trace"], within, is_call=is_call), span["ended"]
        for begun, ended in made.values():
            begun.end(ended)

    def end(self) -> None:
        """Send what waits."""
        self._provider.force_flush()

    def _begun(self, span: Mapping[str, Any], trace: str, within: Context, *, is_call: bool) -> Span:
        carried = {f"baggage.{key}": str(value) for key, value in baggage.get_all(within).items()} if is_call else {}
        self._ids.trace, self._ids.span = int(trace, 16), int(span["own"], 16)
        kind = SpanKind.SERVER if is_call else SpanKind.INTERNAL
        said = span["attributes"] | carried
        begun = self._tracer.start_span(span["name"], within, kind, attributes=said, start_time=span["began"])
        if span["error"]:
            begun.set_status(Status(StatusCode.ERROR, span["error"]))
        return begun


class _Ids(IdGenerator):
    """Those that were told already."""

    trace = span = 0

    def generate_span_id(self) -> int:
        return self.span

    def generate_trace_id(self) -> int:
        return self.trace


class Reception:
    """Says once, in a log, that what is sent is not taken, and why, and once that it is again."""

    def __init__(self, what: str, url: str, plugin: str) -> None:
        self._what, self._url, self._plugin = what, url, plugin
        self._words, self._fails = _Words(), False

    def begin(self) -> None:
        """Before something is sent."""
        self._words.first = ""

    def ended(self, *, fails: bool) -> None:
        """Whether it was taken."""
        if fails != self._fails:
            why = f"no {self._what} are taken at {self._url}: {self._words.first}"
            log.warning(self._plugin, why if fails else f"{self._url} takes {self._what} again")
        self._fails = fails


class _Watched(SpanExporter):
    def __init__(self, exporter: OTLPSpanExporter, reception: Reception) -> None:
        self._exporter, self._reception = exporter, reception

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._reception.begin()
        result = self._exporter.export(spans)
        self._reception.ended(fails=result is not SpanExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


class _Words(logging.Handler):
    """What the library says while it fails: first why, and then how often."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.first = ""
        library = logging.getLogger("opentelemetry")
        library.addHandler(self)
        library.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        self.first = self.first or record.getMessage()[:_MOST_SAID]


class _ByFiles(HTTPAdapter):
    """TLS by files, which are read again when they change: connections by what they said before are used no more."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets
        super().__init__()

    def build_connection_pool_key_attributes(
        self, *asked: Any, **options: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        host, _ = super().build_connection_pool_key_attributes(*asked, **options)
        return host, {"ssl_context": self._secrets.context()}


def resource() -> Resource:
    """Who sends."""
    return Resource.create({"service.name": NAME, "service.version": __version__, "host.name": os.uname().nodename})


def session(settings: Otlp) -> requests.Session:
    """How a collector is spoken to."""
    made = requests.Session()
    made.trust_env = False  # proxies do not count, as at every other door
    made.mount("https://", _ByFiles(Secrets(settings.cacert, settings.cert, settings.key)))
    return made


def plain(value: Any) -> Any:
    """The same without halves of characters, which stand for bytes that are no text and which nobody would take."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, list):
        return [plain(item) for item in value]
    return {key: plain(item) for key, item in value.items()} if isinstance(value, dict) else value
