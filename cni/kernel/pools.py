"""Connections of HTTP whose waits are bounded, those to one place that are kept, and why one broke."""

from __future__ import annotations

import select
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from threading import Lock
from weakref import WeakSet

from cni.kernel.clock import boottime
from cni.kernel.resolver import Name
from cni.kernel.tls import BoundedSocket, TlsContext, connected, encrypted

#: Why an answer does not come: HTTP is not what is spoken, or the connection is no more.
BROKEN = (HTTPException, OSError)
#: How many connections are kept that nobody uses.
_KEPT = 4
#: Where a URL names none.
PORTS = {"http": 80, "https": 443}


class NotConnected(Exception):
    """Nothing was sent."""


class Connection(HTTPConnection):
    """One whose failure to be made is told from one that broke. Its socket's time limit is for a whole answer."""

    bounds: BoundedSocket

    def __init__(self, name: Name, context: TlsContext | None) -> None:
        super().__init__(name.host, name.port)
        self.default_port = PORTS["https" if context else "http"]  # which the Host of a request leaves out
        self._name, self.context = name, context
        self._made: BoundedSocket | None = None

    def connect(self) -> None:
        """Be connected within `timeout` seconds. Raises NotConnected."""
        assert self.timeout is not None
        try:
            made = connected(self._name, self.timeout, self._have)
            self.sock = self.bounds = (
                encrypted(made, self._name.host, self.context, self._have) if self.context else made
            )
        except OSError as error:
            raise NotConnected("no connection") from error

    def hang_up(self) -> None:
        """Have whoever uses it, or waits for it to be made, in another thread, hear that it is over."""
        if self._made:
            self._made.hang_up()

    def _have(self, made: BoundedSocket) -> None:
        self._made = made

    def answered(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str], until: float
    ) -> HTTPResponse:
        """What is answered, of which the head is read; all of it is to be there at `until` of boottime. Raises some of BROKEN."""
        self.bounds.settimeout(max(0.001, until - boottime()))
        self.request(method, path, body, headers)
        return self.getresponse()


class Pool:
    """Connections to one place. Threads may share it."""

    def __init__(self, name: Name) -> None:
        self._name = name
        self._idle = list[Connection]()
        self._every, self._lock = WeakSet[Connection](), Lock()

    def hang_up(self) -> None:
        """Have every connection be over, whoever uses it."""
        with self._lock:
            every = list(self._every)
        for connection in every:
            connection.hang_up()

    def taken(self, context: TlsContext | None, seconds: float) -> Connection:
        """A connection by this TLS, which the caller closes or gives back: one that is kept, or one that is made within so many seconds.
        Raises NotConnected.
        """
        while self._idle:
            with suppress(IndexError):  # another thread was sooner
                kept = self._idle.pop()
                if kept.context is context and not _has_something_to_read(kept.bounds):
                    return kept
                kept.close()
        made = Connection(self._name, context)
        with self._lock:
            self._every.add(made)
        made.timeout = seconds
        made.connect()
        return made

    def give_back(self, connection: Connection, response: HTTPResponse) -> None:
        """Keep a connection for the next request, where its last response was read to the end and the other side goes on."""
        if connection.sock and response.isclosed() and len(self._idle) < _KEPT:
            self._idle.append(connection)
        else:
            response.close()
            connection.close()


def _has_something_to_read(idle: BoundedSocket) -> bool:
    """Of a connection on which nothing was asked: its end, or nothing that answers what will be asked."""
    poll = select.poll()
    poll.register(idle, select.POLLIN)
    return bool(poll.poll(0))


def root(error: BaseException) -> str:
    """What an error comes from, in the system's words, or in those of TLS."""
    if error.__cause__:
        return root(error.__cause__)
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(getattr(error, "strerror", None) or str(error).strip() or type(error).__name__)
