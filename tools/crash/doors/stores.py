"""What a cluster's store answers: HTTP, etcd's gateway, and the Kubernetes API; and what is made of it on this host."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPResponse
from itertools import islice
from random import Random
from typing import Any
from unittest import mock

from cni.cluster.config import EtcdConfig, KubernetesConfig
from cni.cluster.etcd import listing, watch
from cni.cluster.etcd.gateway import Gateway
from cni.cluster.etcd.keys import Keys
from cni.cluster.kubernetes import items, objects
from cni.cluster.kubernetes.api import Absent, Api, Overtaken
from cni.cluster.model import Item
from cni.cluster.store import Listing
from cni.errors import CniError
from cni.kernel import hostsdir
from cni.kernel.http import Door as HttpDoor
from cni.kernel.http import Request
from cni.member.far_names import FarNames
from cni.policy.manifest import items_of
from crash.doors.door import Door
from crash.mutation import changed, mutated

KEYS = Keys("/agent-cni")
_AT = {"cluster_id": "14841639068965178418", "member_id": "10276657743932975437", "revision": "12", "raft_term": "2"}
_VALUES: dict[tuple[str, ...], Any] = {
    ("nodes", "n1"): {"machine": "m1", "vtep": "10.0.0.1", "mac": "0a:58:0a:00:00:01", "wireguard": "aGVsbG8=", "underlay": "10.0.0.1",
                      "fences": 30, "guest_of": ["pods"], "uplinks": ["10.0.0.1", "10.1.0.1"]},
    ("alive", "n1"): {"token": "t"},
    ("networks", "pods"): {"pools": [{"subnet": "10.9.0.0/16", "first": "10.9.0.1", "last": "10.9.255.254", "gateway": "10.9.0.1"}], "block": 64, "mode": "l3", "vni": 42,
                           "reserved": ["10.9.0.1-10.9.0.9"], "port": 4789, "direct": True, "names": True},
    ("blocks", "pods", "10.9.0.64/26"): {"node": "n1", "machine": "m1"},
    ("addresses", "pods", "10.9.0.70"): {"node": "n1", "mac": "0a:58:0a:09:00:46", "container": "c1", "ifname": "eth0", "pod": "a/web",
                                          "names": "web.pods web", "unhealthy": False},
    ("documents", "NetworkPolicy", "default", "deny"): {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                                                        "metadata": {"name": "deny"}, "spec": {"podSelector": {}}},
}  # fmt: skip
_POD = {
    "metadata": {"name": "web", "namespace": "a", "uid": "u", "resourceVersion": "7", "labels": {"app": "web"}, "creationTimestamp": "2026-01-01T00:00:00Z"},
    "spec": {"nodeName": "n2", "hostNetwork": False, "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 80, "protocol": "TCP"}]}]},
    "status": {"phase": "Running", "podIP": "10.9.0.70", "podIPs": [{"ip": "10.9.0.70"}]},
}  # fmt: skip
_NODE = {
    "metadata": {"name": "n2", "resourceVersion": "8", "creationTimestamp": "2026-01-01T00:00:00Z", "annotations": {
        "agent-cni.dev/machine": "m2", "agent-cni.dev/vtep": "10.0.0.2", "agent-cni.dev/mac": "0a:58:0a:00:00:02",
        "agent-cni.dev/uplinks": "10.0.0.2,10.1.0.2", "agent-cni.dev/session": "s",
        "agent-cni.dev/networks": json.dumps({"pods": _VALUES["networks", "pods"]})}},
    "spec": {"podCIDR": "10.9.1.0/24", "podCIDRs": ["10.9.1.0/24"]},
    "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.2"}], "conditions": [{"type": "Ready", "status": "True"}],
               "nodeInfo": {"machineID": "m2", "bootID": "b"}},
}  # fmt: skip
_POLICY = {"metadata": {"name": "deny", "namespace": "a", "resourceVersion": "9"},
           "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": "http"}]}]}}  # fmt: skip
_OBJECTS = {
    "nodes": _NODE,
    "pods": _POD,
    "networkpolicies": _POLICY,
    "namespaces": {"metadata": {"name": "a", "resourceVersion": "3", "labels": {"x": "y"}}},
}
_KINDS = {kind.plural: kind for kind in (objects.NODES, objects.PODS, objects.NAMESPACES, objects.POLICIES[0])}
_STATUS = {"kind": "Status", "message": "no", "reason": "Expired", "code": 410}


class _Bounds:
    def settimeout(self, _: float) -> None: ...
    def bound_each(self, _: float) -> None: ...
    def hang_up(self) -> None: ...


class _Connection:
    """One that was sent something, and then ends."""

    context = sock = None
    bounds = _Bounds()

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def answered(self, method: str, *_: object) -> HTTPResponse:
        response = HTTPResponse(self, method=method)  # type: ignore[arg-type]
        response.begin()
        return response

    def makefile(self, *_: object) -> io.BufferedReader:
        return io.BufferedReader(io.BytesIO(self._raw))  # type: ignore[arg-type]

    def close(self) -> None: ...


@contextmanager
def _answering(raw: bytes) -> Iterator[None]:
    """Whoever asks anybody by HTTP is answered so, each time."""
    with mock.patch("cni.kernel.pools.Pool.taken", side_effect=lambda *_: _Connection(raw)), mock.patch("time.sleep"):
        yield


def _whole(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


# --- etcd


def _gateway() -> Gateway:
    return Gateway(EtcdConfig(("http://127.0.0.1:2379",)), 1.0)


def _kept(found: list[Item]) -> None:
    """What a host does with items: it writes them down, and files of names, a line each."""
    for item in found:
        json.dumps(item.value).encode()
        for name in (*item.key, *(value for value in _fields(item) if isinstance(value, str))):
            name.encode()
    names = FarNames("me")
    hostsdir.put(hostsdir.FOLDER / "pods" / hostsdir.CONF, "#domain pods\n")
    names.heard(Listing(1, tuple(found), ()))
    names.keep()
    lines = [line for file in (hostsdir.FOLDER / "pods/there").iterdir() for line in file.read_text().splitlines()]
    if len(lines) > len(found):
        raise AssertionError(f"{len(found)} items came to be {lines}")


def _fields(item: Item) -> tuple[Any, ...]:
    return tuple(item) if isinstance(item, tuple) else tuple(vars(item).values())


def _told() -> None:
    for news in islice(watch.Watch(_gateway(), KEYS, 1.0, 0.0).told(), 4):
        _kept(list(news.items if isinstance(news, Listing) else news.put))


def _changes() -> None:
    from cni.cluster.etcd.items import told

    with _gateway().watch(KEYS.all(), 1, 1.0) as messages:
        for message in islice(messages, 9):
            _kept(list(told(KEYS, message.rows).items))


_ETCD: dict[str, Callable[[], object]] = {
    "look": lambda: _gateway().look(KEYS.all()),
    "write": lambda: _gateway().write([], []),
    "lease": lambda: _gateway().lease(10),
    "keep": lambda: _gateway().keep("7"),
    "granted": lambda: _gateway().granted("7"),
    "end": lambda: _gateway().end("7"),
    "listed": lambda: _kept(listing.listed(_gateway(), KEYS, KEYS.all()).items),
    "watch": _changes,
    "told": _told,
}


def _judged(questions: dict[str, Callable[[], object]]) -> Callable[[bytes], str]:
    def judged(data: bytes) -> str:
        name, _, raw = data.partition(b"\n")
        with _answering(raw), suppress(CniError, Absent, Overtaken):
            questions[name.decode()]()
        return ""

    return judged


def _row(random: Random) -> dict[str, Any]:
    key, value = random.choice(list(_VALUES.items()))
    text = changed(random, value) if random.random() < 0.7 else json.dumps(value)
    at = KEYS.of(key)
    at = mutated(random, at) if random.random() < 0.2 else at
    return {
        "key": base64.b64encode(at).decode(), "create_revision": "3", "mod_revision": "12", "version": "1", "lease": "7",
        "value": base64.b64encode(text.encode("utf-8", "surrogatepass")).decode(),
    }  # fmt: skip


def _etcd(random: Random) -> bytes:
    name = random.choice(list(_ETCD))
    rows = [_row(random) for _ in range(random.choice((0, 1, 2, 5)))]
    page = {"header": _AT, "kvs": rows, "count": str(len(rows)), "more": False}
    event = {
        "result": {
            "header": _AT,
            "watch_id": "1",
            "events": [{"kv": row} | ({"type": "DELETE"} if random.random() < 0.2 else {}) for row in rows],
        }
    }
    documents: dict[str, list[Any]] = {
        "look": [{"header": _AT, "succeeded": True, "responses": [{"response_range": page}]}],
        "lease": [{"header": _AT, "ID": "7", "TTL": "10"}],
        "keep": [{"result": {"header": _AT, "ID": "7", "TTL": "10"}}],
        "granted": [{"header": _AT, "ID": "7", "TTL": "9", "grantedTTL": "10"}],
        "end": [{"header": _AT}],
        "listed": [page],
        "told": [page],
        "watch": [{"result": {"header": _AT, "created": True}}, event, {"error": {"message": "x", "grpc_code": 5}} if random.random() < 0.2 else event,
                  {"result": {"header": _AT, "canceled": True, "compact_revision": "9"}} if random.random() < 0.2 else event],
    }  # fmt: skip
    said = documents.get(name, documents["look"])
    texts = [changed(random, one) if random.random() < 0.6 else json.dumps(one) for one in said]
    return _spoken(random, name, "\n".join(texts))


def _spoken(random: Random, name: str, text: str) -> bytes:
    body = text.encode("utf-8", "surrogatepass")
    body = mutated(random, body) if random.random() < 0.2 else body
    status = (
        random.choice(("404 Not Found", "409 Conflict", "410 Gone", "403 No", "401 No", "503 Busy", "400 Bad"))
        if random.random() < 0.15
        else "200 OK"
    )
    whole = _whole(body, status)
    return name.encode() + b"\n" + (mutated(random, whole) if random.random() < 0.2 else whole)


# --- Kubernetes


def _api() -> Api:
    return Api(KubernetesConfig(server="http://127.0.0.1:8001"), 1.0)


def _used(kind: objects.Kind, found: list[Any]) -> None:
    nodes = [one for one in found if isinstance(one, objects.Node)]
    networks, _ = items.networks_of(nodes, "me")
    known = networks or [_network()]
    for one in found:
        if isinstance(one, objects.Node):
            _kept(items.of_node(one, known, "me")[0])
            items.with_declared(one, known[0])
            items.internal_address(one)
        elif isinstance(one, objects.Pod):
            with suppress(ValueError):  # which the watch names
                _kept(items.of_pod(one, known, "me"))
        with suppress(ValueError):
            document = items.document_of(kind, kind.versions[0], one)
            _kept([document])
            with suppress(CniError):
                list(items_of("here", document.value))


def _network() -> Any:
    from cni.cluster.model import Network

    return Network.read(("networks", "pods"), _VALUES["networks", "pods"])


def _watched(kind: objects.Kind) -> None:
    with _api().watch(kind, kind.versions[0], "1", 1.0) as watching:
        _used(kind, [line.found for line in islice(watching.lines, 9) if line.found is not None])


def _got(kind: objects.Kind) -> None:
    found = _api().get(kind, "x")
    _used(kind, [found] if found else [])


_KUBERNETES: dict[str, Callable[[], object]] = {
    f"{how} {plural}": lambda ask=ask, kind=kind: ask(kind)  # type: ignore[misc]
    for plural, kind in _KINDS.items()
    for how, ask in (("get", _got), ("list", lambda kind: _used(kind, _api().list(kind).objects)), ("watch", _watched))
}


def _kubernetes(random: Random) -> bytes:
    name = random.choice(list(_KUBERNETES))
    how, plural = name.split(" ")
    one = changed(random, _OBJECTS[plural]) if random.random() < 0.7 else json.dumps(_OBJECTS[plural])
    if plural == "nodes" and random.random() < 0.4:
        node = json.loads(json.dumps(_NODE))
        node["metadata"]["annotations"]["agent-cni.dev/networks"] = changed(
            random, {"pods": _VALUES["networks", "pods"]}
        )
        one = json.dumps(node)
    if how == "list":
        metadata = (
            changed(random, {"resourceVersion": "9", "continue": ""})
            if random.random() < 0.1
            else '{"resourceVersion": "9"}'
        )
        return _spoken(random, name, f'{{"metadata": {metadata}, "items": [{one}, {json.dumps(_OBJECTS[plural])}]}}')
    if how == "watch":
        kinds = ("ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR", "", "OTHER")
        lines = (
            f'{{"type": "{random.choice(kinds)}", "object": {random.choice((one, one, json.dumps(_STATUS)))}}}'
            for _ in range(3)
        )
        return _spoken(random, name, "\n".join(lines) + "\n")
    return _spoken(random, name, one)


# --- HTTP


def _heard() -> None:
    door = HttpDoor(["http://127.0.0.1:1"])
    door.ask(Request("/x", {}, {}), 1.0)


def _streamed() -> None:
    with HttpDoor(["http://127.0.0.1:1"]).stream(Request("/x", {}, {}), 1.0) as stream:
        list(islice(stream.lines(1.0), 99))


_HTTP: dict[str, Callable[[], object]] = {"ask": _heard, "stream": _streamed}
_HEADS = (b"Content-Length: 5", b"Content-Length: 99999999999999999999", b"Content-Length: -1", b"Transfer-Encoding: chunked", b"Content-Encoding: gzip",
          b"Retry-After: 9" + b"9" * 400, b"Retry-After: \xb2", b"Connection: close", b"x" * 70_000, b"Content-Length: x", b": ", b"A: \xff")  # fmt: skip


def _http(random: Random) -> bytes:
    head = random.choice(
        (
            b"HTTP/1.1 200 OK",
            b"HTTP/1.0 200",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK",
            b"HTTP/9.9 0",
            b"ICY 200",
            b"HTTP/1.1 429 Busy",
        )
    )
    heads = b"\r\n".join([head, *random.sample(_HEADS, random.randrange(4))])
    body = random.choice(
        (
            b'{"a": 1}\n',
            b"5\r\nhello\r\n0\r\n\r\n",
            b"ffffffffffff\r\nx",
            b"[" * 5000,
            b"",
            b"\x1f\x8b\x08\0\0\0\0\0\0\3" + random.randbytes(9),
        )
    )
    return random.choice((b"ask", b"stream")) + b"\n" + mutated(random, heads + b"\r\n\r\n" + body)


DOORS = (
    Door("etcd", _etcd, _judged(_ETCD), 8000),
    Door("kubernetes", _kubernetes, _judged(_KUBERNETES), 8000),
    Door("http", _http, _judged(_HTTP), 20_000),
)
