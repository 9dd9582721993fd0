"""The services of this node's pods in Consul's agents, by their HTTP API (https://developer.hashicorp.com/consul/api-docs/agent/service).

An agent is told what it lacks, and no more what it has of ours that is nobody's any more: whatever it lost, or was not told while it was
away, it has a moment after it is back. What of it is this node's it says itself, by the services' metadata.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from cni import log
from cni.decoding import decoded
from cni.discovery.health import Probe
from cni.errors import CniError, Unavailable
from cni.kernel import hostsdir
from cni.kernel.hostsdir import Entry
from cni.kernel.http import Answer, Door, Request, located
from cni.naming import digest_of

#: An agent is asked so often what it has, in seconds, and has so long to answer.
_EVERY, _PATIENCE = 3.0, 5.0
_NODE, _DIGEST = "agent-cni-node", "agent-cni-definition"
#: Where it is kept which agents have something of ours: the last pod of a network takes away what says so.
_BOOK = hostsdir.FOLDER / ".consul"
#: By what Consul's own programs are told who they are.
_TOKEN = "CONSUL_HTTP_TOKEN"  # noqa: S105 - the name of a variable

Services = dict[str, dict[str, Any]]


def node() -> str:
    """What this node's services are known by; a machine's id is not to be told (machine-id(5))."""
    machine = ""
    with suppress(OSError):
        machine = Path("/etc/machine-id").read_text().strip()
    return digest_of(machine or os.uname().nodename)[:16]


def services(entry: Entry, of: str) -> Services:
    """Each name of a pod as a service of Consul, by the id it is registered with, as its agent is to be told."""
    made: Services = {}
    for name in (name for name in entry.names if "." not in name):
        key = f"{entry.attachment.digest[:32]}-{name}"
        said = {"ID": key, "Name": name, "Address": entry.addresses[0], **_checked(entry)}
        meta = {"external-source": "agent-cni", "network": entry.attachment.network, "pod": entry.pod, _NODE: of}
        made[key] = said | {"Meta": meta | {_DIGEST: digest_of(json.dumps([said, meta], sort_keys=True))[:32]}}
    return made


def _checked(entry: Entry) -> dict[str, Any]:
    """Where a pod serves, and what Consul is to ask there itself."""
    try:
        probe = Probe.read(entry.health)
    except ValueError:  # of none, or of one that nobody can make
        return {}
    address = entry.addresses[0]
    place = f"{f'[{address}]' if ':' in address else address}:{probe.port}"
    asked = {"HTTP": f"http://{place}{probe.path}", "DisableRedirects": True} if probe.path else {"TCP": place}
    times = {"Interval": f"{probe.interval:g}s", "Timeout": f"{probe.timeout:g}s"}
    counts = {"FailuresBeforeCritical": probe.failures, "SuccessBeforePassing": probe.passes}
    return {"Port": probe.port, "Checks": [{"Name": str(probe), **asked, **times, **counts}]}


def agree(door: Door, wanted: Services, of: str) -> tuple[list[str], list[str]]:
    """Have an agent have these of this node's services, and no others; the ids it was told of, and those it was told no more.

    Raises Unreachable, and Unavailable where it refuses.
    """
    known = {key: item.get("Meta", {}).get(_DIGEST) for key, item in _of(door, of).items()}
    new = [key for key, said in wanted.items() if known.get(key) != said["Meta"][_DIGEST]]
    for key in new:
        _ask(door, "PUT", located("/v1/agent/service/register", **{"replace-existing-checks": "true"}), wanted[key])
    gone = sorted(known.keys() - wanted.keys())
    for key in gone:
        _ask(door, "PUT", located("/v1/agent/service/deregister/", key))
    return new, gone


def reached(url: str) -> None:
    """Raise Unreachable, or Unavailable, where an agent cannot say what it has."""
    _of(_door(url), node())


def _door(url: str) -> Door:
    try:
        return Door([url])
    except (KeyError, ValueError):
        raise Unavailable(f"{url} is no URL of Consul") from None


def _of(door: Door, node: str) -> Services:
    """The services an agent has of a node, by id."""
    path = located("/v1/agent/services", filter=f'Meta["{_NODE}"] == "{node}"')
    document = _ask(door, "GET", path).document
    try:
        return dict(decoded(document))
    except (ValueError, TypeError):
        raise Unavailable(f"what answers is no agent of Consul: {bytes(document)[:80]!r}") from None


def _ask(door: Door, method: str, path: str, document: object = None) -> Answer:
    token = os.environ.get(_TOKEN, "")
    headers = {"X-Consul-Token": token} if token else {}
    answer = door.ask(Request(path, document, headers, method=method), _PATIENCE, read=bytes)
    if answer.status != 200:
        words = bytes(answer.document)[:200].decode(errors="replace").strip()
        raise Unavailable(f"{answer.endpoint}: {method} {path.partition('?')[0]}: {answer.status} {words}")
    return answer


class Registrar:
    """Keeps agents told, those of the networks there are and those that have something of ours still."""

    def __init__(self) -> None:
        self._wanted: dict[str, Services] = {}
        self._node = node()
        self._news = asyncio.Event()
        self._known = _book()
        self._troubles: dict[str, str] = {}
        self._doors: dict[str, Door] = {}

    def wanted(self, urls: Mapping[str, str], entries: Iterable[Entry]) -> None:
        """Go by which network's pods which agent is to know, none by an empty URL."""
        wanted: dict[str, Services] = {url: {} for url in urls.values() if url}
        for entry in entries if wanted else ():
            if url := urls.get(entry.attachment.network, ""):
                wanted[url] |= services(entry, self._node)
        if wanted != self._wanted:
            self._wanted = wanted
            self._news.set()

    async def keep(self) -> None:
        """Do it until this is cancelled."""
        while True:
            self._news.clear()
            self._keep(self._known | {url for url, some in self._wanted.items() if some})
            every = self._known | self._wanted.keys()
            await asyncio.gather(*(asyncio.to_thread(self._agree, url, self._wanted.get(url, {})) for url in every))
            self._keep({url for url in every if self._wanted.get(url) or url in self._troubles})
            try:
                await asyncio.wait_for(self._news.wait(), _EVERY if every else None)
            except TimeoutError:
                continue

    def _keep(self, known: set[str]) -> None:
        """Remember who may have something of ours."""
        if known != self._known:
            with suppress(CniError):
                hostsdir.put(_BOOK, json.dumps(sorted(known)))
            self._known = known

    def _agree(self, url: str, wanted: Services) -> None:
        try:
            if url not in self._doors:
                self._doors[url] = _door(url)
            new, gone = agree(self._doors[url], wanted, self._node)
        except CniError as error:
            if url not in self._troubles:
                log.warning("names", error.msg, verb="consul")
            self._troubles[url] = error.msg
            return
        if self._troubles.pop(url, ""):
            log.warning("names", f"{url} answers again", verb="consul")
        for verb, ids in (("register", new), ("deregister", gone)):
            for key in ids:
                log.event("names", verb, service=key, consul=url)


def _book() -> set[str]:
    try:
        return {str(url) for url in decoded(hostsdir.read(_BOOK) or "[]")}
    except (CniError, ValueError, TypeError):
        return set()
