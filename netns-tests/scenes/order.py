"""In which order tests run: a test that takes long and begins last is waited for by all the other workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def dealt(tests: Sequence[T], is_long: Callable[[T], bool], workers: int) -> list[T]:
    """The same tests, the long ones at the beginning of what each worker gets first, and the others as they are.

    `--dist worksteal` gives each worker a contiguous part, of equal size, and lets who is done take from the ends of others.
    """
    long = [test for test in tests if is_long(test)]
    others = (test for test in tests if not is_long(test))
    parts = [(size, long[number::workers]) for number, size in enumerate(_sizes(len(tests), workers))]
    return [test for size, first in parts for test in (*first, *islice(others, max(0, size - len(first))))]


def _sizes(count: int, workers: int) -> Iterator[int]:
    """As xdist divides: each its part of what those before it have left."""
    for left in range(workers, 0, -1):
        yield count // left
        count -= count // left
