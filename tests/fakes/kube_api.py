"""A Kubernetes API server with nothing behind it: objects are got, listed in pages, watched and patched, and it fails as it is told to."""

from __future__ import annotations

import copy
import gzip
import json
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

Json = dict[str, Any]
#: By the name in a path, the kind, and where it is served.
KINDS = {
    "nodes": ("Node", "/api/v1"), "pods": ("Pod", "/api/v1"), "namespaces": ("Namespace", "/api/v1"),
    "networkpolicies": ("NetworkPolicy", "/apis/networking.k8s.io/v1"),
    "clusternetworkpolicies": ("ClusterNetworkPolicy", "/apis/policy.networking.k8s.io/v1alpha2"),
    "adminnetworkpolicies": ("AdminNetworkPolicy", "/apis/policy.networking.k8s.io/v1alpha1"),
    "baselineadminnetworkpolicies": ("BaselineAdminNetworkPolicy", "/apis/policy.networking.k8s.io/v1alpha1"),
}  # fmt: skip
PLURALS = {kind: plural for plural, (kind, _) in KINDS.items()}
#: Those that are not served without a definition of their own.
ADMINISTRATORS = {plural for plural, (_, base) in KINDS.items() if "policy.networking" in base}
#: The newest of them.
CUSTOM = "clusternetworkpolicies"


#: Bytes from which on an answer is packed for who accepts it, as the API does it (defaultGzipThresholdBytes).
_PACKED_FROM = 128 << 10


