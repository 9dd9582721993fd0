"""Which tests run, and in which order: a test that takes long and begins last is waited for by all the other workers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

T = TypeVar("T")

#: Whether all that can be enumerated is (`make crash-test PARTS=sweeps`), and not what `make test` has the time for.
WHOLE = "WHOLE" in os.environ


def some(things: Iterable[T], step: int) -> list[T]:
    """One of so many, or all of them."""
    return [*things][:: 1 if WHOLE else step]


def sampled(tests: Sequence[T], function: Callable[[T], str], most: Callable[[T], int]) -> list[T]:
    """Of the tests that are one function with other parameters so many at most, from the first to the last of them, as they are."""
    whole: dict[str, list[T]] = {}
    for test in tests:
        whole.setdefault(function(test), []).append(test)
    return [test for family in whole.values() for test in _spread(family, most(family[0]))]


def _spread(family: Sequence[T], most: int) -> list[T]:
    if len(family) <= most:
        return [*family]
    return [family[number * (len(family) - 1) // (most - 1)] for number in range(most)]


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
