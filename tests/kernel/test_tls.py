"""TLS by files that change: what was connected by others is used no more, and what goes on begins anew by itself."""

from __future__ import annotations

import itertools
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from authority import Authority, Mounted

from cni.errors import Unreachable
from cni.kernel.http import Door, Request

READ = Request("/ask", None, {}, method="GET")
STREAM = READ._replace(path="/stream")


class Service(ThreadingHTTPServer):
    """Answers who has a certificate, and notes whose; a stream says a line every 20 ms."""

    daemon_threads = True

    def __init__(self, files: Mounted) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.connections = files, list[str]()
        self.ends = threading.Event()

    def get_request(self):
        """As etcd does it: files are read for each connection."""
        plain, address = super().get_request()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.files.cert, self.files.key)
        context.load_verify_locations(self.files.ca)
        context.verify_mode = ssl.CERT_REQUIRED
        made = context.wrap_socket(plain, server_side=True)
        self.connections.append(dict(pair[0] for pair in made.getpeercert()["subject"])["organizationName"])
        return made, address

    def handle_error(self, *_: object) -> None:
        return


class _Handler(BaseHTTPRequestHandler):
    server: Service
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        if self.path == "/ask":
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")
            return
        self.end_headers()
        while not self.server.ends.is_set():
            self.wfile.write(b"{}\n")
            time.sleep(0.02)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> tuple[Authority, Authority]:
    folder = tmp_path_factory.mktemp("authorities")
    return Authority(folder / "old"), Authority(folder / "new")


@pytest.fixture
def service(authorities: tuple[Authority, Authority], tmp_path: Path) -> Iterator[Service]:
    old, new = authorities
    files = Mounted(tmp_path / "server")
    files.put(old.ca.read_bytes() + new.ca.read_bytes(), old.give("server"))
    with Service(files) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.ends.set()
        made.shutdown()
        thread.join()


@pytest.fixture
def files(authorities: tuple[Authority, Authority], tmp_path: Path) -> Mounted:
    made = Mounted(tmp_path / "client")
    made.put(authorities[0].ca.read_bytes(), authorities[0].give("first"))
    return made


@pytest.fixture
def door(service: Service, files: Mounted) -> Door:
    url = f"https://127.0.0.1:{service.server_address[1]}"
    return Door([url], cacert=str(files.ca), cert=str(files.cert), key=str(files.key))


def test_a_kept_connection_is_used_until_files_change(service: Service, files: Mounted, door: Door, authorities):
    for _ in range(3):
        assert door.ask(READ, 10).status == 200
    assert service.connections == ["first"]
    files.put(pair=authorities[0].give("second"))
    for _ in range(3):
        assert door.ask(READ, 10).status == 200
    assert service.connections == ["first", "second"]


def test_a_stream_ends_when_files_change_and_begins_by_them(service: Service, files: Mounted, door: Door, authorities):
    with door.stream(STREAM, 10) as stream:
        lines = stream.lines(10)
        assert [next(lines) for _ in range(3)] == [b"{}"] * 3
        files.put(pair=authorities[0].give("second"))
        rest = list(itertools.islice(lines, 100))
        assert len(rest) < 100, "it ends as one that says nothing for long, which is no trouble"
    with door.stream(STREAM, 10) as stream:
        assert next(stream.lines(10)) == b"{}"
    assert service.connections == ["first", "second"]


def test_a_stream_goes_on_while_only_half_of_a_change_is_done(
    service: Service, files: Mounted, door: Door, authorities
):
    right = authorities[0].give("second")
    with door.stream(STREAM, 10) as stream:
        lines = stream.lines(10)
        files.put(pair=(right[0], b"not yet"))
        assert [next(lines) for _ in range(20)] == [b"{}"] * 20
        assert door.ask(READ, 10).status == 200
        files.put(pair=right)
        assert len(list(itertools.islice(lines, 100))) < 100
    assert door.ask(READ, 10).status == 200
    assert service.connections == ["first", "first", "second"]


def test_a_server_of_another_authority_is_believed_once_the_files_say_so(
    service: Service, files: Mounted, door: Door, authorities
):
    old, new = authorities
    assert door.ask(READ, 10).status == 200
    service.files.put(pair=new.give("server"))
    assert door.ask(READ, 10).status == 200, "by the connection there is"
    files.put(pair=old.give("second"))
    with pytest.raises(Unreachable, match="certificate verify failed"):
        door.ask(READ, 10)
    files.put(new.ca.read_bytes())
    assert door.ask(READ, 10).status == 200
    assert service.connections == ["first", "second"]


def test_a_certificate_that_ends_ends_nothing_that_stands(service: Service, files: Mounted, door: Door, authorities):
    service.files.put(pair=authorities[0].give("server", seconds=3))
    began = time.monotonic()
    with door.stream(STREAM, 10) as stream:
        lines = stream.lines(10)
        assert next(lines) == b"{}"
        assert door.ask(READ, 10).status == 200
        time.sleep(max(0, began + 4 - time.monotonic()))
        assert next(lines) == b"{}"
        assert door.ask(READ, 10).status == 200
        assert service.connections == ["first", "first"]
    files.put(pair=authorities[0].give("second"))
    with pytest.raises(Unreachable, match="expired"):
        door.ask(READ, 10)
    service.files.put(pair=authorities[0].give("server"))
    assert door.ask(READ, 10).status == 200
