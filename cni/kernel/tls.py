"""What a door to the network stands on: TLS by files that may change, and sockets whose waits end."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from cni.kernel.clock import boottime
from cni.kernel.resolver import Name

TlsContext = ssl.SSLContext
#: A peer that is gone without a word is noticed after seconds, also by who only listens: see tcp(7).
OPTIONS = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 10_000),
]


class Secrets:
    """What TLS is made with: files, read again when they change."""

    def __init__(self, cacert: str, cert: str, key: str) -> None:
        self._cacert, self._cert, self._key = cacert, cert, key
        self._seen: list[tuple[int, int, int]] = []
        self._context: ssl.SSLContext | None = None

    def __str__(self) -> str:
        return ", ".join(filter(None, (self._cacert, self._cert, self._key))) or "what the system trusts"

    def context(self) -> ssl.SSLContext:
        """By the files as they are; as they were, while one of them is missing or half of a change is done.

        The same object until they change. Raises OSError where they have never been right.
        """
        try:
            stats = [Path(name).stat() for name in (self._cacert, self._cert, self._key) if name]
            seen = [(found.st_mtime_ns, found.st_ino, found.st_size) for found in stats]
            if self._context is None or seen != self._seen:
                self._context, self._seen = self._made(), seen
        except OSError:  # ssl.SSLError is one
            if self._context is None:
                raise
        return self._context

    def _made(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self._cacert or None)
        context.sslsocket_class = TlsSocket
        if self._cert:
            context.load_cert_chain(self._cert, self._key)
        return context


class OwnSecrets(Secrets):
    """What a server proves itself by; of authorities it is told, who connects may prove that he is known to one of them."""

    def _made(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._cert, self._key)
        if self._cacert:
            context.load_verify_locations(self._cacert)
            context.verify_mode = ssl.CERT_OPTIONAL
        return context

    @property
    def asks_who(self) -> bool:
        """Whether it is told of authorities."""
        return bool(self._cacert)

    def accepted(self, plain: socket.socket) -> socket.socket:
        """The same connection with TLS, of which nothing is said until somebody reads. Raises OSError."""
        return self.context().wrap_socket(plain, server_side=True, do_handshake_on_connect=False)


def is_proven(connection: socket.socket) -> bool:
    """Whether who is at the other end of a connection has shown a certificate, which is one that is believed."""
    return isinstance(connection, ssl.SSLSocket) and bool(connection.getpeercert())


def unproven() -> TlsContext:
    """By which whoever answers is believed: to hear that he does."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


class BoundedSocket(socket.socket):
    """A socket whose time limit is for all that is read after it was set, and not for each piece of it."""

    _until: float | None = None

    def settimeout(self, value: float | None) -> None:
        """Read and send for so long."""
        self._until = None if value is None else boottime() + value
        super().settimeout(value)

    def hang_up(self) -> None:
        """Have who reads or sends, in whichever thread, hear that it is over."""
        with suppress(OSError):  # the other side was sooner
            socket.socket.shutdown(self, socket.SHUT_RDWR)  # TLS would say farewell first, and be in the reader's way

    def bound_each(self, seconds: float) -> None:
        """Read on as long as something comes."""
        self.settimeout(seconds)
        self._until = None

    def recv_into(self, *args: Any) -> int:
        """Read within what is left."""
        if self._until is not None:
            super().settimeout(max(0.001, self._until - boottime()))
        return super().recv_into(*args)


class TlsSocket(BoundedSocket, ssl.SSLSocket):
    """The same with TLS."""


def encrypted(
    plain: BoundedSocket, host: str, context: TlsContext, begun: Callable[[BoundedSocket], None] = lambda _: None
) -> BoundedSocket:
    """The same connection with TLS, to whom is proven to be a host, which is `begun` before that is known. Raises OSError."""
    made = context.wrap_socket(plain, server_hostname=host.rstrip("."), do_handshake_on_connect=False)
    assert isinstance(made, TlsSocket)
    begun(made)
    made.do_handshake()
    return made


def served_until(name: Name, context: TlsContext, seconds: float) -> float:
    """When the certificate ends by which a host proves who it is, in seconds since 1970. Raises OSError, also where it proves nothing."""
    with connected(name, seconds) as plain, encrypted(plain, name.host, context) as made:
        assert isinstance(made, TlsSocket)
        return ssl.cert_time_to_seconds(str((made.getpeercert() or {})["notAfter"]))


def connected(name: Name, seconds: float, begun: Callable[[BoundedSocket], None] = lambda _: None) -> BoundedSocket:
    """A connection to the first of a name's addresses that takes it; they, and who is asked for them, have so many seconds together.
    Each that is tried is `begun`. Raises OSError.
    """
    until = boottime() + seconds
    addresses = name.addresses(seconds)
    refused = OSError("the name has no address")
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        made = BoundedSocket(family, kind, protocol)
        try:
            for option in OPTIONS:
                made.setsockopt(*option)
            made.settimeout(max(0.001, (until - boottime()) / (len(addresses) - number)))
            begun(made)
            made.connect(address)
        except OSError as error:
            made.close()
            refused = error
        else:
            made.settimeout(max(0.001, until - boottime()))
            return made
    raise refused
