"""Probes of pods, as many at a time as there are: a TCP connection, or the status of an HTTP answer (RFC 9112, 4).

They are asked from the node's own namespace, and a redirection is an answer like another: nobody is led elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import re
from asyncio import Future, Transport
from typing import cast

from cni.discovery.health import Probe

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})(?: [^\r]*)?\r?\n")
_WELL = range(200, 400)
_LONGEST = 4096


async def why_not(probe: Probe, address: str) -> str:
    """Why a pod does not pass at an address; nothing: it does."""
    loop = asyncio.get_running_loop()
    answer: Future[str] = loop.create_future()
    question = _question(probe, address) if probe.path else b""
    transport: asyncio.BaseTransport | None = None
    try:
        async with asyncio.timeout(probe.timeout):
            transport, _ = await loop.create_connection(lambda: _Asking(question, answer), address, probe.port)
            said = await answer
    except TimeoutError:
        said = f"no answer within {probe.timeout:g} s"
    except OSError as error:
        said = os.strerror(error.errno) if error.errno else str(error)
    finally:
        if transport:
            transport.close()  # nobody waits for what else it has to say
    return said and f"{probe} says: {said}" if said.isdecimal() else said and f"{probe}: {said}"


def _question(probe: Probe, address: str) -> bytes:
    host = f"[{address}]" if ":" in address else address
    lines = (
        f"GET {probe.path} HTTP/1.1", f"Host: {host}:{probe.port}", "User-Agent: agent-cni", "Accept: */*", "Connection: close",
    )  # fmt: skip
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


class _Asking(asyncio.Protocol):
    """One connection: what there is to be asked on it, and who waits for the answer."""

    def __init__(self, question: bytes, answer: Future[str]) -> None:
        self._question, self._answer, self._said = question, answer, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._question:
            cast("Transport", transport).write(self._question)
        else:
            self._answered("")

    def data_received(self, data: bytes) -> None:
        self._said += data
        if b"\n" in self._said or len(self._said) > _LONGEST:
            found = _STATUS.match(self._said)
            status = int(found[1]) if found else 0
            self._answered("" if status in _WELL else str(status) if found else "what answers speaks no HTTP")

    def connection_lost(self, error: Exception | None) -> None:
        self._answered("the connection broke" if error else "it hung up without an answer")

    def _answered(self, why: str) -> None:
        if not self._answer.done():
            self._answer.set_result(why)
