"""The order of netns-tests, against xdist's own division of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from order import dealt, sampled
from xdist.scheduler.worksteal import WorkStealingScheduling


class Worker:
    """What the scheduler sends a worker first."""

    def __init__(self) -> None:
        self.gateway, self.shutting_down = SimpleNamespace(id=id(self), spec=None), False
        self.sent: list[int] = []

    def send_runtest_some(self, numbers: list[int]) -> None:
        self.sent += numbers

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def parts(tests: list[str], workers: int) -> list[list[str]]:
    """What `--dist worksteal` gives each worker to begin with."""
    config: Any = SimpleNamespace(
        getvalue=lambda _: [f"{workers}*popen"], option=SimpleNamespace(tx=["popen"] * workers)
    )
    scheduling = WorkStealingScheduling(config)
    nodes: list[Any] = [Worker() for _ in range(workers)]
    for node in nodes:
        scheduling.add_node(node)
        scheduling.add_node_collection(node, tests)
    scheduling.schedule()
    return [[tests[number] for number in node.sent] for node in nodes]


@pytest.mark.parametrize("workers", [1, 2, 3, 6])
@pytest.mark.parametrize("count", [12, 13, 17, 100])
def test_each_worker_begins_with_its_part_of_the_long_ones(count: int, workers: int):
    tests = [f"{'long' if number % 5 == 4 else 'short'} {number}" for number in range(count)]
    order = dealt(tests, lambda test: test.startswith("long"), workers)
    assert sorted(order) == sorted(tests)
    assert [test for test in order if test.startswith("short")] == [test for test in tests if test.startswith("short")]
    begins = [[test.startswith("long") for test in part] for part in parts(order, workers)]
    assert [sorted(part, reverse=True) for part in begins] == begins
    shares = [sum(part) for part in begins]
    assert max(shares) - min(shares) <= 1


def test_more_long_ones_than_fit_are_no_loss():
    assert sorted(dealt([*"abcdefg"], lambda _: True, 3)) == [*"abcdefg"]


@pytest.mark.parametrize(("many", "chosen"), [(1, "0"), (3, "012"), (4, "013"), (10, "049")])
def test_of_a_function_with_many_parameters_some_are_run_from_the_first_to_the_last(many: int, chosen: str):
    tests = ["alone", *(f"many[{number}]" for number in range(many)), "last"]
    assert sampled(tests, lambda test: test.split("[")[0], lambda _: 3) == [
        "alone",
        *(f"many[{it}]" for it in chosen),
        "last",
    ]
