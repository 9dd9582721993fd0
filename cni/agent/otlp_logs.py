"""The door to OpenTelemetry's log records, which flows are sent as; see otlp.py."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter, LogRecordExportResult

from cni import __version__
from cni.agent.otlp import EVERY_MS, NAME, PATIENCE_SECONDS, Reception, plain, resource, session
from cni.agent.settings import Otlp

_NANO = 1e9
_EVENT = "agent_cni.flow"
#: How many wait for a collector that is slow, beyond which the oldest go (OTEL_BLRP_MAX_QUEUE_SIZE).
_WAITING = 8192


class LogSender:
    """Sends what a recorder of flows hands over: lines of its ring."""

    def __init__(self, settings: Otlp) -> None:
        reception = Reception("flows", settings.logs, "flows")
        exporter = OTLPLogExporter(settings.logs, session=session(settings), timeout=PATIENCE_SECONDS)
        watched = _Watched(exporter, reception)
        self._provider = LoggerProvider(resource(), shutdown_on_exit=False)
        self._provider.add_log_record_processor(
            BatchLogRecordProcessor(watched, schedule_delay_millis=EVERY_MS, max_queue_size=_WAITING)
        )
        self._logger = self._provider.get_logger(NAME, __version__)

    def take(self, packet: bytes) -> None:
        """Send them, soon."""
        for line in packet.splitlines():
            said = plain(json.loads(line))
            denied = said["what"] == "denied"
            self._logger.emit(
                timestamp=int(said["at"] * _NANO),
                severity_number=SeverityNumber.WARN if denied else SeverityNumber.INFO,
                severity_text="WARN" if denied else "INFO",
                body=_sentence(said),
                attributes=_attributes(said),
                event_name=_EVENT,
            )

    def end(self) -> None:
        """Send what waits."""
        self._provider.force_flush()


class _Watched(LogRecordExporter):
    def __init__(self, exporter: OTLPLogExporter, reception: Reception) -> None:
        self._exporter, self._reception = exporter, reception

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        self._reception.begin()
        result = self._exporter.export(batch)
        self._reception.ended(fails=result is not LogRecordExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 10_000) -> bool:
        return True  # each batch is sent as it is given


def _sentence(said: dict[str, Any]) -> str:
    way = "to" if said["direction"] == "egress" else "from"
    port = f"{said['port']}/{said['protocol']}" if said.get("port") else said["protocol"]
    return f"{said.get('pod') or said['own']} {way} {said.get('peer') or said['address']}, {port}: {said['what']}"


def _attributes(said: dict[str, Any]) -> dict[str, Any]:
    """All of it, under OpenTelemetry's names where it has some."""
    namespace, slash, name = said.get("pod", "").partition("/")
    ends = (said["own"], said["address"]) if said["direction"] == "egress" else (said["address"], said["own"])
    known = {
        "k8s.namespace.name": namespace if slash else "",
        "k8s.pod.name": name,
        "container.id": said.get("container"),
        "network.transport": said["protocol"],
        "source.address": ends[0],
        "source.port": said.get("source_port"),
        "destination.address": ends[1],
        "destination.port": said.get("port"),
    }
    own = ("what", "direction", "peer", "service", "names", "start", "end", "sent_packets", "sent_bytes", "received_packets", "received_bytes")  # fmt: skip
    known |= {f"agent_cni.flow.{key}": said.get(key) for key in own}
    return {key: value for key, value in known.items() if value}
