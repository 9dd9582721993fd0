"""The door to HTTP, against endpoints that are slow, silent, broken or gone."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

import pytest

from cni.errors import Unreachable
from cni.kernel import http, pools
from cni.kernel.http import Door, Request

READ = Request("/ask", {"a": 1}, {})
WRITE = READ._replace(again=False)
Says = Callable[[socket.socket], None]


class Endpoint:
    """One that says what it is told to, to each request on each connection; nothing is to hang on it."""

    def __init__(self, says: Says) -> None:
        self._says = says
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections, self.requests = 0, list[bytes]()
        self._open = list[socket.socket]()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                self._open.append(connection)
                self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
                self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError):
            while head := _until(connection, b"\r\n\r\n"):
                length = int(next(line for line in head.lower().split(b"\r\n") if b"content-length" in line).split()[1])
                body = head.split(b"\r\n\r\n", 1)[1]
                while len(body) < length:
                    body += connection.recv(length - len(body))
                self.requests.append(head.split(b"\r\n")[0])
                self._says(connection)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()


def _until(connection: socket.socket, end: bytes) -> bytes:
    heard = b""
    while end not in heard:
        if not (piece := connection.recv(1 << 16)):
            return b""
        heard += piece
    return heard


def saying(body: bytes, status: bytes = b"200 OK", more: bytes = b"") -> Says:
    length = b"" if b"Content-Length" in more else b"Content-Length: %d\r\n" % len(body)
    text = b"HTTP/1.1 " + status + b"\r\n" + more + length + b"\r\n" + body
    return lambda connection: connection.sendall(text)


def silent(connection: socket.socket) -> None:
    return


def closing(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_RDWR)


def then_closing(says: Says) -> Says:
    def ends(connection: socket.socket) -> None:
        says(connection)
        closing(connection)

    return ends


def dripping(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        connection.sendall(b"x")
        time.sleep(0.02)


def chunk(text: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(text), text)


def streaming(*pieces: bytes, ends: bool = False) -> Says:
    def says(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in pieces:
            connection.sendall(chunk(piece))
        if ends:
            connection.shutdown(socket.SHUT_RDWR)

    return says


@pytest.fixture
def endpoint() -> Iterator[Callable[[Says], Endpoint]]:
    made = list[Endpoint]()

    def make(says: Says) -> Endpoint:
        made.append(Endpoint(says))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def nobody() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


FINE = saying(b'{"fine": true}')


def test_a_connection_is_kept_and_proxies_do_not_count(endpoint, nobody, monkeypatch):
    monkeypatch.setenv("http_proxy", nobody)
    one = endpoint(FINE)
    door = Door([f"{one.url}/"])
    for request in (READ, WRITE, READ):
        assert door.ask(request, 5)[:3] == (one.url, 200, {"fine": True})
    assert (one.connections, one.requests) == (1, [b"POST /ask HTTP/1.1"] * 3)


def packed(text: bytes) -> Says:
    return saying(gzip.compress(text), more=b"Content-Encoding: gzip\r\n")


def test_an_answer_may_be_packed(endpoint):
    one = endpoint(packed(b'{"fine": true}'))
    door = Door([one.url])
    for _ in range(2):
        assert door.ask(READ, 5)[:3] == (one.url, 200, {"fine": True})
    assert one.connections == 1


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (saying(gzip.compress(b"[1]")[:-9], more=b"Content-Encoding: gzip\r\n"), "it ends too soon"),
        (saying(b"[1]", more=b"Content-Encoding: gzip\r\n"), "cannot be unpacked: .*header"),
        (packed(b"0" * 1001), "longer than 1000 bytes"),
    ],
)
def test_what_cannot_be_unpacked_or_has_no_end_is_none(endpoint, monkeypatch, says, why):
    monkeypatch.setattr(http, "LONGEST", 1000)
    with pytest.raises(Unreachable, match=why):
        Door([endpoint(says).url]).ask(READ, 5)


def test_a_service_may_be_at_a_path(endpoint):
    one = endpoint(FINE)
    door = Door([f"{one.url}/clusters/c-1/"])
    assert door.ask(READ, 5).status == 200
    with door.stream(READ, 5) as stream:
        assert stream.status == 200
    assert one.requests == [b"POST /clusters/c-1/ask HTTP/1.1"] * 2


def test_a_write_goes_on_no_connection_that_ended_meanwhile(endpoint):
    """It would be sent, and nobody would know whether it was done."""
    one = endpoint(FINE)
    door = Door([one.url])
    for number in range(1, 4):
        assert door.ask(WRITE, 5).document == {"fine": True}
        assert (one.connections, len(one.requests)) == (number, number)
        one._open[-1].shutdown(socket.SHUT_RDWR)


def test_threads_have_a_connection_each_and_few_are_kept(endpoint):
    together = threading.Barrier(8)

    def says(connection: socket.socket) -> None:
        together.wait(10)
        FINE(connection)

    one = endpoint(says)
    door = Door([one.url])
    for made in (8, 8 + 8 - pools._KEPT):
        with ThreadPoolExecutor(8) as threads:
            assert {answer.status for answer in threads.map(lambda _: door.ask(READ, 5), range(8))} == {200}
        assert one.connections == made


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (closing, "the connection broke: Remote end closed connection without response"),
        (silent, "no answer in 0.3 s"),
        (saying(b"all is\nlost", b"503 Unavailable"), "it says 503: all is\nlost"),
        (saying(b"<html>"), "it says 200, and no JSON: <html>"),
        (saying(b"{", more=b"Content-Length: 9\r\n"), "no answer in 0.3 s"),
        (
            then_closing(saying(b"{", more=b"Content-Length: 9\r\n")),
            "the connection broke: IncompleteRead(1 bytes read, 8 more expected)",
        ),
        (lambda connection: connection.sendall(b"SSH-2.0\r\n"), "the connection broke: SSH-2.0"),
    ],
)
def test_every_endpoint_is_told_with_what_is_wrong(endpoint, nobody, says, why):
    ill = endpoint(says).url
    with pytest.raises(Unreachable) as caught:
        Door([nobody, ill]).ask(WRITE, 0.3)
    assert caught.value.msg == f"{nobody}: no connection: Connection refused; {ill}: {why}"


@pytest.mark.parametrize("request_", [READ, WRITE], ids=["read", "write"])
def test_who_is_not_there_is_passed_over_also_by_a_write(endpoint, nobody, request_):
    fine = endpoint(FINE)
    assert Door([nobody, fine.url]).ask(request_, 5).endpoint == fine.url


@pytest.mark.parametrize(
    "bad",
    [silent, closing, dripping, saying(b"", b"503 Unavailable"), saying(b"<html>"), saying(b"{}", b"408 Timeout")],
    ids=["silent", "closing", "dripping", "503", "no JSON", "408"],
)
def test_a_read_goes_on_to_the_next_and_a_write_is_sent_once(endpoint, bad):
    ill, fine = endpoint(bad), endpoint(FINE)
    started = time.monotonic()
    assert Door([ill.url, fine.url]).ask(READ, 0.6).endpoint == fine.url
    with pytest.raises(Unreachable, match=ill.url):
        Door([ill.url, fine.url]).ask(WRITE, 0.3)
    assert time.monotonic() - started < 2
    assert (len(ill.requests), len(fine.requests)) == (2, 1)


def test_who_failed_rests_and_is_asked_when_nobody_else_answers(endpoint):
    ill, fine = endpoint(closing), endpoint(FINE)
    door = Door([ill.url, fine.url])
    for _ in range(20):
        door.ask(READ, 5)
    assert (len(ill.requests), len(fine.requests)) == (1, 20)
    ill._says = FINE
    fine._says = closing
    assert door.ask(READ, 5).endpoint == ill.url
    assert door.ask(READ, 5).endpoint == ill.url
    assert len(fine.requests) == 21


def test_an_answer_that_drips_or_has_no_end_is_cut(endpoint, monkeypatch):
    monkeypatch.setattr(http, "LONGEST", 1000)
    for says, why in (
        (dripping, "no answer"),
        (saying(b" " * 1001), "longer than 1000"),
        (saying(b" " * 5000), "longer than 1000"),
    ):
        started = time.monotonic()
        with pytest.raises(Unreachable, match=why):
            Door([endpoint(says).url]).ask(READ, 0.5)
        assert time.monotonic() - started < 1.5


@contextmanager
def full() -> Iterator[int]:
    """A port where nobody answers a SYN: its backlog is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as stack:
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def test_a_name_with_addresses_that_are_dead_takes_no_longer(endpoint, nobody, monkeypatch):
    fine = endpoint(FINE)
    ports = [int(url.rsplit(":", 1)[1]) for url in (nobody, fine.url)]
    with full() as silent_port:
        order = [silent_port, ports[0], silent_port, ports[1]]
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in order]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: found)
        started = time.monotonic()
        assert Door(["http://etcd.example:2379"]).ask(WRITE, 1).document == {"fine": True}
        found.pop()
        with pytest.raises(Unreachable, match=r"etcd\.example:2379: no connection: no answer in time"):
            Door(["http://etcd.example:2379"]).ask(WRITE, 1)
        assert time.monotonic() - started < 2.5


