"""What libcni passes on of a trace, read as OpenTelemetry's own library reads it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace as otel
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from cni.protocol import trace

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
RIGHT = [
    f"00-{TRACE}-{SPAN}-01",
    f"00-{TRACE}-{SPAN}-00",
    f"00-{TRACE}-{SPAN}-03",
    f" 00-{TRACE}-{SPAN}-01 ",
    f"01-{TRACE}-{SPAN}-01",
    f"01-{TRACE}-{SPAN}-01-what-will-be",
]
WRONG = [
    "",
    "nonsense",
    TRACE,
    f"00-{TRACE}-{SPAN}",
    f"00-{TRACE}-{SPAN}-01-more",
    f"00-{TRACE}-{SPAN}-1",
    f"ff-{TRACE}-{SPAN}-01",
    f"00-{'0' * 32}-{SPAN}-01",
    f"00-{TRACE}-{'0' * 16}-01",
    f"00-{TRACE.upper()}-{SPAN}-01",
    f"00-{TRACE}-{SPAN}-01\nX",
    f"00-{TRACE[:-1]}-{SPAN}-01",
]


def by_the_library(text: str) -> tuple[int, int, int] | None:
    found = otel.get_current_span(TraceContextTextMapPropagator().extract({"traceparent": text})).get_span_context()
    return (found.trace_id, found.span_id, found.trace_flags) if found.is_valid else None


@pytest.mark.parametrize("text", RIGHT + WRONG)
def test_a_parent_is_what_the_library_takes_for_one(text: str):
    found = trace.parent_of({"TRACEPARENT": text})
    assert (found is not None) == (text in RIGHT)
    assert (found and (int(found.trace, 16), int(found.span, 16), found.flags)) == by_the_library(text)


@given(st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[a-z]{1,3})?", fullmatch=True))
def test_so_is_any_other(text: str):
    found = trace.parent_of({"TRACEPARENT": text})
    assert (found and (int(found.trace, 16), int(found.span, 16), found.flags)) == by_the_library(text)


def test_a_parent_is_spelled_as_it_was_told():
    assert [str(trace.parent_of({"TRACEPARENT": text})) for text in RIGHT[:3]] == RIGHT[:3]
    assert [trace.parent_of({"TRACEPARENT": text}).is_sampled for text in RIGHT[:3]] == [True, False, True]


def test_a_log_line_says_all_three():
    environ = {"TRACEPARENT": RIGHT[0], "TRACESTATE": "vendor=1", "BAGGAGE": "tenant=a,ring=2", "PATH": "/bin"}
    assert trace.told(environ) == {
        "trace_id": TRACE, "traceparent": RIGHT[0], "tracestate": "vendor=1", "baggage": "tenant=a,ring=2",
    }  # fmt: skip


def test_what_is_no_trace_is_not_told_and_neither_is_its_state():
    assert trace.told({"TRACEPARENT": "nonsense", "TRACESTATE": "vendor=1"}) == {}
    assert trace.told({"TRACEPARENT": "nonsense", "BAGGAGE": "tenant=a"}) == {"baggage": "tenant=a"}
    assert trace.told({"TRACEPARENT": "", "BAGGAGE": ""}) == {}


def test_nobody_fills_the_log_with_his_baggage():
    assert len(trace.told({"BAGGAGE": "a=" + "b" * 100_000})["baggage"]) == 8192
