"""Asking the Kubernetes API: one object, a list in pages, a watch, a patch. What it refuses is named by verb and resource.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from cni.cluster.config import KubernetesConfig
from cni.cluster.kubernetes.objects import NODES, Event, Kind, Object, Page, Status, Unread, read, reader
from cni.errors import Compacted, Forbidden, Unavailable, Unreachable
from cni.kernel.clock import boottime
from cni.kernel.http import Answer, Door, Request, Stream, located

#: What kubelet gives a pod to ask the API by.
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
#: Objects in a page: a page of pods is 5 MiB at the most then, and nobody waits long for it.
_PAGE = 250
#: The API does so with what is larger than 128 KiB: a page of pods is a tenth then.
_SMALLER = {"Accept-Encoding": "gzip"}
#: A listing that is overtaken by compactions begins anew, but not for ever.
_LISTINGS = 3
#: A page of a busy API may take so long, in seconds.
_SLOW = 30.0
#: After so many seconds the API ends a watch by itself; it is begun again.
_WATCHED = 300
_OK, _UNKNOWN, _FORBIDDEN, _ABSENT, _CONFLICT, _GONE, _BUSY = 200, 401, 403, 404, 409, 410, 429
_event, _page, _status, _unread = reader(Event), reader(Page), reader(Status), reader(Unread)


class Absent(Exception):
    """The API does not serve a kind."""


class Overtaken(Exception):
    """An object became another since it was looked at."""


class Listed(NamedTuple):
    """Every object of a kind at a `version` of it, from which on a watch tells what changes; and what cannot be read."""

    served: str
    version: str
    objects: list[Object]
    refused: list[str]


class Heard(NamedTuple):
    """One line of a watch: an object that is so by now, or is `gone`; None where nothing changed until `version`, or where what did cannot
    be read, and `refused` says why.
    """

    version: str
    found: Object | None
    gone: bool = False
    refused: str = ""


class Watching(NamedTuple):
    """A watch: its lines, and what ends it for who waits for them."""

    lines: Iterator[Heard]
    end: Callable[[], None]


class Api:
    """It. Each method waits for `seconds` at most, a list for longer. Raises Unreachable, and Forbidden."""

    def __init__(self, config: KubernetesConfig, seconds: float) -> None:
        self._seconds = seconds
        server = config.server or _own_server()
        is_pod = not config.server or (ACCOUNT / "token").exists()
        cacert = config.cacert or (str(ACCOUNT / "ca.crt") if is_pod and server.startswith("https:") else "")
        self._token_file = Path(config.token or (ACCOUNT / "token" if is_pod and not config.cert else ""))
        self._token = ""
        self._door = Door([server], cacert=cacert, cert=config.cert, key=config.key)

    def reconnect(self) -> None:
        """Ask by other connections from now on."""
        self._door.reconnect()

    def get(self, kind: Kind, name: str) -> Object | None:
        """One object, None where there is none."""
        answer = self._ask(kind, "get", Request(located(f"{_path(kind)}/", name), None, {}, method="GET"))
        if answer.status == _ABSENT and not _is_said_by_api(answer.document):
            raise self._unserved(kind, answer.document)
        return answer.document if answer.status == _OK else None

    def annotate(self, kind: Kind, known: Object, annotations: Mapping[str, str | None]) -> Object:
        """Have an object say something, if it still is what is known; None: nothing. Raises Overtaken."""
        said = {"metadata": {"resourceVersion": known.metadata.resource_version, "annotations": dict(annotations)}}
        path = located(f"{_path(kind)}/", known.metadata.name, fieldManager="agent-cni")
        merged = {"Content-Type": "application/merge-patch+json"}
        answer = self._ask(kind, "patch", Request(path, said, merged, again=False, method="PATCH"))
        if answer.status in (_CONFLICT, _ABSENT):
            raise Overtaken
        found: Object = answer.document
        return found

    def say_condition(self, kind: Kind, known: Object, condition: Mapping[str, str]) -> None:
        """Have an object's status say a condition, in the place of the one of its type."""
        path = located(f"{_path(kind)}/", known.metadata.name) + "/status"
        merged = {"Content-Type": "application/strategic-merge-patch+json"}
        said = {"status": {"conditions": [dict(condition)]}}
        request = Request(path, said, merged, again=False, method="PATCH")
        self._ask(kind._replace(plural=f"{kind.plural}/status"), "patch", request)

    def list(self, kind: Kind, **selectors: str) -> Listed:
        """All of a kind, in whichever version it is served. Raises Absent."""
        found = self._in_any_version(kind, selectors)
        if not found:
            self._pages(NODES, NODES.versions[0], {"fieldSelector": "metadata.name=-"})  # of which each API has a list
            found = self._in_any_version(kind, selectors)  # as it is of an API that came back only then
        if not found:
            raise Absent
        return found

    def is_served(self, kind: Kind) -> bool:
        """Whether there is a list of a kind in any version, by a request for each."""
        asked = (Request(located(kind.path(one), limit="1"), None, {}, method="GET") for one in kind.versions)
        return any(self._ask(kind, "list", one, bytes).status == _OK for one in asked)

    def _in_any_version(self, kind: Kind, selectors: Mapping[str, str]) -> Listed | None:
        for served in kind.versions:
            for _ in range(_LISTINGS):
                try:
                    return self._pages(kind, served, selectors)
                except Compacted:
                    continue
                except Absent:
                    break
            else:
                raise Unreachable(f"the API forgets {kind.called} faster than they can be listed")
        return None

    @contextmanager
    def watch(self, kind: Kind, served: str, version: str, silence: float) -> Iterator[Watching]:
        """What changes of a kind from a version on, until nothing is heard for `silence` seconds. Raises Compacted."""
        asked = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(_WATCHED),
        }
        request = Request(located(kind.path(served), **asked), None, self._login(), method="GET")
        with self._door.stream(request, self._seconds) as stream:
            if stream.status != _OK:
                raise self._refused(kind, "watch", stream.status, _why(next(stream.lines(self._seconds), b"")))
            yield Watching(self._heard(kind, stream, silence), stream.end)

    def _heard(self, kind: Kind, stream: Stream, silence: float) -> Iterator[Heard]:
        for line in stream.lines(silence):
            try:
                event = _event(line)
                if event.type == "ERROR":
                    said = _status(event.object)
                    raise self._refused(kind, "watch", said.code, said.message)
                version = _unread(event.object).metadata.resource_version
            except ValueError as error:
                raise stream.broken(f"what it says of {kind.called} is not understood: {error}") from None
            try:
                found = read(kind, event.object)
            except ValueError as error:
                yield Heard(version, None, refused=f"{kind.called} in the store: {error}")
                continue
            is_mark = event.type == "BOOKMARK"
            yield Heard(version, None if is_mark else found, event.type == "DELETED")

    def _pages(self, kind: Kind, served: str, selectors: Mapping[str, str]) -> Listed:
        asked = {"limit": str(_PAGE)} | dict(selectors)
        objects, refused = list[Object](), list[str]()
        while True:
            request = Request(located(kind.path(served), **asked), None, _SMALLER, method="GET")
            answer = self._ask(kind, "list", request, _page, max(self._seconds, _SLOW))
            if answer.status == _ABSENT:
                raise Absent if kind.is_added else self._unserved(kind, answer.document)
            page: Page = answer.document
            for text in page.items or ():
                try:
                    objects.append(read(kind, text))
                except ValueError as error:
                    refused.append(f"{kind.called} in the store: {error}")
            if not page.metadata.token:
                return Listed(served, page.metadata.version, objects, refused)
            if page.metadata.token == asked.get("continue"):
                raise Unreachable(f"the Kubernetes API does not go on in its list of {kind.called}")
            asked |= {"continue": page.metadata.token}

    def _ask(self, kind: Kind, verb: str, request: Request, reading: Any = None, seconds: float = 0.0) -> Answer:
        """An answer that is one: 200, 404, and of a patch 409. One that is busy is asked again when it says."""
        until = boottime() + (seconds or self._seconds)
        while True:
            login = request._replace(headers={**request.headers, **self._login()})
            answer = self._door.ask(login, max(0.001, until - boottime()), bytes)
            if answer.status != _BUSY or boottime() + (pause := answer.after or 1.0) > until:
                break
            time.sleep(pause)
        if answer.status == _ABSENT or (answer.status, verb) == (_CONFLICT, "patch"):
            return answer
        try:
            if answer.status == _OK:
                return answer._replace(document=(reading or partial(read, kind))(answer.document))
            why = _why(answer.document)
        except ValueError as error:
            raise Unreachable(f"{answer.endpoint}: what it says of {kind.called} is not understood: {error}") from None
        raise self._refused(kind, verb, answer.status, why)

    def _unserved(self, kind: Kind, said: bytes) -> Unreachable:
        """What each API has is not found: somebody between says so, and nothing is gone by that."""
        return Unreachable(f"who answers for the Kubernetes API says 404 of {kind.called}: {_why(said)}")

    def _refused(self, kind: Kind, verb: str, status: int, why: str) -> Exception:
        if status == _GONE:
            return Compacted(why)
        if status == _ABSENT:
            return Absent()
        if status == _FORBIDDEN:
            return Forbidden(f"the Kubernetes API does not let this host {verb} {kind.called}: {why}")
        if status == _UNKNOWN:
            return Unreachable(f"the Kubernetes API does not know who asks, by {self._token_file}: {why}")
        return Unreachable(f"the Kubernetes API, asked to {verb} {kind.called}, says {status}: {why}")

    def _login(self) -> dict[str, str]:
        """By the token as it is now; as it was, while the file is being changed."""
        if str(self._token_file) == ".":
            return {}
        try:
            self._token = self._token_file.read_text().strip() or self._token
        except (OSError, ValueError) as error:
            if not self._token:
                raise Unreachable(f"the token of the Kubernetes API: {error}") from error
        return {"Authorization": f"Bearer {self._token}"}


def _path(kind: Kind) -> str:
    return kind.path(kind.versions[0])


def _is_said_by_api(text: bytes) -> bool:
    try:
        return _status(text).code == _ABSENT
    except ValueError:
        return False


def _why(text: bytes) -> str:
    try:
        return _status(text).message
    except ValueError:
        return text[:200].decode(errors="replace").strip()


def _own_server() -> str:
    """Where pods are told the API is. Raises Unavailable."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise Unavailable(
            "this is no pod of Kubernetes (no KUBERNETES_SERVICE_HOST): kubernetes.server of cluster.json"
        )
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
