"""Who traces a call, as libcni passes it on: TRACEPARENT, TRACESTATE and BAGGAGE in the environment.

Source: W3C Trace Context level 2 and W3C Baggage, in OpenTelemetry's environment variables (OTEP 0258).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

PARENT, STATE, BAGGAGE = "TRACEPARENT", "TRACESTATE", "BAGGAGE"
#: Version 00; a later one may go on after another dash.
_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[^\s]*)?")
_NO_VERSION, _SAMPLED = "ff", 1
#: Characters of a log line for what others say at will; W3C Baggage asks to keep 8,192 bytes, and Trace Context 512.
_LONGEST = 8192


class Parent(NamedTuple):
    """A span whose child is made next: its trace, its own id, both hexadecimal, and the flags it was told with."""

    trace: str
    span: str
    flags: int

    @property
    def is_sampled(self) -> bool:
        """Whether who traces keeps this trace."""
        return bool(self.flags & _SAMPLED)

    def __str__(self) -> str:
        return f"00-{self.trace}-{self.span}-{self.flags:02x}"


def parent_of(environ: Mapping[str, str]) -> Parent | None:
    """The span a call is a part of; None where none is named, or what is named is none."""
    found = _FORM.fullmatch(environ.get(PARENT, "").strip())
    if not found:
        return None
    version, trace, span, flags, more = found.groups()
    if version == _NO_VERSION or (version == "00" and more) or not (int(trace, 16) and int(span, 16)):
        return None
    return Parent(trace, span, int(flags, 16))


def told(environ: Mapping[str, str]) -> dict[str, str]:
    """What a log line says of it, and the trace's id by itself, under the name by which logs and traces are brought together."""
    parent = parent_of(environ)
    carried = (STATE, BAGGAGE) if parent else (BAGGAGE,)  # without its parent a state says nothing
    said = {"trace_id": parent.trace, PARENT.lower(): str(parent)} if parent else {}
    return said | {name.lower(): environ[name][:_LONGEST] for name in carried if environ.get(name)}