class NameServer:
    """What getaddrinfo(3) does: it finds a port of this host, refuses, or waits for a name server that is silent."""

    def __init__(self) -> None:
        self.found: int | OSError | None = None
        self.answers, self.waiting = threading.Event(), 0

    def __call__(self, host: str, port: int, *, flags: int = 0, **_: object) -> list[object]:
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if self.found is None:
            self.waiting += 1
            self.answers.wait(30)
            self.waiting -= 1
        if isinstance(self.found, OSError):
            raise self.found
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", self.found))]


@pytest.fixture
def names(monkeypatch) -> Iterator[NameServer]:
    made = NameServer()
    monkeypatch.setattr(socket, "getaddrinfo", made)
    yield made
    made.answers.set()


def test_a_name_server_that_is_silent_takes_no_longer_than_an_endpoint_has(names):
    """Half a minute for each request, and nobody else was asked in time."""
    door = Door(["http://etcd.example:2379"])
    before = threading.active_count()
    for _ in range(5):
        started = time.monotonic()
        with pytest.raises(Unreachable, match=r"etcd\.example: no name server answers in 0"):
            door.ask(WRITE, 0.2)
        assert time.monotonic() - started < 1
    assert (names.waiting, threading.active_count() - before) == (1, 1), "one asks, for all who come meanwhile"


