from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.errors import InvalidConfig
from cni.ipam.ranges import Range, RangeSet, first_gap, read_sets
from cni.naming import IPAddress

BASE = ipaddress.ip_address("10.0.0.0")


def address(text: str) -> IPAddress:
    return ipaddress.ip_address(text)


def spelled(raw: Range) -> tuple[str, str, str]:
    return str(raw.first), str(raw.last), str(raw.gateway)


def naive_gap(first: int, last: int, taken: Iterable[tuple[int, int]]) -> int | None:
    gone = {value for low, high in taken for value in range(low, high + 1)}
    return next((value for value in range(first, last + 1) if value not in gone), None)


SPANS = st.tuples(st.integers(0, 40), st.integers(0, 12)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(SPANS, st.lists(SPANS, max_size=12).map(sorted))
def test_the_first_gap_is_the_lowest_free_address(span: tuple[int, int], taken: list[tuple[int, int]]):
    first, last = (BASE + value for value in span)
    found = first_gap((first, last), [(int(BASE) + low, int(BASE) + high) for low, high in taken])
    expected = naive_gap(*span, taken)
    assert found == (None if expected is None else BASE + expected)


def test_a_gap_keeps_its_family():
    assert first_gap((address("::5"), address("::9")), [(5, 6)]) == address("::7")


@given(st.data())
def test_spans_after_an_address_cover_the_set_once_and_end_with_it(data: st.DataObject):
    cuts = sorted(data.draw(st.sets(st.integers(1, 250), min_size=2, max_size=8)))
    bounds = [(low, high - 1) for low, high in pairwise(cuts)]
    ranges = [Range(ipaddress.ip_network("10.0.0.0/24"), BASE + low, BASE + high, None) for low, high in bounds]
    ranges = data.draw(st.permutations(ranges))
    members = [value for part in ranges for value in range(int(part.first), int(part.last) + 1)]
    given_last = data.draw(st.sampled_from(members))
    spans = RangeSet(tuple(ranges)).spans_after(ipaddress.ip_address(given_last))
    walked = [value for low, high in spans for value in range(int(low), int(high) + 1)]
    at = members.index(given_last)
    assert [value for value in walked if value != given_last] == members[at + 1 :] + members[:at]
    assert walked.count(given_last) == 1
    assert walked[-1] == given_last


@pytest.mark.parametrize("last", [None, "10.9.0.1", "fd00::1"], ids=["nothing yet", "outside", "another family"])
def test_without_an_address_given_spans_begin_at_the_beginning(last: str | None):
    range_set = RangeSet.read([{"subnet": "10.0.0.0/29"}, {"subnet": "10.0.1.0/29"}], "$")
    spans = list(range_set.spans_after(address(last) if last else None))
    assert [(str(low), str(high)) for low, high in spans] == [("10.0.0.1", "10.0.0.6"), ("10.0.1.1", "10.0.1.6")]


@pytest.mark.parametrize(
    ("raw", "ends"),
    [
        ({"subnet": "10.0.0.0/24"}, ("10.0.0.1", "10.0.0.254", "10.0.0.1")),
        ({"subnet": "10.0.0.0/30"}, ("10.0.0.1", "10.0.0.2", "10.0.0.1")),
        ({"subnet": "fd00::/64"}, ("fd00::1", "fd00::ffff:ffff:ffff:ffff", "fd00::1")),
        ({"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.9"}, ("10.0.0.9", "10.0.0.254", "10.0.0.1")),
        ({"subnet": "10.0.0.0/24", "rangeEnd": "10.0.0.9"}, ("10.0.0.1", "10.0.0.9", "10.0.0.1")),
        ({"subnet": "10.0.0.0/24", "gateway": "10.0.0.254"}, ("10.0.0.1", "10.0.0.254", "10.0.0.254")),
        ({"subnet": "10.0.0.0/24", "gateway": "192.0.2.1"}, ("10.0.0.1", "10.0.0.254", "192.0.2.1")),
        (
            {"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.5", "rangeEnd": "10.0.0.5"},
            ("10.0.0.5", "10.0.0.5", "10.0.0.1"),
        ),
        ({"subnet": "10.0.0.0/24", "rangeEnd": "10.0.0.255"}, ("10.0.0.1", "10.0.0.254", "10.0.0.1")),
        ({"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.0"}, ("10.0.0.1", "10.0.0.254", "10.0.0.1")),
        ({"subnet": "fd00::/64", "rangeStart": "fd00::", "rangeEnd": "fd00::9"}, ("fd00::1", "fd00::9", "fd00::1")),
        ({"subnet": "10.0.0.5/32"}, ("10.0.0.5", "10.0.0.5", "None")),
        ({"subnet": "fd00::5/128"}, ("fd00::5", "fd00::5", "None")),
        ({"subnet": "10.0.0.5/32", "gateway": "10.0.0.1"}, ("10.0.0.5", "10.0.0.5", "10.0.0.1")),
    ],
    ids=[
        *("IPv4", "smallest", "IPv6", "start", "end", "gateway", "a gateway elsewhere", "one address"),
        *("to the broadcast address", "from the network's", "from the routers' anycast"),
        *("one IPv4", "one IPv6", "one with a gateway"),
    ],
)
def test_ends_default_to_the_usable_addresses(raw: dict[str, Any], ends: tuple[str, str, str]):
    assert spelled(Range.read(raw, "$")) == ends


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"subnet": "10.0.0.0/31"}, r"\$\.r\.subnet: 10\.0\.0\.0/31 is too small"),
        ({"subnet": "fd00::/127"}, r"\$\.r\.subnet: fd00::/127 is too small"),
        (
            {"subnet": "10.0.0.0/24", "rangeStart": "10.0.1.1"},
            r"\$\.r\.rangeStart: 10\.0\.1\.1 is not in 10\.0\.0\.0/24",
        ),
        ({"subnet": "10.0.0.0/24", "rangeEnd": "10.0.1.1"}, r"\$\.r\.rangeEnd: 10\.0\.1\.1 is not in 10\.0\.0\.0/24"),
        ({"subnet": "10.0.0.0/24", "rangeEnd": "fd00::1"}, r"\$\.r\.rangeEnd: fd00::1 is not in"),
        (
            {"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.9", "rangeEnd": "10.0.0.8"},
            r"\$\.r: rangeStart 10\.0\.0\.9 is after rangeEnd 10\.0\.0\.8",
        ),
        (
            {"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.255", "rangeEnd": "10.0.0.255"},
            r"\$\.r: no pod can have the only address",
        ),
        ({"subnet": "10.0.0.0/24", "gateway": "fd00::1"}, r"\$\.r\.gateway: fd00::1 is of another family"),
    ],
    ids=[
        *(
            "/31",
            "/127",
            "start outside",
            "end outside",
            "end of another family",
            "turned around",
            "only the broadcast address",
        ),
        "gateway of another family",
    ],
)
def test_a_wrong_range_is_refused_with_its_path(raw: dict[str, Any], said: str):
    with pytest.raises(InvalidConfig, match=f"^{said}"):
        Range.read(raw, "$.r")


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        ([[{"subnet": "10.0.0.0/24"}, {"subnet": "fd00::/64"}]], r"\$\.s\[0\]: .*one family"),
        ([[]], r"\$\.s\[0\]: .*one family"),
        (
            [[{"subnet": "10.0.0.0/24"}, {"subnet": "10.0.0.128/25"}]],
            r"\$\.s\[0\]\[1\]: .* overlaps .* \$\.s\[0\]\[0\]",
        ),
        ([[{"subnet": "10.0.0.128/25"}], [{"subnet": "10.0.0.0/24"}]], r"\$\.s\[1\]: .* overlaps .* \$\.s\[0\]"),
    ],
    ids=["mixed families", "no range", "overlap in a set", "overlap of sets"],
)
def test_wrong_range_sets_are_refused_with_their_path(sets: list[list[dict[str, Any]]], said: str):
    with pytest.raises(InvalidConfig, match=f"^{said}"):
        read_sets([(item, f"$.s[{number}]") for number, item in enumerate(sets)])


def test_parts_of_one_subnet_do_not_overlap():
    parts = [{"subnet": "10.0.0.0/24", "rangeEnd": "10.0.0.9"}, {"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.10"}]
    (whole,) = read_sets([(parts, "$")])
    assert str(whole) == "10.0.0.1-10.0.0.9, 10.0.0.10-10.0.0.254"
    assert address("10.0.0.10") in whole
    assert address("10.0.0.255") not in whole
    assert address("::a00:a") not in whole
