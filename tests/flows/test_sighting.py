"""A line of the ring says what was seen, and what is none says nothing."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.flows.sighting import BEGUN, DENIED, ENDED, Sighting, read

SEEN = Sighting(
    ENDED, 1796021217.5, "egress", "shop/web", "0123456789ab", "10.1.0.2", "shop/db", "ba9876543210", "10.1.0.3", "tcp", 5432, 40000,
    "10.96.0.1:5432", ("db.shop.example",), "c652e0d6", 1796021216.9, 1796021217.4, 7, 450, 5, 820,
)  # fmt: skip
TEXTS = st.text(max_size=20)
NUMBERS = st.integers(0, 1 << 63)


@given(
    st.builds(
        Sighting,
        st.sampled_from([BEGUN, ENDED, DENIED]),
        st.floats(1, 1e10),
        st.sampled_from(["egress", "ingress"]),
        TEXTS,
        TEXTS,
        st.just("10.1.0.2"),
        TEXTS,
        TEXTS,
        st.just("fd00::1"),
        st.just("tcp"),
        NUMBERS,
        NUMBERS,
        TEXTS,
        st.lists(TEXTS, max_size=3).map(tuple),
        TEXTS,
        st.floats(0, 1e10),
        st.floats(0, 1e10),
        NUMBERS,
        NUMBERS,
        NUMBERS,
        NUMBERS,
    )
)
def test_a_line_is_read_as_it_was_written(seen: Sighting):
    line = seen.line
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert read(line.strip()) == seen


def test_a_line_is_json_without_what_is_empty():
    said = json.loads(SEEN._replace(service="", names=()).line)
    assert "service" not in said
    assert "names" not in said
    assert said["sent_bytes"] == 450


LINES = {
    "nothing": b"",
    "torn": SEEN.line[:70],
    "its end": SEEN.line[30:],
    "no object": b"[1, 2]",
    "a word": b'"egress"',
    "another object": b'{"what": "begun"}',
    "a name that is a number": SEEN.line.replace(b'"shop/web"', b"5"),
    "a port that is a text": SEEN.line.replace(b"5432,", b'"5432",'),
    "names that are one": SEEN.line.replace(b'["db.shop.example"]', b'"db.shop.example"'),
    "no UTF-8": b'{"what":"\xff"}',
}


@pytest.mark.parametrize("case", LINES)
def test_what_is_no_line_of_ours_says_nothing(case: str):
    assert read(LINES[case]) is None


def test_what_a_later_release_says_besides_is_left_out():
    assert read(SEEN.line.replace(b"{", b'{"more":"than we know",', 1)) == SEEN


def test_the_other_end_sees_the_same_from_there():
    other = SEEN.from_peer()
    assert (other.pod, other.direction, other.peer, other.own, other.address) == (
        "shop/db",
        "ingress",
        "shop/web",
        "10.1.0.3",
        "10.1.0.2",
    )
    assert (other.sent_bytes, other.received_bytes, other.names) == (820, 450, ())
    assert other.from_peer() == SEEN._replace(names=())