def test_an_endpoint_without_a_name_is_not_kept_by_one_with(endpoint, names, monkeypatch):
    fine = endpoint(FINE)
    silent, numeric = names, socket.AI_NUMERICHOST
    real = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", int(fine.url.rsplit(":", 1)[1])))]

    def asked(host: str, port: int, *, flags: int = 0, **_: object) -> list[object]:
        return real if host == "127.0.0.1" and flags & numeric else silent(host, port, flags=flags)

    monkeypatch.setattr(socket, "getaddrinfo", asked)
    started = time.monotonic()
    assert Door(["http://etcd.example:2379", fine.url]).ask(WRITE, 2).document == {"fine": True}
    assert time.monotonic() - started < 2


def test_what_a_name_meant_serves_while_nobody_says_it(endpoint, names):
    one, other = endpoint(saying(b'{"one": 1}', more=b"Connection: close\r\n")), endpoint(FINE)
    names.found = int(one.url.rsplit(":", 1)[1])
    door = Door(["http://etcd.example:2379"])
    for found in (names.found, socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), None):
        names.found = found
        assert door.ask(READ, 5).document == {"one": 1}
    names.found = int(other.url.rsplit(":", 1)[1])
    names.answers.set()
    deadline = time.monotonic() + 10
    while door.ask(READ, 5).document != {"fine": True}:  # it moved
        assert time.monotonic() < deadline


def test_a_name_that_is_none_says_so(names):
    names.found = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    with pytest.raises(Unreachable, match=r"etcd\.example: Name or service not known"):
        Door(["http://etcd.example:2379"]).ask(WRITE, 5)


def test_a_redirect_is_an_answer(endpoint):
    fine = endpoint(FINE)
    there = endpoint(saying(b"{}", b"302 Found", b"Location: %s/else\r\n" % fine.url.encode()))
    assert Door([there.url]).ask(READ, 5).status == 302
    assert not fine.requests


def test_a_refusal_is_an_answer(endpoint):
    said = endpoint(saying(json.dumps({"error": "why"}).encode(), b"401 Unauthorized"))
    assert Door([said.url]).ask(WRITE, 5)[1:3] == (401, {"error": "why"})


def test_a_stream_comes_line_by_line_and_ends_in_silence(endpoint):
    one = endpoint(streaming(b"first\nsec", b"ond\n", b"half"))
    with Door([one.url]).stream(READ, 5) as stream:
        started = time.monotonic()
        assert list(stream.lines(0.2)) == [b"first", b"second"]
        assert 0.1 < time.monotonic() - started < 2


def hears_that_it_is_over(waits: Callable[[], object], door: Door) -> float:
    """Who waits for an answer, in a thread of its own, while all connections begin anew; after how many seconds it hears of that."""
    with ThreadPoolExecutor(1) as thread:
        began = time.monotonic()
        asked = thread.submit(waits)
        time.sleep(0.2)
        door.reconnect()
        with pytest.raises(Unreachable):
            asked.result(10)
        return time.monotonic() - began


def test_who_waits_by_a_connection_that_is_left_hears_of_it_at_once(endpoint):
    mute = endpoint(lambda connection: None)
    door = Door([mute.url])
    assert hears_that_it_is_over(lambda: door.ask(READ, 20), door) < 5

    def listens() -> None:
        with door.stream(READ, 20) as stream:
            list(stream.lines(20))

    assert hears_that_it_is_over(listens, door) < 5