class KubeApi:
    """It, at `url`. `requests` are the verbs and paths it was asked, `sent` the bytes it said."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.changed = threading.Condition(threading.RLock())
        self.objects: dict[tuple[str, str, str], Json] = {}
        self.log: list[tuple[int, str, str, Json]] = []
        self.version, self.forgotten = 1, 0
        self.requests: list[tuple[str, str]] = []
        self.sent = 0
        #: How it fails: verbs and plurals it forbids, the token it wants, how often it is busy, for how long it thinks about a list, whether
        #: watches say nothing, how many pages it forgets, and plurals it does not serve.
        self.forbidden: set[tuple[str, str]] = set()
        self.token = ""
        self.busy = 0
        self.slow = 0.0
        self.mute = False
        self.expiring = 0
        self.absent = set(ADMINISTRATORS)
        #: Counts when watches are to end, and when they are to say how far they are.
        self.ended, self.marked = 0, 0
        self._address = address, 0
        self._uids = 0
        self.open = set[Any]()
        self.start()

    @property
    def url(self) -> str:
        host, port = self._address
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def start(self) -> None:
        """Answer, at the same place as before."""
        api = self

        class Bound(_Handler):
            server_api = api

        self._server = ThreadingHTTPServer(self._address, Bound)
        self._server.daemon_threads = True
        self._address = (self._address[0], self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Be away: no connection is taken, and those there are end."""
        self._server.shutdown()
        self._server.server_close()
        with self.changed:
            self.ended += 1
            for connection in list(self.open):
                with suppress(OSError):
                    connection.shutdown(2)
            self.changed.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- what happens

    def put(self, raw: Json) -> Json:
        """Have an object be so."""
        with self.changed:
            metadata = raw.setdefault("metadata", {})
            key = (PLURALS[raw["kind"]], metadata.get("namespace", ""), metadata["name"])
            before = self.objects.get(key)
            self._uids += before is None
            known = (
                before["metadata"] if before else {"uid": f"uid-{self._uids}", "creationTimestamp": _now(self._uids)}
            )
            self.version += 1
            keep = {name: known[name] for name in ("uid", "creationTimestamp")}
            said = copy.deepcopy(raw) | {
                "metadata": copy.deepcopy(metadata) | keep | {"resourceVersion": str(self.version)}
            }
            self.objects[key] = said
            self._say(key[0], "MODIFIED" if before else "ADDED", said)
            return said

    def delete(self, kind: str, name: str, namespace: str = "") -> None:
        """Have no such object."""
        with self.changed:
            gone = copy.deepcopy(self.objects.pop((PLURALS[kind], namespace, name)))
            self.version += 1
            gone["metadata"]["resourceVersion"] = str(self.version)
            self._say(PLURALS[kind], "DELETED", gone)

    def get(self, kind: str, name: str, namespace: str = "") -> Json:
        """An object."""
        with self.changed:
            return copy.deepcopy(self.objects[PLURALS[kind], namespace, name])

    def compact(self) -> None:
        """Forget what changed until now, and end watches: who goes on is told that it is gone."""
        with self.changed:
            self.log, self.forgotten, self.ended = [], self.version, self.ended + 1
            self.version += 1
            self.changed.notify_all()

    def end_watches(self) -> None:
        """End them as a server does after a while."""
        with self.changed:
            self.ended += 1
            self.changed.notify_all()

    def mark(self) -> None:
        """Have watches say how far they are."""
        with self.changed:
            self.marked += 1
            self.changed.notify_all()

    def _say(self, plural: str, what: str, said: Json) -> None:
        self.log.append((self.version, plural, what, said))
        self.changed.notify_all()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_api: KubeApi

    def setup(self) -> None:
        super().setup()
        self.server_api.open.add(self.connection)

    def finish(self) -> None:
        self.server_api.open.discard(self.connection)
        super().finish()

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            self.close_connection = True

    def do_GET(self) -> None:
        self._answer()

    def do_PATCH(self) -> None:
        self._answer()

    def _answer(self) -> None:
        api, url = self.server_api, urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        plural, name = next(
            ((plural, unquote(url.path[len(base) + len(plural) + 2 :]))
             for plural, (_, base) in KINDS.items() if f"{url.path}/".startswith(f"{base}/{plural}/")), ("", ""),
        )  # fmt: skip
        name, _, part = name.partition("/")
        verb = "patch" if self.command == "PATCH" else "watch" if "watch" in query else "get" if name else "list"
        with api.changed:
            api.requests.append((verb, self.path))
            is_busy, api.busy = api.busy > 0, max(0, api.busy - 1)
        if api.token and self.headers.get("Authorization") != f"Bearer {api.token}":
            self._refuse(401, "Unauthorized")
        elif is_busy:
            self._refuse(429, "too many requests", {"Retry-After": "1"})
        elif (verb, resource := f"{plural}/{part}" if part else plural) in api.forbidden:
            self._refuse(403, f'{resource} is forbidden: User "node" cannot {verb} resource "{resource}"')
        elif not plural or plural in api.absent:
            self._send(404, b"404 page not found\n")
        elif verb == "watch":
            self._watch(plural, int(query["resourceVersion"]))
        elif verb == "list":
            self._list(plural, query)
        else:
            self._one(plural, name, body)

    def _one(self, plural: str, name: str, body: Json | None) -> None:
        api = self.server_api
        with api.changed:
            found = api.objects.get((plural, "", name))
            if found is None:
                return self._refuse(404, f'{plural} "{name}" not found')
            if body and "status" in body:
                said = {one["type"]: one for one in (*found["status"]["conditions"], *body["status"]["conditions"])}
                found = api.put(found | {"status": found["status"] | {"conditions": [*said.values()]}})
            elif body:
                metadata = found["metadata"]
                if body["metadata"].get("resourceVersion", metadata["resourceVersion"]) != metadata["resourceVersion"]:
                    return self._refuse(409, "the object has been modified")
                known = (metadata.get("annotations") or {}) | body["metadata"]["annotations"]
                kept = {key: value for key, value in known.items() if value is not None}
                found = api.put(found | {"metadata": metadata | {"annotations": kept}})
        return self._send_json(200, found)

    def _list(self, plural: str, query: dict[str, str]) -> None:
        api = self.server_api
        if api.slow:
            time.sleep(api.slow)
        with api.changed:
            version, start = query.get("continue", f"{api.version}:0").split(":")
            if start != "0" and api.expiring:
                api.expiring -= 1
                return self._refuse(410, "The provided continue parameter is too old")
            every = [one for (kind, *_), one in sorted(api.objects.items()) if kind == plural]
        if selector := query.get("fieldSelector"):
            every = [
                one for one in every if one.get("spec", {}).get("nodeName") == selector.removeprefix("spec.nodeName=")
            ]
        end = int(start) + int(query.get("limit", "500"))
        metadata = {"resourceVersion": version} | ({"continue": f"{version}:{end}"} if end < len(every) else {})
        items = [{key: value for key, value in one.items() if key not in ("kind", "apiVersion")} for one in every[int(start):end]]  # fmt: skip
        return self._send_json(200, {"kind": f"{KINDS[plural][0]}List", "metadata": metadata, "items": items})

    def _watch(self, plural: str, version: int) -> None:
        api = self.server_api
        with api.changed:
            ended, marked, is_gone = api.ended, api.marked, version < api.forgotten
        if is_gone:
            self._refuse(410, "too old resource version")
        else:
            self._stream(plural, version, ended, marked)

    def _stream(self, plural: str, version: int, ended: int, marked: int) -> None:
        api = self.server_api
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while True:
            with api.changed:
                found = [item for item in api.log if item[1] == plural and item[0] > version]
                while api.mute or not (found or api.ended != ended or api.marked != marked):
                    api.changed.wait(0.5)
                    if api.ended != ended:
                        break
                    found = [item for item in api.log if item[1] == plural and item[0] > version]
                if api.ended != ended:
                    break
                lines = [{"type": what, "object": said} for _, _, what, said in found]
                if api.marked != marked:
                    marked = api.marked
                    mark = {
                        "kind": KINDS[plural][0],
                        "metadata": {"resourceVersion": str(api.version), "creationTimestamp": None},
                    }
                    lines.append({"type": "BOOKMARK", "object": mark})
                version = api.version if lines and not found else found[-1][0] if found else version
            for line in lines:
                self._chunk(json.dumps(line).encode() + b"\n")
        self._chunk(b"")

    def _chunk(self, piece: bytes) -> None:
        self.server_api.sent += len(piece)
        self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.flush()

    def _refuse(self, status: int, why: str, headers: dict[str, str] | None = None) -> None:
        self._send_json(status, {"kind": "Status", "status": "Failure", "message": why, "code": status}, headers)

    def _send_json(self, status: int, said: Json, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(said).encode(), headers)

    def _send(self, status: int, text: bytes, headers: dict[str, str] | None = None) -> None:
        if len(text) > _PACKED_FROM and "gzip" in self.headers.get("Accept-Encoding", ""):
            text, headers = gzip.compress(text, 1), {"Content-Encoding": "gzip", **(headers or {})}
        self.server_api.sent += len(text)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(text)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)


