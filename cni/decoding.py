"""JSON, as strictly as Go's encoding/json reads it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

#: Go reads numbers into float64, which ends at 1.8e308; nothing real is nested more than 20 levels.
_MOST_DIGITS, _MOST_LEVELS = 308, 100
_TOO_DEEP = f"it is nested more than {_MOST_LEVELS} levels deep"


def decoded(text: bytes | str, made: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """What a JSON text says, as strictly as Go's encoding/json reads it; an object is what is `made` of its pairs. Raises ValueError.

    Nesting is bounded far below what Python's stack takes, because what is read is walked and written again.
    """
    try:
        spelled = text if isinstance(text, str) else _decoded(text)
        value = json.loads(
            spelled, parse_constant=_refuse_constant, parse_int=_integer, parse_float=_float, object_pairs_hook=made
        )
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if spelled.count("[") + spelled.count("{") > _MOST_LEVELS:  # fewer cannot nest deeper, and are no reason to walk it
        _refuse_depth(value, _MOST_LEVELS)
    return value


def _decoded(text: bytes) -> str:
    """As Go's encoding/json reads it: UTF-8 alone. Raises ValueError."""
    if text.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise ValueError("it begins with a byte order mark; runtimes read UTF-8 without one")
    if not text.strip():
        raise ValueError("it is empty")
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is no UTF-8") from None


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:60]} is too large a number")
    return number


def _refuse_depth(value: Any, left: int) -> None:
    if not left:
        raise ValueError(_TOO_DEEP)
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _refuse_depth(item, left - 1)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
