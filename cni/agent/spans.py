"""A call as spans: its own, and one for each step of its plan where that is wanted; handed over once it is answered.

What a worker has of them is plain data: OpenTelemetry's library is loaded by who sends them (agent/sending.py). Ids are made here,
because whoever is asked within a call is told of which span that is.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING, Any

from cni import log
from cni.protocol.call import Call
from cni.protocol.trace import BAGGAGE, PARENT, STATE, Parent, parent_of
from cni.values import dataclass, field

if TYPE_CHECKING:
    from cni.errors import CniError, Stranded
    from cni.main import Stdout

#: Of one call; what comes after is counted. And resources that one step names.
_MOST, _MOST_NAMED = 500, 20
#: What is told of; and what is asked every few seconds, which is not, while all is well and nobody above traces it.
_VERBS, _ASKED_OFTEN = ("ADD", "CHECK", "DEL", "GC", "STATUS"), "STATUS"
_ids = SystemRandom()


@dataclass
class Span:
    """What was done from when to when, in nanoseconds since 1970, as a part of which other; `error` is why it failed."""

    name: str
    parent: Parent
    own: Parent
    began: int
    attributes: dict[str, Any] = field(default_factory=dict)
    ended: int = 0
    error: str = ""

    @property
    def told(self) -> dict[str, Any]:
        """As plain data."""
        return vars(self) | {"parent": self.parent.span, "own": self.own.span}


class Spans:
    """Where the spans of a worker's calls go; of which each step is one too, where `steps` are wanted.

    Nobody waits for who reads them: where he is behind they are lost, and counted.
    """

    def __init__(self, into: socket.socket, *, steps: bool) -> None:
        self._into = into
        self._steps = steps
        self._ready: dict[str, Any] = {}
        self._lost = 0

    @contextmanager
    def of(self, environ: MutableMapping[str, str], script: str, stdout: Stdout) -> Iterator[None]:
        """Take down a call while it is served, unless who traces it does not want to keep it. `environ` says to whom it asks that they are
        within its span.
        """
        above = parent_of(environ)
        verb = environ.get("CNI_COMMAND", "")
        if verb not in _VERBS or (above and not above.is_sampled):
            yield
            return
        names = (PARENT, STATE, BAGGAGE) if above else (BAGGAGE,)
        carried = {name.lower(): environ[name] for name in names if environ.get(name)}
        call = _Call(environ, above or Parent(f"{_ids.getrandbits(128) or 1:032x}", "", 1), script, steps=self._steps)
        log.listener = call
        try:
            yield
        finally:
            log.listener = None
            call.end(stdout.failure)
            if above or stdout.failure or verb != _ASKED_OFTEN:
                self._ready = {"carried": carried, **call.said}

    def hand_over(self) -> None:
        """Let go of what the last call was."""
        said, self._ready = self._ready, {}
        if said:
            try:
                self._into.send(json.dumps(said | {"lost": self._lost}).encode())
                self._lost = 0
            except OSError:  # who reads is behind, or it is too long for him
                self._lost += 1


class _Call:
    """One call, and what it has come to (log.Listener)."""

    def __init__(self, environ: MutableMapping[str, str], above: Parent, script: str, *, steps: bool) -> None:
        self._environ, self._wants_steps = environ, steps
        self._above, self._left_out = above, 0
        name = f"{environ.get('CNI_COMMAND', '')} {Path(script).name}"
        self._spans: list[Span] = []
        self._own = self._begun(name, above)
        self._own.attributes = _attributes(environ, script)
        environ[PARENT] = str(self._own.own)

    def told(self, line: Mapping[str, Any]) -> None:
        """Hear what the log says of it."""
        self._own.name = f"{line['verb']} {line['plugin']}"
        self._own.attributes |= {"cni.plugin": line["plugin"]}
        if line.get("network"):
            self._own.attributes["cni.network"] = line["network"]

    def step(self, verb: str, items: Sequence[Any]) -> AbstractContextManager[None]:
        """Take down one step."""
        if not self._wants_steps:
            return nullcontext()
        if len(self._spans) >= _MOST:
            self._left_out += 1
            return nullcontext()
        return self._taken_down(verb, items)

    @contextmanager
    def _taken_down(self, verb: str, items: Sequence[Any]) -> Iterator[None]:
        kinds = dict.fromkeys(getattr(item, "kind", item) for item in items)
        above = self._environ[PARENT]
        span = self._begun(" ".join([verb, *kinds]), parent_of({PARENT: above}) or self._own.own)
        self._environ[PARENT] = str(span.own)
        if said := [item.describe() for item in items[:_MOST_NAMED] if hasattr(item, "describe")]:
            span.attributes = {"cni.resources": said, "cni.resources.count": len(items)}
        try:
            yield
        except BaseException as error:
            span.error = str(error) or type(error).__name__
            raise
        finally:
            self._environ[PARENT] = above
            span.ended = time.time_ns()

    def end(self, failure: CniError | Stranded | None) -> None:
        """Be over."""
        self._own.ended = time.time_ns()
        if failure:
            self._own.error = failure.msg
            self._own.attributes["error.type"] = str(failure.code)
        if self._left_out:
            self._own.attributes["cni.steps.left_out"] = self._left_out

    @property
    def said(self) -> dict[str, Any]:
        """All of it, as plain data."""
        return {"trace": self._above.trace, "spans": [span.told for span in self._spans]}

    def _begun(self, name: str, above: Parent) -> Span:
        own = above._replace(span=f"{_ids.getrandbits(64) or 1:016x}")
        self._spans.append(Span(name, above, own, time.time_ns()))
        return self._spans[-1]


def _attributes(environ: Mapping[str, str], script: str) -> dict[str, Any]:
    """Who asks for what, under OpenTelemetry's names where it has some."""
    pod = Call("", args=environ.get("CNI_ARGS", "")).pod
    namespace, _, name = pod.partition("/")
    said = {
        "cni.plugin": Path(script).name, "cni.verb": environ.get("CNI_COMMAND", ""), "cni.ifname": environ.get("CNI_IFNAME", ""),
        "container.id": environ.get("CNI_CONTAINERID", ""), "k8s.namespace.name": namespace, "k8s.pod.name": name,
    }  # fmt: skip
    return {key: value for key, value in said.items() if value}
