"""Something between a host and its store that loses what it carries, or carries it late."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

#: What becomes of a request: it is carried; its answer is lost; it is lost; or it is held back, and may be carried later.
CARRY, LOSE_ANSWER, LOSE, HOLD = "carry", "lose answer", "lose", "hold"


def is_write(path: str, document: dict[str, Any]) -> bool:
    """Whether a request of etcd's gateway changes anything, or lets something go on."""
    return "compare" in document or path.startswith("/v3/lease/")


class Proxy:
    """To one endpoint, without TLS; `fate` says for the number of each write, from 0, what becomes of it. Use it with `with`."""

    def __init__(self, endpoint: str, fate: Callable[[int], str] = lambda number: CARRY) -> None:
        self._to = endpoint.removeprefix("http://")
        self.fate, self.writes = fate, 0
        self.held: list[tuple[str, bytes]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def deliver(self) -> None:
        """Carry what was held back; nobody hears of it."""
        while self.held:
            self._asked(*self.held.pop(0))

    def _asked(self, path: str, body: bytes) -> tuple[int, bytes]:
        there = http.client.HTTPConnection(self._to, timeout=10)
        there.request("POST", path, body, {"Content-Type": "application/json"})
        answer = there.getresponse()
        status, text = answer.status, answer.read()
        there.close()
        return status, text

    def _handler(proxy) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version, wbufsize = "HTTP/1.1", 1 << 20

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                fate = CARRY
                if is_write(self.path, json.loads(body)):
                    fate = proxy.fate(proxy.writes)
                    proxy.writes += 1
                if fate == HOLD:
                    proxy.held.append((self.path, body))
                elif fate != LOSE:
                    status, text = proxy._asked(self.path, body)
                    if fate == CARRY:
                        self.send_response(status)
                        self.send_header("Content-Length", str(len(text)))
                        self.end_headers()
                        self.wfile.write(text)
                        return
                self.close_connection = True

            def log_message(self, *told: object) -> None:
                return

        return Handler
