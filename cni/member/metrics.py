"""The member's figures over HTTP, for Prometheus: GET /metrics, and for probes /healthz and /readyz. On a loopback address, or with TLS to
who proves that he may ask; whether the member is well is told to anybody.

The standard library's server: http.server is loaded for who wants it (0.7 MiB), where prometheus_client takes 2.7 MiB of a
member's 30 and starts a thread for whoever connects. Here they are few, and each has an end.
"""

from __future__ import annotations

import ipaddress
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socket import AF_INET, AF_INET6, SHUT_RDWR, socket
from socketserver import ThreadingTCPServer
from threading import Lock
from typing import Any

from cni import log
from cni.errors import Unavailable
from cni.kernel.clock import boottime
from cni.kernel.tls import OwnSecrets, is_proven, unproven
from cni.member import census, exposition, figures
from cni.member.exposition import Family
from cni.member.figures import Sample
from cni.member.trouble import Trouble

#: How many are answered at a time, and after how many seconds one that is slow is left; for how long an answer is kept.
MOST, PATIENCE_SECONDS, _KEPT_SECONDS = 8, 5.0, 1.0
#: What is said, without a thread, to who comes when all are at work.
_BUSY = b"HTTP/1.0 503 Service Unavailable\r\nServer: agent-cni\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
_TRIED_AGAIN_AFTER = 5.0
_MOMENT = 0.05
_NAME = "agent-cni"
_TEXT = "text/plain; charset=utf-8"
_PAGE = resource.getpagesize()


def serve(
    address: str,
    health: Mapping[str, Callable[[], str]],
    answer: Callable[[], bytes] | None = None,
    secrets: OwnSecrets | None = None,
) -> None:
    """Answer at HOST:PORT for ever, or [HOST]:PORT; where somebody else has the port, once it is free, and where files of TLS are not right,
    once they are. `health` says by path why it is not well; empty: it is.
    """
    trouble = Trouble("metrics")
    while True:
        try:
            with Server(address, health, answer or told, secrets) as server:
                trouble.over()
                server.serve_forever(PATIENCE_SECONDS)
        except Unavailable as error:
            trouble.is_so(error.msg)
            time.sleep(_TRIED_AGAIN_AFTER)


def told() -> bytes:
    """The answer to a scrape of the member."""
    rooms = (Family(item.name, item.kind, item.means, item.samples()) for item in figures.EVERY)
    return exposition.text([*census.of_node(), *rooms, *_of_process()])


def answers(address: str, *, encrypted: bool = False) -> bool:
    """Whether a member does at HOST:PORT."""
    if encrypted:
        asked: HTTPConnection = HTTPSConnection(address, timeout=PATIENCE_SECONDS, context=unproven())
    else:
        asked = HTTPConnection(address, timeout=PATIENCE_SECONDS)
    try:
        asked.request("GET", "/healthz")
        return asked.getresponse().getheader("Server") == _NAME
    except (OSError, HTTPException):
        return False
    finally:
        asked.close()


class Server(ThreadingTCPServer):
    """Listens at an address. Raises Unavailable where that cannot be."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(
        self,
        address: str,
        health: Mapping[str, Callable[[], str]],
        answer: Callable[[], bytes],
        secrets: OwnSecrets | None = None,
    ) -> None:
        host, _, port = address.rpartition(":")
        at = ipaddress.ip_address(host.strip("[]"))
        self.address_family = AF_INET6 if at.version == 6 else AF_INET
        self._answer, self.health, self.secrets = answer, health, secrets
        self._answering = Lock()
        self._kept: tuple[float, bytes] | None = None
        #: Since when who is there is, and who of them is being answered.
        self._since: dict[socket, float] = {}
        self._worked_for: set[socket] = set()
        try:
            if secrets:
                secrets.context()
        except OSError as error:
            raise Unavailable(f"no metrics at {address}: TLS with {secrets}: {error}") from None
        try:
            super().__init__((str(at), int(port)), _Handler)
        except OSError as error:
            raise Unavailable(f"no metrics at {address}: {error.strerror}") from None

    def get_request(self) -> tuple[socket, Any]:
        """Who comes, by the files of TLS that are there now."""
        plain, client = super().get_request()
        return (self.secrets.accepted(plain) if self.secrets else plain), client

    def process_request(self, request: Any, client: Any) -> None:
        """Have a thread answer. Where enough are at it, who has been longest without asking for anything is left; where all of
        them work, nobody else is answered: to leave who waits ends no work.
        """
        if len(self._since) >= MOST:
            idle = next((one for one in self._since.copy() if one not in self._worked_for), None)
            if idle is None:
                self._refuse(request)
                return
            self._leave(idle)
        self._since[request] = time.monotonic()
        super().process_request(request, client)

    def answer(self, request: socket) -> bytes:
        """What there is to say: found out by one at a time, and told to whoever asks within a second."""
        self._worked_for.add(request)
        try:
            with self._answering:
                if not self._kept or time.monotonic() - self._kept[0] > _KEPT_SECONDS:
                    answer = self._answer()
                    self._kept = time.monotonic(), answer
                return self._kept[1]
        finally:
            self._worked_for.discard(request)

    def service_actions(self) -> None:
        """Between two requests, and when none comes: leave who takes too long."""
        for request, since in self._since.copy().items():
            if time.monotonic() - since > PATIENCE_SECONDS and request not in self._worked_for:
                self._leave(request)

    def _refuse(self, request: socket) -> None:
        request.settimeout(_MOMENT)
        with suppress(OSError):
            request.recv(_PAGE)  # what was asked: of a question nobody has read the kernel resets the connection
        with suppress(OSError):
            request.sendall(_BUSY)
        super().shutdown_request(request)

    def _leave(self, request: socket) -> None:
        self._since.pop(request, None)
        with suppress(OSError):  # he left us
            request.shutdown(SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:
        """One is answered, or left."""
        self._since.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client: Any) -> None:
        """Whoever asked is gone; what else went wrong is a bug."""
        error = sys.exception()
        if error and not isinstance(error, OSError):
            log.event("member", "metrics", error)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = PATIENCE_SECONDS

    def do_GET(self) -> None:
        """Answer one request."""
        if self.path.partition("?")[0] == "/metrics":
            if self.server.secrets and self.server.secrets.asks_who and not is_proven(self.connection):
                self._say(403, b"who asks for figures is to show a certificate\n", _TEXT)
                return
            self._say(200, self.server.answer(self.connection), exposition.CONTENT_TYPE)
        elif self.path in self.server.health:
            why = self.server.health[self.path]()
            self._say(503 if why else 200, f"{why or 'ok'}\n".encode(), _TEXT)
        else:
            self._say(404, f"there are {', '.join(['/metrics', *self.server.health])}\n".encode(), _TEXT)

    def _say(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        """What the answer says of who answers."""
        return _NAME

    def log_message(self, *_: object) -> None:
        """Who asks is not told to anybody."""


def _of_process() -> Iterator[Family]:
    """What every exporter says of its process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
    started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    began = time.time() - boottime() + started
    for name, kind, means, value in (
        ("process_resident_memory_bytes", "gauge", "Memory of the process.", resident),
        ("process_cpu_seconds_total", "counter", "Processor time of the process.", used.ru_utime + used.ru_stime),
        ("process_start_time_seconds", "gauge", "When the process began, since 1970.", began),
        ("process_open_fds", "gauge", "Open descriptors of the process.", len(list(Path("/proc/self/fd").iterdir()))),
    ):
        yield Family(name, kind, means, [Sample(name, (), value)])
