"""The licence of every package against those that are allowed."""

from __future__ import annotations

from importlib.metadata import PathDistribution
from pathlib import Path

import licences
import pytest
from pins import installed


def test_every_package_is_under_a_licence_that_is_allowed():
    assert licences.faults(installed()) == []


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("GPL-2.0-or-later OR Apache-2.0", True),
        ("Apache-2.0 AND BSD-2-Clause", True),
        ("MIT AND (GPL-3.0-only OR BSD-3-Clause)", True),
        ("GPL-3.0-only", False),
        ("MIT AND GPL-3.0-only", False),
        ("Apache-2.0 WITH LLVM-exception", False),
        ("MIT OR", False),
        ("My own licence", False),
        ("", False),
    ],
)
def test_an_expression_is_allowed_by_what_it_leaves_us_to_choose(expression: str, allowed: bool):
    assert licences.is_allowed(expression) is allowed


def package(folder: Path, metadata: str, text: str = "") -> PathDistribution:
    place = folder / "thing-1.dist-info"
    (place / "licenses").mkdir(parents=True)
    (place / "METADATA").write_text(f"Metadata-Version: 2.4\nName: thing\nVersion: 1\n{metadata}")
    (place / "licenses/LICENSE").write_text(text)
    (place / "RECORD").write_text("thing-1.dist-info/METADATA,,\nthing-1.dist-info/licenses/LICENSE,,\n")
    return PathDistribution(place)


@pytest.mark.parametrize(
    ("metadata", "text", "licence"),
    [
        ("License-Expression: MIT OR GPL-2.0-only\nLicense: else\n", "", "MIT OR GPL-2.0-only"),
        ("License: MPL-2.0\n", "", "MPL-2.0"),
        ("License: Apache 2.0\n", "", "Apache-2.0"),
        ("License: see the file\nClassifier: License :: OSI Approved :: MIT License\n", "", "MIT"),
        ("License-File: LICENSE\n", "\nThe MIT License (MIT)\n\nCopyright\n", "MIT"),
        ("License: Ours\n", "", "Ours"),
        ("Classifier: License :: OSI Approved :: BSD License\n", "", ""),
        ("License-File: LICENSE\n", "All rights reserved.\n", ""),
    ],
)
def test_a_package_says_it_as_an_expression_or_in_words(tmp_path: Path, metadata: str, text: str, licence: str):
    assert licences.licence(package(tmp_path, metadata, text)) == licence


def test_what_is_not_allowed_is_named_with_its_licence(tmp_path: Path):
    other = package(tmp_path, "License-Expression: AGPL-3.0-only\n")
    assert licences.faults(iter([other])) == ["thing 1: its licence is AGPL-3.0-only"]
