"""What a member counts while it works."""

from __future__ import annotations

import re
from collections.abc import Iterator
from threading import Thread

import pytest

from cni.member import figures
from cni.member.figures import Counter, Gauge, Histogram, Since


@pytest.fixture(autouse=True)
def every(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(figures, "EVERY", list(figures.EVERY))
    return


def test_a_counter_counts_by_its_labels():
    counter = Counter("errors_total", "Errors.", "kind")
    assert list(counter.samples()) == []
    counter.add(kind="b")
    counter.add(2, kind="a")
    counter.add(kind="a")
    assert [(item.labels, item.value) for item in counter.samples()] == [((("kind", "a"),), 3), ((("kind", "b"),), 1)]
    assert (counter.value(kind="a"), counter.value(kind="c")) == (3, 0)


@pytest.mark.parametrize("labels", [{}, {"sort": "a"}, {"kind": "a", "sort": "b"}])
def test_what_is_counted_by_other_labels_is_a_fault_of_ours(labels: dict[str, str]):
    counter = Counter("errors_total", "Errors.", "kind")
    with pytest.raises(KeyError):
        counter.add(**labels)
    assert list(counter.samples()) == []


def test_what_has_no_labels_is_told_from_the_beginning():
    """Prometheus sees a counter's first step only from a zero."""
    assert [item.value for item in Counter("renewals_total", "Renewals.").samples()] == [0]
    histogram = Histogram("seconds", "Time.", bounds=(1.0,))
    assert [item.value for item in histogram.samples()] == [0, 0, 0, 0]


def test_what_a_gauge_no_longer_says_is_gone():
    gauge = Gauge("rows", "Rows.", "kind")
    gauge.set(4, kind="route")
    gauge.put({("fdb",): 7})
    assert [(item.labels, item.value) for item in gauge.samples()] == [((("kind", "fdb"),), 7)]


def test_a_histogram_is_cumulative_and_its_bounds_belong_below():
    histogram = Histogram("seconds", "Time.", "verb", bounds=(0.1, 1.0))
    for seconds in (0.1, 0.05, 0.5, 3.0):
        histogram.observe(seconds, verb="ADD")
    told = [(item.name, dict(item.labels).get("le"), round(item.value, 3)) for item in histogram.samples()]
    assert told == [
        ("agent_cni_seconds_bucket", "0.1", 2),
        ("agent_cni_seconds_bucket", "1", 3),
        ("agent_cni_seconds_bucket", "+Inf", 4),
        ("agent_cni_seconds_sum", None, 3.65),
        ("agent_cni_seconds_count", None, 4),
    ]


def test_how_long_ago_something_was_is_told_from_the_first_time_on(monkeypatch: pytest.MonkeyPatch):
    heard = Since("silence_seconds", "Silence.")
    assert list(heard.samples()) == []
    monkeypatch.setattr("time.monotonic", lambda: 100.0)
    heard.now()
    monkeypatch.setattr("time.monotonic", lambda: 107.5)
    assert [item.value for item in heard.samples()] == [7.5]


def test_threads_lose_nothing():
    counter, histogram = Counter("all_total", "All.", "kind"), Histogram("all_seconds", "All.", bounds=(1.0,))

    def work() -> None:
        for number in range(5000):
            counter.add(kind=str(number % 2))
            histogram.observe(0.5)

    threads = [Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [item.value for item in counter.samples()] == [10000, 10000]
    assert list(histogram.samples())[-1].value == 20000


def test_names_are_as_prometheus_has_them():
    """https://prometheus.io/docs/practices/naming/ and what OpenMetrics asks of a counter."""
    names = [item.name for item in figures.EVERY]
    assert len(names) == len(set(names))
    for item in figures.EVERY:
        assert re.fullmatch(r"agent_cni_[a-z]+(_[a-z]+)*", item.name)
        assert (item.kind == "counter") == item.name.endswith("_total")
        assert item.means.endswith(".")
        assert not {"le", "job", "instance"} & {*item.labels}