def _now(number: int) -> str:
    return f"2026-11-29T{number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02}Z"


# --- objects


def node(
    name: str, *cidrs: str, address: str = "192.0.2.1", ready: str = "True", machine: str = "", boot: str = ""
) -> Json:
    """A Node as kubelet and the controllers have it."""
    info = {"machineID": machine, "bootID": boot}
    addresses = [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}]
    conditions = [{"type": "Ready", "status": ready}]
    spec = {"podCIDR": cidrs[0], "podCIDRs": [*cidrs]} if cidrs else {}
    status = {"addresses": addresses, "conditions": conditions, "nodeInfo": info}
    return {"kind": "Node", "apiVersion": "v1", "metadata": {"name": name}, "spec": spec, "status": status}


def pod(name: str, on: str, *addresses: str, namespace: str = "default", phase: str = "Running", **labels: str) -> Json:
    """A pod as its kubelet has it."""
    status = {"phase": phase} | (
        {"podIP": addresses[0], "podIPs": [{"ip": one} for one in addresses]} if addresses else {}
    )
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    containers = [{"name": "c", "image": "i", "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]}]
    spec = {"nodeName": on, "containers": containers}
    return {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": spec, "status": status}


def namespace(name: str, **labels: str) -> Json:
    """A namespace."""
    return {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name, "labels": labels}}


def policy(name: str, namespace: str = "default", **spec: Any) -> Json:
    """A NetworkPolicy; without more it lets nothing in."""
    said = {"podSelector": {}, "policyTypes": ["Ingress"]} | spec
    return {
        "kind": "NetworkPolicy",
        "apiVersion": "networking.k8s.io/v1",
        "metadata": {"name": name, "namespace": namespace},
        "spec": said,
    }
