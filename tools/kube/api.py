"""The API server, as an administrator asks it."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import time
from collections.abc import Iterator
from typing import Any

from addressing import CONTROL
from keys import Keys


class Api:
    """The API server, as the cluster's administrator, or as who has a token."""

    def __init__(self, keys: Keys, token: str = "") -> None:
        self._context = ssl.create_default_context(cafile=str(keys.folder / "ca.crt"))
        self._login = {"Authorization": f"Bearer {token}"} if token else {}
        if not token:
            self._context.load_cert_chain(keys.folder / "admin.crt", keys.folder / "admin.key")

    def __call__(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        """One request; the answer's object, or an error with the server's words."""
        connection = http.client.HTTPSConnection(CONTROL, 6443, context=self._context, timeout=30)
        with contextlib.closing(connection):
            connection.request(
                method, path, json.dumps(body) if body is not None else None, {"Content-Type": kind} | self._login
            )
            answer = connection.getresponse()
            text = answer.read().decode()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:400]}")
        return json.loads(text) if text.startswith("{") else text

    def watch(self, path: str, seconds: int) -> Iterator[tuple[float, str, dict[str, Any]]]:
        """Events of a list as they come: when (monotonic), what, and the object."""
        connection = http.client.HTTPSConnection(CONTROL, 6443, context=self._context, timeout=seconds + 5)
        with contextlib.closing(connection):
            connection.request("GET", f"{path}{'&' if '?' in path else '?'}watch=1&timeoutSeconds={seconds}")
            for line in connection.getresponse():
                event = json.loads(line)
                yield time.monotonic(), event["type"], event["object"]

    def pods(self, query: str = "", namespace: str = "default") -> list[dict[str, Any]]:
        return self("GET", f"/api/v1/namespaces/{namespace}/pods{query}")["items"]


def condition(thing: dict[str, Any], kind: str) -> bool:
    """Whether a node or pod says this of itself."""
    found = thing["status"].get("conditions", [])
    return any(item["type"] == kind and item["status"] == "True" for item in found)
