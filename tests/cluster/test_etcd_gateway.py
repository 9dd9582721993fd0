"""Who answers at etcd's address need not be etcd."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from cni.cluster.config import EtcdConfig
from cni.cluster.etcd.gateway import Gateway
from cni.cluster.etcd.keys import Keys, Range
from cni.cluster.etcd.listing import listed
from cni.errors import Unreachable
from cni.kernel.http import Answer

HEADER = {"cluster_id": "7", "revision": "3"}
SPAN = Range(b"/a/", b"/a0")


def said(document: Any) -> Gateway:
    gateway = Gateway(EtcdConfig(("http://[::1]:1",)), 1.0)
    gateway._door = SimpleNamespace(ask=lambda *_: Answer("http://[::1]:1", 200, document))  # type: ignore[assignment]
    return gateway


@pytest.mark.parametrize("document", [{}, {"header": []}, {"header": {}}, {"result": "ok"}, {"status": "well"}])
@pytest.mark.parametrize(
    "ask",
    [
        lambda gateway: gateway.look(b"a"), lambda gateway: gateway.page(SPAN, 1, 0),
        lambda gateway: gateway.write([], []), lambda gateway: gateway.lease(15), lambda gateway: gateway.keep("1"),
        lambda gateway: gateway.end("1"),
    ],
)  # fmt: skip
def test_an_answer_of_another_is_none(ask: Callable[[Gateway], object], document: Any):
    """An empty one was taken for a cluster with nothing in it, and a session that has ended."""
    with pytest.raises(Unreachable, match=r"^http://\[::1\]:1: what it says is not etcd's: "):
        ask(said(document))


@pytest.mark.parametrize(
    ("ask", "rest"),
    [
        (lambda gateway: gateway.look(b"a"), {"responses": [{"response_range": {"kvs": [{"value": "!"}]}}]}),
        (lambda gateway: gateway.page(SPAN, 1, 0), {"kvs": [{"key": "YQ==", "mod_revision": "soon"}]}),
        (lambda gateway: gateway.page(SPAN, 1, 0), {"kvs": 5}),
        (lambda gateway: gateway.page(SPAN, 1, 0), {"kvs": [{"key": "YQ==", "mod_revision": float("inf")}]}),
        (lambda gateway: gateway.lease(15), {"ID": "1", "TTL": "long"}),
        (lambda gateway: gateway.lease(15), {"ID": "1", "TTL": 10**400}),
        (lambda gateway: gateway.granted("1"), {"TTL": "long"}),
    ],
)
def test_nor_is_one_with_something_else_in_it(ask: Callable[[Gateway], object], rest: dict[str, Any]):
    with pytest.raises(Unreachable, match="what it says is not etcd's"):
        ask(said({"header": HEADER} | rest))


@pytest.mark.parametrize(
    "line",
    [
        b'{"result": []}',
        b'{"result": 5}',
        b"[" * 5000,
        b'{"result": {}}',
        b'{"result": {"header": {"cluster_id": "7"}, "events": [{}]}}',
    ],
)
def test_nor_a_watch_that_tells_something_else(line: bytes):
    @contextmanager
    def stream(*_: object) -> Any:
        yield SimpleNamespace(lines=lambda _: iter([line]), broken=Unreachable)

    gateway = Gateway(EtcdConfig(("http://[::1]:1",)), 1.0)
    gateway._door = SimpleNamespace(stream=stream)  # type: ignore[assignment]
    with pytest.raises(Unreachable, match="not etcd's"), gateway.watch(SPAN, 1, 1.0) as messages:
        list(messages)


@pytest.mark.parametrize("rows", [[], [{"key": "L2EvMQ=="}]])
def test_a_list_that_does_not_go_on_ends(rows: list[dict[str, str]]):
    """Whoever says for ever that there is more was asked for ever."""
    with pytest.raises(Unreachable, match="does not go on"):
        listed(said({"header": HEADER, "kvs": rows, "more": True}), Keys("/a"), SPAN)
