"""The member's figures over HTTP."""

from __future__ import annotations

import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import RemoteDisconnected
from pathlib import Path
from urllib.error import HTTPError

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cni.errors import Unavailable
from cni.member import figures, metrics
from cni.member.metrics import MOST, Server
from cni.state.tally import counted

HEALTH = {"/healthz": lambda: "", "/readyz": lambda: "no conflist yet"}


@contextmanager
def serving(address: str, answer: Callable[[], bytes] = metrics.told) -> Iterator[str]:
    with Server(address, HEALTH, answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        host = f"[{server.server_address[0]}]" if ":" in str(server.server_address[0]) else server.server_address[0]
        try:
            yield f"http://{host}:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(params=["127.0.0.1:0", "[::1]:0"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    with serving(request.param) as url:
        yield url


def connected(url: str) -> socket.socket:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=10)


def body_of(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return bytes(answer.read())


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


def test_prometheus_reads_all_there_is(url: str, no_node: Path):
    no_node.mkdir(mode=0o700)
    with counted("macvlan", "ADD"):
        pass
    figures.STORE_ERRORS.add(kind="unreachable")
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        families = {family.name: family for family in text_string_to_metric_families(answer.read().decode())}
    assert families["agent_cni_store_errors"].type == "counter"
    assert families["agent_cni_convergence_seconds"].type == "histogram"
    assert families["agent_cni_call_seconds"].samples[-1].value == 1
    assert families["process_resident_memory_bytes"].samples[0].value > 1 << 20
    assert abs(families["process_start_time_seconds"].samples[0].value - time.time()) < 3600
    assert all(family.type != "unknown" and family.documentation for family in families.values())


@pytest.mark.parametrize(
    ("path", "code"), [("/healthz", 200), ("/readyz", 503), ("/metrics?x=1", 200), ("/", 404), ("/metrics/", 404)]
)
def test_each_page_answers_for_itself(path: str, code: int):
    with serving("127.0.0.1:0") as url:
        assert status_of(f"{url}{path}") == code


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_but_get_is_done(method: str):
    with serving("127.0.0.1:0") as url, pytest.raises(HTTPError) as caught:
        urllib.request.urlopen(urllib.request.Request(f"{url}/metrics", method=method))
    assert caught.value.code == 501


def test_who_says_nothing_keeps_nobody_from_an_answer():
    before = threading.active_count()
    with serving("127.0.0.1:0") as url:
        silent = [connected(url) for _ in range(4 * MOST)]
        with urllib.request.urlopen(f"{url}/healthz", timeout=3) as answer:
            assert answer.read() == b"ok\n"
        assert threading.active_count() - before <= MOST + 3
        for one in silent[: 2 * MOST]:
            assert one.recv(1) == b""  # who came first has been left
        for one in silent:
            one.close()


def test_whoever_asks_within_a_second_is_told_the_same():
    """Eight who ask at a time would look eight times through every lease of the node."""
    asked: list[float] = []

    def answer() -> bytes:
        asked.append(time.monotonic())
        time.sleep(0.2)
        return b"figures %d\n" % len(asked)

    with serving("127.0.0.1:0", answer) as url, ThreadPoolExecutor(MOST - 1) as pool:
        said = list(pool.map(body_of, [f"{url}/metrics"] * (MOST - 1)))
        assert said == [b"figures 1\n"] * (MOST - 1)
        assert body_of(f"{url}/metrics") == b"figures 1\n"
        time.sleep(1.1)
        assert body_of(f"{url}/metrics") == b"figures 2\n"
    assert len(asked) == 2


def test_what_went_wrong_is_not_kept():
    asked: list[int] = []

    def answer() -> bytes:
        asked.append(1)
        if len(asked) == 1:
            raise OSError("once")
        return b"figures\n"

    with serving("127.0.0.1:0", answer) as url:
        with pytest.raises(RemoteDisconnected):
            body_of(f"{url}/metrics")
        assert body_of(f"{url}/metrics") == b"figures\n"


def test_who_comes_while_all_are_at_work_is_refused_and_no_thread_more_begins():
    """Whose answer takes longer than he waits asks again; each time another thread was at work for nobody."""
    ends, before = threading.Event(), threading.active_count()

    def answer() -> bytes:
        ends.wait(30)
        return b"figures\n"

    with serving("127.0.0.1:0", answer) as url, ThreadPoolExecutor(MOST) as pool:
        waiting = [pool.submit(body_of, f"{url}/metrics") for _ in range(MOST)]
        deadline = time.monotonic() + 10
        while threading.active_count() - before < 2 * MOST + 1:
            assert time.monotonic() < deadline
        time.sleep(0.5)  # each has asked by then; who has not is left for who comes
        most = threading.active_count()
        for _ in range(4 * MOST):
            assert status_of(f"{url}/metrics") == 503
            most = max(most, threading.active_count())
        assert metrics.answers(url.removeprefix("http://")), "it is a member, and says so"
        assert most - before <= 2 * MOST + 1, "those who ask, who answer them, and who listens"
        ends.set()
        assert [one.result() for one in waiting] == [b"figures\n"] * MOST
        assert status_of(f"{url}/healthz") == 200


def test_who_is_slow_is_left(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(metrics, "PATIENCE_SECONDS", 0.2)
    with serving("127.0.0.1:0") as url, closing(connected(url)) as slow:
        until, left = time.monotonic() + 4, False
        while not left and time.monotonic() < until:
            try:
                slow.sendall(b"G")
            except OSError:
                left = True
            time.sleep(0.02)
        assert left


@pytest.mark.parametrize(
    "words", [b"\r\n\r\n", b"\0\xff\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9\r\n\r\n", b"A" * 100_000]
)
def test_what_is_no_request_harms_nobody(words: bytes):
    with serving("127.0.0.1:0") as url:
        with closing(connected(url)) as strange:
            strange.sendall(words)
        with urllib.request.urlopen(f"{url}/healthz", timeout=3) as answer:
            assert answer.status == 200


def test_a_taken_port_is_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(metrics, "_TRIED_AGAIN_AFTER", 0.05)
    other = socket.create_server(("127.0.0.1", 0))
    port = other.getsockname()[1]
    with pytest.raises(Unavailable, match=f"127.0.0.1:{port}: Address already in use"):
        Server(f"127.0.0.1:{port}", HEALTH, metrics.told)
    threading.Thread(target=metrics.serve, args=(f"127.0.0.1:{port}", HEALTH), daemon=True).start()
    time.sleep(0.1)
    other.close()
    deadline = time.monotonic() + 10
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=3) as answer:
                assert answer.status == 200
                return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
