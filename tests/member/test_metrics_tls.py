"""The member's figures with TLS: to whom they are told, and by which files."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from authority import Authority, Mounted

from cni.errors import Unavailable
from cni.kernel.tls import OwnSecrets
from cni.member import metrics
from cni.member.metrics import Server

HEALTH = {"/healthz": lambda: "", "/readyz": lambda: "no conflist yet"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority") / "ca")


@pytest.fixture
def files(tmp_path: Path, authority: Authority) -> Mounted:
    made = Mounted(tmp_path / "mount")
    made.put(authority.ca.read_bytes(), authority.give("member"))
    return made


@contextmanager
def serving(files: Mounted, *, asks: bool = True) -> Iterator[str]:
    secrets = OwnSecrets(str(files.ca) if asks else "", str(files.cert), str(files.key))
    with Server("127.0.0.1:0", HEALTH, lambda: b"figures", secrets) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


Ask = Callable[..., tuple[int, bytes]]


@pytest.fixture
def ask(authority: Authority, tmp_path: Path) -> Ask:
    """Ask as Prometheus does, by the authority, and with a certificate of one where it is named; the status and the body."""

    def asked(place: str, path: str = "/metrics", of: Authority | None = None) -> tuple[int, bytes]:
        context = ssl.create_default_context(cafile=str(authority.ca))
        if of:
            of.give("prometheus")
            context.load_cert_chain(of.folder / "prometheus.pem", of.folder / "prometheus-key.pem")
        connection = http.client.HTTPSConnection(place, timeout=10, context=context)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    return asked


def test_who_has_a_certificate_is_told_and_who_has_none_only_how_it_is(files: Mounted, ask: Ask, authority: Authority):
    with serving(files) as place:
        assert ask(place, of=authority) == (200, b"figures")
        assert ask(place)[0] == 403
        assert ask(place, "/healthz") == (200, b"ok\n")
        assert ask(place, "/readyz") == (503, b"no conflist yet\n")
        assert metrics.answers(place, encrypted=True)
        assert not metrics.answers(place)


def test_a_certificate_of_somebody_elses_authority_is_none(files: Mounted, ask: Ask, tmp_path: Path):
    with serving(files) as place, pytest.raises(OSError, match=r"unknown ca|UNKNOWN_CA|reset|EOF|closed"):
        ask(place, of=Authority(tmp_path / "stranger"))


def test_without_authorities_everybody_is_told(files: Mounted, ask: Ask):
    with serving(files, asks=False) as place:
        assert ask(place) == (200, b"figures")


def test_files_change_under_load_without_an_error(files: Mounted, ask: Ask, authority: Authority):
    ends = threading.Event()

    def load() -> int:
        count = 0
        while not ends.is_set():
            assert ask(place, "/healthz") == (200, b"ok\n")
            count += 1
        return count

    with serving(files) as place, ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(load) for _ in range(3)]
        served = set()
        for number in range(4):
            files.put(pair=authority.give(f"member-{number}"))
            served.add(ssl.get_server_certificate(("127.0.0.1", int(place.rpartition(":")[2]))))
        files.put(pair=(b"half of", b"a change"))
        assert ask(place, of=authority) == (200, b"figures")
        ends.set()
        assert min(one.result() for one in asking) > 0
        assert len(served) == 4


def test_who_connects_and_says_nothing_keeps_nobody_from_being_told(files: Mounted, ask: Ask, authority: Authority):
    with serving(files) as place:
        host, _, port = place.rpartition(":")
        mute = [socket.create_connection((host, int(port))) for _ in range(metrics.MOST + 2)]
        assert ask(place, of=authority) == (200, b"figures")
        for one in mute:
            one.close()


def test_files_that_are_not_right_are_named(files: Mounted):
    files.put(pair=(b"no certificate", b"no key"))
    with pytest.raises(Unavailable, match=rf"no metrics at 127\.0\.0\.1:0: TLS with {files.ca}, {files.cert}"):
        Server("127.0.0.1:0", HEALTH, bytes, OwnSecrets(str(files.ca), str(files.cert), str(files.key)))
