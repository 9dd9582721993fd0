"""Whether a pod is well: how it is probed, and what some probes that fail or pass come to."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from cni.decoding import decoded
from cni.names.health import FAILURES, INTERVAL, LONGEST, PASSES

#: How often a pod is probed that never passed, which may just begin, in seconds.
_SECOND = 1.0
#: What a request's line may have (RFC 9112, 3.2), and what is no ASCII, as whoever said it did.
_PATH = re.compile(r"/[^\s\x00-\x1f\x7f]*")


class Probe(NamedTuple):
    """A TCP connection to a port, or with a `path` an HTTP GET there; `interval` and `timeout` are seconds, `failures` and `passes` how many
    in a row count.
    """

    port: int
    path: str = ""
    interval: float = INTERVAL
    timeout: float = LONGEST
    failures: int = FAILURES
    passes: int = PASSES

    @classmethod
    def read(cls, text: str) -> Probe:
        """What an entry of names says. Raises ValueError."""
        try:
            said = dict(decoded(text))
        except TypeError:
            raise ValueError("it is no JSON object") from None
        path = said.get("http", "")
        if path and not _PATH.fullmatch(str(path)):
            raise ValueError(f"{path!r} is no path")
        port = _number(said, "port" if path else "tcp", int, 0)
        interval = _number(said, "interval", float, cls._field_defaults["interval"])
        timeout = _number(said, "timeout", float, min(interval, LONGEST))
        some = (_number(said, name, int, cls._field_defaults[name]) for name in ("failures", "passes"))
        return cls(port, path, interval, timeout, *some)

    def __str__(self) -> str:
        return f"GET {self.path} of port {self.port}" if self.path else f"port {self.port}"


def _number(said: dict[str, Any], name: str, kind: type, default: Any) -> Any:
    value = said.get(name, default)
    if not isinstance(value, int | float) or value <= 0:
        raise ValueError(f"{name} is no number: {value!r}")
    return kind(value)


class Health:
    """How a pod is by its probes so far. One that never passed is well with the first that does, for only then it has begun."""

    def __init__(self, probe: Probe, *, healthy: bool, begun: bool) -> None:
        self._probe, self._begun = probe, begun
        self.healthy = healthy
        #: What the last probe that failed said.
        self.why = ""
        self._others = self._lost = 0

    @property
    def is_lost(self) -> bool:
        """Whether so many probes failed in a row that it is not well."""
        return self._lost >= self._probe.failures

    @property
    def interval(self) -> float:
        """After how many seconds it is to be probed again."""
        return self._probe.interval if self._begun else min(self._probe.interval, _SECOND)

    def heard(self, why_not: str) -> None:
        """Take what a probe says; nothing: it passed."""
        passed = not why_not
        self.why = why_not or self.why
        self._lost = 0 if passed else self._lost + 1
        self._others = self._others + 1 if passed != self.healthy else 0
        enough = (self._probe.passes if self._begun else 1) if passed else self._probe.failures
        if self._others >= enough:
            self.healthy, self._others = passed, 0
        self._begun = self._begun or passed
