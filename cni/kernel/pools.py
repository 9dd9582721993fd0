"""Connections of HTTP whose waits are bounded, and why one broke."""

from __future__ import annotations

from typing import Any

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from cni.kernel.resolver import Name
from cni.kernel.tls import BoundedSocket, connected


class Connection(HTTPConnection):
    """One whose failure to be made is told from one that broke."""

    bounds: BoundedSocket

    def __init__(self, *args: Any, name: Name, **options: Any) -> None:
        super().__init__(*args, **options)
        self._name = name

    def connect(self) -> None:
        """Be connected. Raises NotConnected."""
        try:
            super().connect()
        except (HTTPError, OSError) as error:
            raise NotConnected("no connection") from error
        assert isinstance(self.sock, BoundedSocket)
        self.bounds = self.sock

    def _new_conn(self) -> BoundedSocket:
        assert self.timeout
        return connected(self._name, self.timeout)


class NotConnected(HTTPError):
    """Nothing was sent."""


class _TlsConnection(Connection, HTTPSConnection):
    pass


class PlainPool(HTTPConnectionPool):
    """Connections to one place that are kept."""

    ConnectionCls = Connection


class TlsPool(HTTPSConnectionPool):
    """The same with TLS."""

    ConnectionCls = _TlsConnection


def root(error: BaseException) -> str:
    """What an error comes from, in the system's words, or in those of TLS."""
    inner = error.__cause__ or next((item for item in error.args if isinstance(item, Exception)), None)
    if inner:
        return root(inner)
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(getattr(error, "strerror", None) or str(error).strip() or type(error).__name__)
