"""How the command speaks: tables and lines for people, JSON for programs; the only place that prints.

What runtimes and pods call things is printed so that a terminal takes no orders from it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any


def shown(text: str) -> str:
    """A text as one line without anything a terminal would act on: control characters, directions, lone surrogates."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def say(*lines: str) -> None:
    """Print lines."""
    for line in lines:
        print(shown(line))


def complain(*lines: str) -> None:
    """Print lines to stderr."""
    for line in lines:
        print(shown(line), file=sys.stderr)


def print_text(text: str) -> None:
    """Print a text of ours as it is."""
    print(text)


def print_json(data: Any) -> None:
    """Print data as indented JSON."""
    print(json.dumps(data, indent=2, allow_nan=False))


def print_json_line(data: Any) -> None:
    """Print data as JSON in one line, at once: for what goes on."""
    print(json.dumps(data, allow_nan=False), flush=True)


def print_table(nothing: str, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    """Print rows under their columns' names, or what to say of none."""
    if not rows:
        say(nothing)
        return
    cells = [columns, *([_cell(row[column]) for column in columns] for row in rows)]
    widths = [max(len(line[number]) for line in cells) for number in range(len(columns))]
    for line in cells:
        say("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    say("")


def _cell(value: object) -> str:
    return shown(", ".join(map(str, value)) if isinstance(value, list) else str(value))
