"""The door to services that speak JSON over HTTP: several endpoints in turn, every wait bounded, TLS files read again when they
change. Proxies of the environment do not count, and redirects are not followed.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from http.client import HTTPResponse, IncompleteRead
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from cni.decoding import decoded
from cni.errors import Unreachable
from cni.kernel.clock import boottime
from cni.kernel.pools import BROKEN, PORTS, Connection, NotConnected, Pool, root
from cni.kernel.resolver import Name
from cni.kernel.tls import Secrets, TlsContext, served_until

T = TypeVar("T")
#: No answer and no line of a stream is longer, in bytes.
LONGEST = 64 << 20
#: After a failure an endpoint is asked only when no other answers, for so many seconds, twice as long each time.
_RESTS, _RESTS_AT_MOST = 1.0, 30.0
#: Statuses by which an endpoint says that it is not well itself; 408 is etcd's gateway's for a timeout within etcd.
_UNWELL = (408, *range(500, 600))
_HEADERS = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "agent-cni"}
_PIECE = 1 << 16


class Answer(NamedTuple):
    """What an endpoint said: its HTTP status, the document as it was to be read, and after how many seconds it wants to be asked again,
    where it says so (Retry-After, RFC 9110).
    """

    endpoint: str
    status: int
    document: Any
    after: float = 0.0


class Request(NamedTuple):
    """What is asked by a method; a GET has no document. Who accepts gzip by a header is answered the same. One that may not be done `again` is sent once: what is not heard of then may
    have been done.
    """

    path: str
    document: object
    headers: Mapping[str, str]
    again: bool = True
    method: str = "POST"


def located(path: str, name: str = "", **query: str) -> str:
    """A path with a name at its end, whatever that is, and what is asked of it."""
    return path + quote(name, safe="") + (f"?{urlencode(query)}" if query else "")


class Door:
    """A service at several URLs. Threads may share it.

    The endpoint that answered last is asked first, and one that failed rests: it says a 5xx, is silent, or is not there.
    `cacert`, `cert` and `key` are files of PEM; without `cacert` whom the system trusts is trusted.
    """

    def __init__(self, endpoints: Sequence[str], *, cacert: str = "", cert: str = "", key: str = "") -> None:
        secrets = Secrets(cacert, cert, key)
        self._endpoints = [_Endpoint(url, secrets) for url in endpoints]
        self._first = self._endpoints[0]

    def reconnect(self) -> None:
        """Have no connection that was made so far; who waits for an answer by one, in another thread, hears that it broke."""
        for endpoint in self._endpoints:
            endpoint.hang_up()

    def ask(self, request: Request, seconds: float, read: Callable[[bytes], Any] = decoded) -> Answer:
        """What the service answers within so many seconds, whichever status; who says what `read` finds a ValueError in is not well.
        Raises Unreachable.
        """
        return self._in_turn(request, seconds, partial(_Endpoint.ask, read=read))

    def proven_until(self, seconds: float) -> Iterator[tuple[str, float]]:
        """The URL of each endpoint that proves who it is within so many seconds, and when the certificate ends by which it does, in seconds
        since 1970.
        """
        for endpoint in self._endpoints:
            with suppress(OSError, NotConnected):
                if end := endpoint.proven_until(seconds):
                    yield endpoint.url, end

    @contextmanager
    def stream(self, request: Request, seconds: float) -> Iterator[Stream]:
        """An answer that comes line by line and begins within so many seconds. Raises Unreachable."""
        made = self._in_turn(request, seconds, _Endpoint.stream)
        with closing(made):
            yield made

    def _in_turn(self, request: Request, seconds: float, ask: Callable[[_Endpoint, Request, float, float], T]) -> T:
        until, troubles = boottime() + seconds, list[str]()
        start = self._endpoints.index(self._first)
        waiting = sorted(self._endpoints[start:] + self._endpoints[:start], key=lambda endpoint: endpoint.rests)
        while waiting and (left := until - boottime()) > 0:
            endpoint = waiting.pop(0)
            share = left / (len(waiting) + 1)
            try:
                answer = ask(endpoint, request, share, share if request.again else left)
            except _Failed as failed:
                endpoint.failed()
                troubles.append(f"{endpoint.url}: {failed}")
                if failed.sent and not request.again:
                    break
            else:
                endpoint.is_well()
                self._first = endpoint
                return answer
        raise Unreachable("; ".join(troubles) or "no time is left to ask")


class Stream:
    """An answer that goes on."""

    def __init__(self, endpoint: _Endpoint, connection: Connection, response: HTTPResponse, seconds: float) -> None:
        self._endpoint, self._connection, self._response, self._seconds = endpoint, connection, response, seconds

    def end(self) -> None:
        """Have whoever reads it, in another thread, hear that it ended."""
        self._connection.bounds.hang_up()

    def close(self) -> None:
        """Read no more of it."""
        self._response.close()
        self._connection.close()

    @property
    def status(self) -> int:
        """Its HTTP status."""
        return self._response.status

    def lines(self, silence: float) -> Iterator[bytes]:
        """Each line without its end, until nothing comes for `silence` seconds, or TLS is by other files now. Raises Unreachable where the
        other side ends it, and where nothing came at all, also not in the time in which it was to begin.
        """
        begins = max(silence, self._seconds)
        self._connection.bounds.bound_each(begins)
        begun, heard = b"", False
        try:
            while piece := self._response.read1(_PIECE):
                if not heard:
                    heard = True
                    self._connection.bounds.bound_each(silence)
                *lines, begun = (begun + piece).split(b"\n")
                if len(begun) > LONGEST:
                    raise self.broken(f"a line is longer than {LONGEST} bytes")
                yield from lines
                if not (begun or self._endpoint.encrypts_by(self._connection.context)):
                    return
        except TimeoutError:
            if heard:
                return
            raise self.broken(f"it says nothing for {begins:.1f} s") from None
        except BROKEN as error:
            raise self.broken(f"the stream broke: {root(error)}") from error
        if begun:
            yield begun
        raise self.broken("the stream ended")

    def broken(self, why: str) -> Unreachable:
        """The error for a stream that says, or shows, that its sender is not well; who rests from now on."""
        self._endpoint.failed()
        return Unreachable(f"{self._endpoint.url}: {why}")


class _Failed(Exception):
    """An endpoint does not answer; what was `sent` may have been done."""

    def __init__(self, why: str, *, sent: bool = True) -> None:
        super().__init__(why)
        self.sent = sent


class _Endpoint:
    """One URL, and the connections to it that are kept."""

    def __init__(self, url: str, secrets: Secrets) -> None:
        self.url = url.rstrip("/")
        parsed = urlsplit(self.url)
        self._is_encrypted, self._path = parsed.scheme == "https", parsed.path
        self._name = Name(str(parsed.hostname), parsed.port or PORTS[parsed.scheme])
        self._pool = Pool(self._name)
        self._secrets = secrets
        self._failures, self._rests_until = 0, 0.0

    @property
    def rests(self) -> float:
        """Until when it is to be asked after the others; 0 if it is not."""
        return self._rests_until if self._rests_until > boottime() else 0.0

    def hang_up(self) -> None:
        """Have every connection to it be over."""
        self._pool.hang_up()

    def failed(self) -> None:
        """Let it rest."""
        self._rests_until = boottime() + min(_RESTS * 2**self._failures, _RESTS_AT_MOST)
        self._failures = min(self._failures + 1, 10)

    def is_well(self) -> None:
        """Let it be asked as any other."""
        self._failures, self._rests_until = 0, 0.0

    def ask(self, request: Request, connecting: float, seconds: float, read: Callable[[bytes], Any]) -> Answer:
        """What it answers. Raises _Failed."""
        with self._asked(request, connecting, seconds) as (connection, response):
            text = response.read(LONGEST + 1)
            if response.length and len(text) <= LONGEST:
                raise IncompleteRead(text, response.length)
            self._pool.give_back(connection, response)
        if response.headers.get("Content-Encoding") == "gzip":
            text = _unpacked(text)
        if len(text) > LONGEST:
            raise _Failed(f"its answer is longer than {LONGEST} bytes")
        words = text[:200].decode(errors="replace").strip()
        if response.status in _UNWELL:
            raise _Failed(f"it says {response.status}: {words}")
        try:
            return Answer(self.url, response.status, read(text), _seconds(response.headers.get("Retry-After")))
        except ValueError:
            raise _Failed(f"it says {response.status}, and no JSON: {words}") from None

    def stream(self, request: Request, connecting: float, seconds: float) -> Stream:
        """What it answers, not read yet. Raises _Failed."""
        with self._asked(request, connecting, seconds) as (connection, response):
            if response.status in _UNWELL:
                raise _Failed(f"it says {response.status}")
            return Stream(self, connection, response, seconds)

    @contextmanager
    def _asked(self, request: Request, connecting: float, seconds: float) -> Iterator[tuple[Connection, HTTPResponse]]:
        """A connection, and the head of an answer on it; closed where that is no use. Raises _Failed."""
        until = boottime() + seconds
        body = None if request.method == "GET" else json.dumps(request.document).encode()
        path, headers = self._path + request.path, _HEADERS | dict(request.headers)
        try:
            connection = self._pool.taken(self._context(), connecting)
        except NotConnected as error:
            raise _Failed(f"no connection: {root(error)}", sent=False) from error
        with ExitStack() as unless_heard:
            unless_heard.callback(connection.close)
            try:
                yield connection, connection.answered(request.method, path, body, headers, until)
            except TimeoutError:
                raise _Failed(f"no answer in {seconds:.1f} s") from None
            except BROKEN as error:
                raise _Failed(f"the connection broke: {root(error)}") from error
            unless_heard.pop_all()

    def proven_until(self, seconds: float) -> float:
        """When the certificate ends by which it proves who it is; 0 without TLS. Raises OSError, and NotConnected."""
        context = self._context()
        return served_until(self._name, context, seconds) if context else 0.0

    def encrypts_by(self, context: TlsContext | None) -> bool:
        """Whether that is how its connections are encrypted now."""
        return self._context() is context

    def _context(self) -> TlsContext | None:
        """By what its connections are encrypted now, if they are. Raises NotConnected."""
        try:
            return self._secrets.context() if self._is_encrypted else None
        except OSError as error:
            raise NotConnected(f"TLS with {self._secrets}: {error}") from None


def _unpacked(text: bytes) -> bytes:
    """What an answer is that comes as gzip (RFC 1952), up to what none may be longer than. Raises _Failed."""
    unpacking = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        unpacked = unpacking.decompress(text, LONGEST + 1)
    except zlib.error as error:
        raise _Failed(f"its answer cannot be unpacked: {error}") from None
    if not unpacking.eof and len(unpacked) <= LONGEST:
        raise _Failed("its answer cannot be unpacked: it ends too soon")
    return unpacked


def _seconds(said: str | None) -> float:
    """A time that is spelled in seconds; a date is none, for clocks differ."""
    return float(said) if said and said.isdecimal() else 0.0
