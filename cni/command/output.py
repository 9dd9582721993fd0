"""How the command speaks: tables and lines for people, JSON for programs; the only place that prints.

What runtimes and pods call things is printed so that a terminal takes no orders from it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from enum import Enum
from typing import Any


class Tint(Enum):
    """What a word may be painted in: its number is the terminal's (ECMA-48, SGR)."""

    FAINT, RED, GREEN, YELLOW = "2", "1;31", "32", "33"


PLAIN: Tint | None = None


def shown(text: str) -> str:
    """A text as one line without anything a terminal would act on: control characters, directions, lone surrogates."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def say(*lines: str) -> None:
    """Print lines."""
    for line in lines:
        print(shown(line))


def say_tinted(*parts: tuple[str, Tint | None]) -> None:
    """Print one line, parts of it in a colour where a terminal shows it and nobody refuses it (no-color.org)."""
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    print(
        "".join(f"\x1b[{tint.value}m{shown(text)}\x1b[0m" if coloured and tint else shown(text) for text, tint in parts)
    )


def say_at_once(line: str) -> None:
    """Print a line of what goes on, for who reads it through a pipe, too."""
    print(shown(line), flush=True)


def complain(*lines: str) -> None:
    """Print lines to stderr. One that takes none is given up: what Python kept of it would end the process with code 120."""
    try:
        for line in lines:
            print(shown(line), file=sys.stderr)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


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
