"""The text Prometheus reads, judged by Prometheus' own parser for Python."""

from __future__ import annotations

import math

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cni.member import exposition
from cni.member.exposition import Family
from cni.member.figures import Sample


def parsed(text: bytes) -> dict[str, tuple[str, str, list[tuple[str, dict[str, str], float]]]]:
    families = text_string_to_metric_families(text.decode())
    return {
        family.name: (family.type, family.documentation, [(one.name, one.labels, one.value) for one in family.samples])
        for family in families
    }


@pytest.mark.parametrize("value", ["plain", "", 'a "quoted" one', "back\\slash", "two\nlines", "ütf", "a,b={c}"])
def test_labels_and_meanings_come_through_whatever_is_in_them(value: str):
    sample = Sample("agent_cni_rows", (("kind", value), ("family", "4")), 3)
    text = exposition.text([Family("agent_cni_rows", "gauge", f"Rows {value}.", [sample])])
    (told,) = parsed(text).values()
    assert told[0] == "gauge"
    assert told[1] == f"Rows {value}."
    assert told[2] == [("agent_cni_rows", {"kind": value, "family": "4"}, 3)]


def test_a_name_that_is_no_unicode_is_told_somehow():
    text = exposition.text([Family("a", "gauge", "A.", [Sample("a", (("network", "\udc80"),), 1)])])
    assert parsed(text)["a"][2][0][2] == 1


@pytest.mark.parametrize("value", [0, 1, -1, 0.1, 2.5e-7, 1e20, 123456789012, math.inf])
def test_numbers_come_through(value: float):
    (told,) = parsed(exposition.text([Family("a", "gauge", "A.", [Sample("a", (), value)])])).values()
    assert told[2] == [("a", {}, value)]


def test_what_has_no_values_is_not_told():
    assert exposition.text([Family("a", "gauge", "A.", [])]) == b""


def test_whole_numbers_have_no_point():
    assert exposition.text([Family("a_total", "counter", "A.", [Sample("a_total", (), 3.0)])]).endswith(
        b"\na_total 3\n"
    )
