"""What judges the policies' tests, judged by hand: every case of the matrix says of some connections whether they may be."""

from __future__ import annotations

import pytest
from cases import NODE, OUTSIDE, PODS, Case, Expected, cases, placed

ADDRESSES = {
    key: {4: f"10.{3 if key.endswith('c') else 1}.0.{at}", 6: f"fd00:{3 if key.endswith('c') else 1}::{at}"}
    for at, key in enumerate(PODS, 2)
} | {
    NODE: {4: "192.0.2.11", 6: "fd00:2::11"},
    OUTSIDE: {4: "192.0.2.12", 6: "fd00:2::12"},
}


def test_the_cases_are_many():
    assert len(cases()) >= 100
    assert len({case.name for case in cases()}) == len(cases())


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_the_reference_says_what_its_writer_says(case: Case):
    said = Expected(placed([*case.world, *case.documents], ADDRESSES), ADDRESSES, case.far)
    facts = list(case.facts(ADDRESSES))
    assert facts
    assert [f"{probe}: {yes}" for probe, yes in facts if said.allows(probe) is not yes] == []