def test_who_waits_for_a_connection_that_is_left_hears_of_it_at_once():
    """Nobody accepts it, and the kernel has no room for one more."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, ExitStack() as crowd:
        for _ in range(2):
            one = crowd.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        door = Door([f"http://127.0.0.1:{full.getsockname()[1]}"])
        assert hears_that_it_is_over(lambda: door.ask(READ, 20), door) < 5


def test_a_connection_that_is_left_is_not_taken_again(endpoint):
    here = endpoint(saying(b"{}"))
    door = Door([here.url])
    for _ in range(2):
        door.ask(READ, 5)
    assert here.connections == 1
    door.reconnect()
    door.ask(WRITE, 5)
    assert (here.connections, len(here.requests)) == (2, 3)


def test_a_stream_without_chunks_comes_as_it_does(endpoint):
    """As something between may send it, which knows HTTP/1.0 only."""

    def says(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\none\n")
        time.sleep(0.2)
        connection.sendall(b"two\nrest")
        connection.shutdown(socket.SHUT_RDWR)

    with Door([endpoint(says).url]).stream(READ, 5) as stream:
        lines = stream.lines(5)
        started = time.monotonic()
        assert next(lines) == b"one"
        assert time.monotonic() - started < 0.15
        assert [next(lines), next(lines)] == [b"two", b"rest"]
        with pytest.raises(Unreachable, match="the stream ended"):
            next(lines)


def test_a_stream_outlives_the_time_in_which_it_was_to_begin(endpoint):
    def says(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(8):
            connection.sendall(chunk(b"x\n"))
            time.sleep(0.1)

    with Door([endpoint(says).url]).stream(READ, 0.3) as stream:
        assert len(list(stream.lines(0.3))) == 8


def test_a_stream_that_ends_says_so_and_its_endpoint_rests(endpoint):
    ends, goes_on = endpoint(streaming(b"one\n", ends=True)), endpoint(streaming(b"two\n"))
    door = Door([ends.url, goes_on.url])
    with door.stream(READ, 5) as stream, pytest.raises(Unreachable, match="the stream"):
        list(stream.lines(5))
    with door.stream(READ, 5) as stream:
        assert next(iter(stream.lines(5))) == b"two"


def test_a_stream_that_never_says_anything_is_anothers_to_have(endpoint):
    """It was made again and again at the one that had answered, and nothing was ever heard of the others."""
    mute, speaks = endpoint(streaming()), endpoint(streaming(b"two\n"))
    door = Door([mute.url, speaks.url])
    with door.stream(READ, 0.3) as stream, pytest.raises(Unreachable, match=f"{mute.url}: it says nothing for 0"):
        list(stream.lines(0.1))
    with door.stream(READ, 5) as stream:
        assert next(iter(stream.lines(0.1))) == b"two"
    assert len(mute.requests) == 1


def test_a_stream_may_begin_later_than_it_may_be_silent(endpoint):
    def says(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        time.sleep(0.4)
        connection.sendall(chunk(b"late\n"))

    with Door([endpoint(says).url]).stream(READ, 10) as stream:
        started = time.monotonic()
        assert list(stream.lines(0.1)) == [b"late"]
        assert time.monotonic() - started < 5


def test_a_stream_begins_at_one_who_is_well(endpoint, nobody):
    bad = [endpoint(says).url for says in (silent, saying(b"{}", b"503 Unavailable"))]
    good = endpoint(streaming(b"one\n"))
    with Door([nobody, *bad, good.url]).stream(READ, 3) as stream:
        assert next(iter(stream.lines(5))) == b"one"
    with pytest.raises(Unreachable), Door(bad).stream(READ, 0.4):
        pass


def test_a_line_without_end_is_cut(endpoint, monkeypatch):
    monkeypatch.setattr(http, "LONGEST", 1000)
    one = endpoint(streaming(b"x" * 1001))
    with Door([one.url]).stream(READ, 5) as stream, pytest.raises(Unreachable, match="longer than 1000"):
        list(stream.lines(5))


def test_files_of_tls_that_are_not_right_are_named(endpoint, tmp_path):
    fine = endpoint(FINE)
    (tmp_path / "ca.pem").write_text("no certificate")
    for cacert in (tmp_path / "ca.pem", tmp_path / "missing.pem"):
        with pytest.raises(Unreachable, match=str(cacert)):
            Door([fine.url.replace("http:", "https:")], cacert=str(cacert)).ask(WRITE, 5)
