"""Figures as Prometheus reads them: the text format, version 0.0.4.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from cni.member.figures import Sample

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_ESCAPED = str.maketrans({"\\": "\\\\", "\n": "\\n"})
_ESCAPED_IN_QUOTES = _ESCAPED | str.maketrans({'"': '\\"'})


class Family(NamedTuple):
    """All values of one name: their `kind` is counter, gauge or histogram, and `means` is a line for people."""

    name: str
    kind: str
    means: str
    samples: Iterable[Sample]


def text(families: Iterable[Family]) -> bytes:
    """The answer to a scrape. A family without values is not told."""
    lines: list[str] = []
    for name, kind, means, samples in families:
        told = [_line(sample) for sample in samples]
        if told:
            lines += [f"# HELP {name} {means.translate(_ESCAPED)}", f"# TYPE {name} {kind}", *told]
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")  # a name may be no UTF-8


def _line(sample: Sample) -> str:
    labels = ",".join(f'{name}="{value.translate(_ESCAPED_IN_QUOTES)}"' for name, value in sample.labels)
    number = repr(float(sample.value)).removesuffix(".0")
    return f"{sample.name}{{{labels}}} {number}" if labels else f"{sample.name} {number}"
